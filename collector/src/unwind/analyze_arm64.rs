//! The same as [`analyze`](super::analyze) of arm64: rules of code without descriptions, from what its instructions do to the stack. Pure.
//!
//! Encodings: Arm Architecture Reference Manual for A-profile, C4.1.

use super::rule::{Cfa, Rule};
use crate::sorted::{SortedMap, SortedSet};

/// Bytes of an instruction, of a register, and of one for vectors.
const INSTRUCTION: usize = 4;
const WORD: i32 = 8;
const VECTOR: i32 = 16;
/// Numbers of registers.
const FP: u32 = 29;
const LINK: u32 = 30;
const SP: u32 = 31;

/// What is known of the frame before an instruction: how far the frame address is from registers, and from it where those of the caller are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame {
    sp: Option<i32>,
    fp: Option<i32>,
    saved_fp: Option<i32>,
    saved_link: Option<i32>,
}

/// How it goes on behind an instruction.
enum Flow {
    On(Frame),
    /// A jump, perhaps: where to, and whether it may go on behind it too.
    Jump(i64, bool),
    /// It goes elsewhere, and back to whoever called.
    Ends,
}

/// Bits of an instruction as a number with a sign, from one on.
fn signed(word: u32, from: u32, bits: u32) -> i32 {
    (word << (32 - from - bits)) as i32 >> (32 - bits)
}

/// A store or load of registers at the stack pointer.
struct Access {
    is_load: bool,
    /// Vectors are none that are of interest.
    registers: [Option<u32>; 2],
    /// From the stack pointer, once that has moved.
    offset: i32,
    size: i32,
    /// How far it moves, and whether before.
    moves: i32,
    is_before: bool,
}

impl Access {
    fn of(word: u32) -> Option<Self> {
        let (first, base, second) = (word & 31, word >> 5 & 31, word >> 10 & 31);
        if base != SP {
            return None;
        }
        let is_vector = word >> 26 & 1 != 0;
        let of = |register| Some(register).filter(|_| !is_vector);
        // Pairs: of words, doubles and quads, behind, at a distance, and before.
        let size = match word & 0xfc00_0000 {
            0xa800_0000 | 0x6c00_0000 => Some(WORD),
            0xac00_0000 => Some(VECTOR),
            _ => None,
        };
        if let (Some(size), true) = (size, word >> 25 & 1 == 0) {
            let distance = signed(word, 15, 7) * size;
            let (offset, moves, is_before) = match word >> 23 & 3 {
                1 => (0, distance, false),
                2 => (distance, 0, false),
                3 => (0, distance, true),
                _ => return None,
            };
            let is_load = word >> 22 & 1 != 0;
            return Some(Self {
                is_load,
                registers: [of(first), of(second)],
                offset,
                size,
                moves,
                is_before,
            });
        }
        // One register: at a distance in units of its size, and behind or before.
        let size = match word >> 30 {
            3 => WORD,
            0 if is_vector => VECTOR,
            _ => return None,
        };
        let is_load = match (word >> 22 & 3, size) {
            (0, WORD) | (2, VECTOR) => false,
            (1, WORD) | (3, VECTOR) => true,
            _ => return None,
        };
        let (offset, moves, is_before) = match word & 0x3b20_0c00 {
            0x3800_0400 => (0, signed(word, 12, 9), false),
            0x3800_0c00 => (0, signed(word, 12, 9), true),
            0x3800_0000 => (signed(word, 12, 9), 0, false),
            _ if word & 0x3b00_0000 == 0x3900_0000 => ((word >> 10 & 0xfff) as i32 * size, 0, false),
            _ => return None,
        };
        Some(Self { is_load, registers: [of(first), None], offset, size, moves, is_before })
    }
}

impl Frame {
    /// Of a function that was just called.
    const CALLED: Self = Self { sp: Some(0), fp: None, saved_fp: None, saved_link: None };

    fn rule(self) -> Rule {
        let base = match (self.fp, self.sp) {
            (Some(offset), _) => Rule::at(Cfa::Fp, offset.into()),
            (None, Some(offset)) if offset >= 0 => Rule::at(Cfa::Sp, offset.into()),
            _ => return Rule::default(),
        };
        if base.cfa == Cfa::Unsupported {
            return base;
        }
        let base = match self.saved_link {
            Some(offset) => base.with_return(offset.into()),
            None => base.with_link(),
        };
        self.saved_fp.map_or(base, |offset| base.with_fp(offset.into()))
    }

    /// The stack has grown by that much.
    fn grown(self, bytes: i32) -> Self {
        Self { sp: self.sp.map(|sp| sp.wrapping_add(bytes)), ..self }
    }

    fn accessed(self, access: &Access) -> Self {
        let mut after = if access.is_before { self.grown(access.moves.wrapping_neg()) } else { self };
        for (register, number) in access.registers.into_iter().zip(0..) {
            let at = access.offset + number * access.size;
            let place = after.sp.map(|sp| at.wrapping_sub(sp));
            let saved = match register {
                Some(FP) => &mut after.saved_fp,
                Some(LINK) => &mut after.saved_link,
                _ => continue,
            };
            if access.is_load {
                if *saved == place {
                    *saved = None;
                    after.fp = after.fp.filter(|_| register != Some(FP));
                }
            } else if saved.is_none() {
                *saved = place;
            }
        }
        if access.is_before { after } else { after.grown(access.moves.wrapping_neg()) }
    }

    fn after(self, word: u32) -> Flow {
        if let Some(access) = Access::of(word) {
            return Flow::On(self.accessed(&access));
        }
        let (to, from) = (word & 31, word >> 5 & 31);
        let distance = |from, bits| i64::from(signed(word, from, bits)) * INSTRUCTION as i64;
        Flow::On(match word {
            // add and sub of a constant
            _ if word & 0xbf80_0000 == 0x9100_0000 => {
                let constant = ((word >> 10 & 0xfff) << ((word >> 22 & 1) * 12)) as i32;
                let down = if word >> 30 & 1 != 0 { constant } else { -constant };
                match (to, from) {
                    (SP, SP) => self.grown(down),
                    (SP, FP) => Self { sp: self.fp.map(|fp| fp.wrapping_add(down)), ..self },
                    (SP, _) => Self { sp: None, ..self },
                    (FP, SP) => Self { fp: self.sp.map(|sp| sp.wrapping_add(down)), ..self },
                    (FP, _) => Self { fp: None, ..self },
                    _ => self,
                }
            }
            // What else writes the stack pointer: add and sub of a register that is extended; and, orr, eor of a constant, and not tst
            _ if to == SP && word & 0xbfe0_0000 == 0x8b20_0000 => Self { sp: None, ..self },
            _ if to == SP && word & 0x9f80_0000 == 0x9200_0000 && word >> 29 & 3 != 3 => {
                Self { sp: None, ..self }
            }
            // and stores and loads of other sizes that move it: pairs, single ones, and vectors
            _ if from == SP
                && (word & 0x3a80_0000 == 0x2880_0000
                    || word & 0x3b20_0400 == 0x3800_0400
                    || word & 0xbe80_0000 == 0x0c80_0000) =>
            {
                Self { sp: None, ..self }
            }
            // ret, br, with and without a key; eret; udf; brk, hlt
            _ if word & 0xfe3f_0000 == 0xd61f_0000 || word & 0xffff_0000 == 0 => return Flow::Ends,
            _ if word & 0xffe0_001f == 0xd420_0000 || word & 0xffe0_001f == 0xd440_0000 => return Flow::Ends,
            // b; b.cond; cbz, cbnz; tbz, tbnz
            _ if word & 0xfc00_0000 == 0x1400_0000 => return Flow::Jump(distance(0, 26), false),
            _ if word & 0xff00_0010 == 0x5400_0000 => return Flow::Jump(distance(5, 19), true),
            _ if word & 0x7e00_0000 == 0x3400_0000 => return Flow::Jump(distance(5, 19), true),
            _ if word & 0x7e00_0000 == 0x3600_0000 => return Flow::Jump(distance(5, 14), true),
            _ => self,
        })
    }
}

/// What is known of code, by its instructions: the frame before each that was reached.
struct Code {
    words: Vec<u32>,
    frames: Vec<Option<Frame>>,
    /// Where to go on, and with which frame.
    reached: Vec<(usize, Frame)>,
    /// Where it may go on: behind a jump to one of many places, or a call from which perhaps nothing returns.
    perhaps: SortedMap<usize, Frame>,
}

impl Code {
    /// Follows the flow from what was reached, as far as it goes.
    fn follow(&mut self) {
        while let Some((mut at, mut frame)) = self.reached.pop() {
            while let (Some(&word), Some(known @ None)) = (self.words.get(at), self.frames.get_mut(at)) {
                *known = Some(frame);
                match frame.after(word) {
                    Flow::On(after)
                        if is_call(word) && self.words.get(at + 1).is_some_and(|w| is_padding(*w)) =>
                    {
                        self.perhaps.insert(self.behind_padding(at + 1), after);
                        break;
                    }
                    Flow::On(after) => (at, frame) = (at + 1, after),
                    Flow::Jump(distance, goes_on) => {
                        let target = at as i64 + distance / INSTRUCTION as i64;
                        self.reached.extend(usize::try_from(target).ok().map(|target| (target, frame)));
                        if !goes_on {
                            break;
                        }
                        at += 1;
                    }
                    Flow::Ends => {
                        if !is_return(word) {
                            self.perhaps.insert(self.behind_padding(at + 1), frame);
                        }
                        break;
                    }
                }
            }
        }
    }

    fn behind_padding(&self, at: usize) -> usize {
        at + self.words.iter().skip(at).take_while(|word| is_padding(**word)).count()
    }
}

/// Rules of code that begins at an address, each from an address on, in order. `starts` are functions; the one at `entry` is the
/// program's first.
pub(super) fn rules(bytes: &[u8], address: u64, starts: &SortedSet<u64>, entry: u64) -> Vec<(u64, Rule)> {
    let words = bytes.chunks_exact(INSTRUCTION).filter_map(<[u8]>::first_chunk);
    let words: Vec<u32> = words.map(|word| u32::from_le_bytes(*word)).collect();
    let number = |start: &u64| usize::try_from(start.checked_sub(address)? / INSTRUCTION as u64).ok();
    let reached = starts.iter().filter_map(number).map(|start| (start, Frame::CALLED)).collect();
    let mut code = Code { frames: vec![None; words.len()], words, reached, perhaps: SortedMap::new() };
    code.follow();
    let mut found = Vec::new();
    let mut uncalled = uncalled(bytes, address, entry).into_iter().peekable();
    let mut is_uncalled = Rule::default();
    // The frame at the function's last jump to one of many places.
    let mut cases = None;
    for at in 0..code.words.len() {
        let Some(&word) = code.words.get(at) else { break };
        let known = |code: &Code| code.frames.get(at).copied().flatten();
        let here = address.wrapping_add((at * INSTRUCTION) as u64);
        let begins = starts.contains(&here) || known(&code).is_none() && is_prologue(word);
        if begins {
            cases = None;
        }
        // What nothing has reached is one of the places of a jump to many, or where nothing may lead here another function.
        if known(&code).is_none() && at > 0 && !is_padding(word) {
            let frame = code.perhaps.get(&at).copied().or(cases).filter(|_| !begins);
            let is_aligned = here % 16 == 0;
            if let Some(frame) = frame.or(Some(Frame::CALLED).filter(|_| begins || is_aligned)) {
                code.reached.push((at, frame));
                code.follow();
            }
        }
        if is_jump_to_many(word) {
            cases = known(&code);
        }
        while let Some((_, next)) = uncalled.next_if(|(from, _)| *from <= here) {
            is_uncalled = next;
        }
        let rule = known(&code).map_or(Rule::default(), Frame::rule);
        found.push((here, if is_uncalled == Rule::default() { rule } else { is_uncalled }));
    }
    found.dedup_by(|next, kept| next.1 == kept.1);
    found
}

/// What nobody calls, from an address to the end of the bytes, with `Rule::default()` for all else: the return from
/// signals, which the vDSO has described in another way since 5.8; code behind the system call that makes threads,
/// which leaves them the frame pointer of who made them; and the program's first function.
pub(super) fn uncalled(bytes: &[u8], address: u64, entry: u64) -> Vec<(u64, Rule)> {
    // mov x8, #139 (`rt_sigreturn`); svc #0
    const SIGNAL_RETURN: [u8; 8] = [0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4];
    // mov x8, #220 (`clone`); svc #0
    const CLONE: [u8; 8] = [0x88, 0x1b, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4];
    // To the call of a thread's or the program's first function, and behind it.
    const LENGTH: usize = 8 * 4;
    let mut found = vec![(address, Rule::default())];
    let mut ends = 0;
    for (at, word) in (0..).step_by(4).zip(bytes.chunks_exact(4)) {
        let here = address.wrapping_add(at as u64);
        let code = bytes.get(at..).unwrap_or(word);
        let mut rule = |from: usize, rule: Rule, length: usize| {
            found.push((address.wrapping_add(from as u64), rule));
            ends = from.saturating_add(length);
        };
        if code.starts_with(&SIGNAL_RETURN) {
            // A handler returns here: it is looked up one byte before.
            rule(at.saturating_sub(4), Rule::of(Cfa::Signal), 4 + SIGNAL_RETURN.len());
        } else if code.starts_with(&CLONE) {
            // cbz x0, +8; ret: who has made the thread returns there.
            let behind = code.get(CLONE.len()..).unwrap_or_default();
            let returns = if behind.starts_with(&[0x40, 0, 0, 0xb4, 0xc0, 0x03, 0x5f, 0xd6]) { 8 } else { 0 };
            rule(at.saturating_add(CLONE.len() + returns), Rule::of(Cfa::End), LENGTH);
        } else if here == entry {
            rule(at, Rule::of(Cfa::End), 2 * LENGTH);
        } else if ends == at && at > 0 {
            found.push((here, Rule::default()));
        }
    }
    found.sort_by_key(|(address, _)| *address);
    found
}

/// `bl`, `blr`.
fn is_call(word: u32) -> bool {
    word & 0xfc00_0000 == 0x9400_0000 || word & 0xffff_fc1f == 0xd63f_0000
}

/// `br`, with a key too.
fn is_jump_to_many(word: u32) -> bool {
    word & 0xfe3f_0000 == 0xd61f_0000 && word & 0x00c0_0000 == 0
}

/// `ret`, `retaa`, `retab`.
fn is_return(word: u32) -> bool {
    word & 0xffff_fc1f == 0xd65f_0000 || matches!(word, 0xd65f_0bff | 0xd65f_0fff)
}

/// What lies between functions: `nop`, `udf`.
fn is_padding(word: u32) -> bool {
    word == 0xd503_201f || word & 0xffff_0000 == 0
}

/// How functions with a frame begin: `paciasp`, `bti c`, `sub sp, sp, #`, and stores that move the stack pointer.
fn is_prologue(word: u32) -> bool {
    let is_store =
        || Access::of(word).is_some_and(|access| !access.is_load && access.is_before && access.moves < 0);
    matches!(word, 0xd503_233f | 0xd503_245f) || word & 0xff80_03ff == 0xd100_03ff || is_store()
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 0x1000;

    fn analyzed(words: &[u32]) -> Vec<Rule> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let rules = rules(&bytes, START, &SortedSet::from_iter([START]), 0);
        let at = |n: usize| rules.iter().rev().find(|(from, _)| *from <= START + 4 * n as u64).unwrap().1;
        (0..words.len()).map(at).collect()
    }

    fn called() -> Rule {
        Rule::at(Cfa::Sp, 0).with_link()
    }

    #[test]
    fn frames_by_either_register() {
        let rules = analyzed(&[
            0xd503233f, // paciasp
            0xa9bd7bfd, // stp x29, x30, [sp, #-48]!
            0x910003fd, // mov x29, sp
            0xa90153f3, // stp x19, x20, [sp, #16]
            0x94000000, // bl
            0xa94153f3, // ldp x19, x20, [sp, #16]
            0xa8c37bfd, // ldp x29, x30, [sp], #48
            0xd50323bf, // autiasp
            0xd65f03c0, // ret
        ]);
        let stored = |rule: Rule| rule.with_return(-40).with_fp(-48);
        let by_sp = stored(Rule::at(Cfa::Sp, 48));
        let by_fp = stored(Rule::at(Cfa::Fp, 48));
        assert_eq!(rules, [called(), called(), by_sp, by_fp, by_fp, by_fp, by_fp, called(), called()]);
    }

    #[test]
    fn a_link_alone_and_room() {
        let rules = analyzed(&[
            0xf81f0ffe, // str x30, [sp, #-16]!
            0xd10083ff, // sub sp, sp, #32
            0xb4000060, // cbz x0, to the add
            0x94000000, // bl
            0xd503201f, // nop
            0x910083ff, // add sp, sp, #32
            0xf84107fe, // ldr x30, [sp], #16
            0xd65f03c0, // ret
            0xd503201f, // nop
            0xd10043ff, // sub sp, sp, #16, of another function
            0xf90007fe, // str x30, [sp, #8]
        ]);
        let at = |bytes| Rule::at(Cfa::Sp, bytes).with_return(-16);
        assert_eq!(rules[..4], [called(), at(16), at(48), at(48)]);
        assert_eq!(rules[5..8], [at(48), at(16), called()]);
        assert_eq!(rules[8..], [Rule::default(), called(), Rule::at(Cfa::Sp, 16).with_link()]);
    }

    #[test]
    fn what_nobody_calls() {
        let words: [u32; 12] =
            [0xaa0603e4, 0xd2801b88, 0xd4000001, 0xb4000040, 0xd65f03c0, 0xd63f0020, 0, 0, 0, 0, 0, 0];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let found = uncalled(&bytes, START, 0);
        assert_eq!(found[1..], [(START + 20, Rule::of(Cfa::End))]);
        let found = uncalled(&[&bytes[..12], &bytes[20..], &[0; 8]].concat(), START, 0);
        assert_eq!(found[1..], [(START + 12, Rule::of(Cfa::End)), (START + 44, Rule::default())]);
        assert_eq!(uncalled(&bytes, START, START)[1], (START, Rule::of(Cfa::End)));
        let bytes: Vec<u8> =
            [0xd503201f, 0xd2801168, 0xd4000001u32].iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(uncalled(&bytes, START, 0)[1], (START, Rule::of(Cfa::Signal)), "with the nop before");
    }

    #[test]
    fn nothing_panics() {
        let mut state = 1u64;
        for _ in 0..2000 {
            let words: Vec<u32> = (0..100)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 32) as u32
                })
                .collect();
            let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            // As often, with the stack pointer as a base.
            bytes.chunks_exact_mut(8).for_each(|pair| (pair[0], pair[1]) = (pair[0] | 0xe0, pair[1] | 3));
            bytes.pop();
            rules(&bytes, START, &SortedSet::from_iter([START + 40, START + 41, 7]), START + 80);
        }
    }
}
