//! Rules of x86-64 code without descriptions, from what its instructions do to the stack: musl's C library has none, nor has much that is
//! written by hand. Pure.
//!
//! Instructions are followed from the beginnings of functions on, along jumps. What is not reached so is taken for a function that nobody
//! names, unless it is where a call or a jump may have led.

use super::rule::{Cfa, Rule};
use crate::sorted::{SortedMap, SortedSet};
use crate::x86;

/// `rt_sigreturn` as C libraries call it: `mov rax, 15; syscall`.
const SIGNAL_RETURN: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];
/// Bytes between functions: more is none of a compiler's.
const MAX_PADDING: usize = 256;
/// A return address, and what comes before a call.
const WORD: i32 = 8;

/// What is known of the frame before an instruction: how far the frame address is from registers, and the frame pointer of the caller from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame {
    sp: Option<i32>,
    fp: Option<i32>,
    saved_fp: Option<i32>,
}

/// How it goes on behind an instruction.
enum Flow {
    On(Frame),
    Ends,
}

impl Frame {
    /// Of a function that was just called.
    const CALLED: Self = Self { sp: Some(WORD), fp: None, saved_fp: None };

    fn rule(self) -> Rule {
        let base = match (self.fp, self.sp) {
            (Some(offset), _) => Rule::at(Cfa::Fp, offset.into()),
            // What has taken its own return address from the stack returns to nobody: the first function of a thread.
            (None, Some(0)) => return Rule::of(Cfa::End),
            (None, Some(offset)) if offset < WORD => return Rule::default(),
            (None, Some(offset)) => Rule::at(Cfa::Sp, offset.into()),
            (None, None) => return Rule::default(),
        };
        if base.cfa == Cfa::Unsupported {
            return base;
        }
        let base = base.with_return((-WORD).into());
        self.saved_fp.map_or(base, |offset| base.with_fp(offset.into()))
    }

    /// The stack has grown by that much.
    fn grown(self, bytes: i32) -> Self {
        Self { sp: self.sp.map(|sp| sp.wrapping_add(bytes)), ..self }
    }

    fn pushed(self, is_fp: bool) -> Self {
        let after = self.grown(WORD);
        let saved_fp =
            if is_fp && self.saved_fp.is_none() { after.sp.map(i32::wrapping_neg) } else { self.saved_fp };
        Self { saved_fp, ..after }
    }

    fn popped(self, register: u8) -> Self {
        const SP: u8 = 4;
        const FP: u8 = 5;
        let after = self.grown(-WORD);
        match register {
            SP => Self { sp: None, ..after },
            FP => Self { fp: None, saved_fp: None, ..after },
            _ => after,
        }
    }

    fn after(self, instruction: &[u8]) -> Flow {
        let (rex, rest) = match instruction {
            [rex @ 0x40..=0x4f, rest @ ..] => (*rex, rest),
            rest => (0, rest),
        };
        let (wide, extended) = (rex & 8 != 0, rex & 1 != 0);
        let constant = |bytes: &[u8]| match bytes {
            [byte] => i32::from(*byte as i8),
            bytes => bytes.first_chunk().map_or(0, |bytes| i32::from_le_bytes(*bytes)),
        };
        Flow::On(match rest {
            [push @ 0x50..=0x57] => self.pushed(!extended && push & 7 == 5),
            [pop @ 0x58..=0x5f] => self.popped(if extended { 8 } else { pop & 7 }),
            [0x68 | 0x6a, ..] | [0x9c] => self.grown(WORD),
            [0x9d] => self.grown(-WORD),
            // push and pop with memory
            [0xff, modrm, ..] if modrm >> 3 & 7 == 6 => self.grown(WORD),
            [0x8f, ..] => self.grown(-WORD),
            [0xc9] => Self { sp: self.fp.map(|fp| fp.wrapping_sub(WORD)), fp: None, saved_fp: None },
            // sub and add rsp, constant; lea rsp, [rsp + constant]
            [0x81 | 0x83, 0xec, bytes @ ..] if wide && !extended => self.grown(constant(bytes)),
            [0x81 | 0x83, 0xc4, bytes @ ..] if wide && !extended => {
                self.grown(constant(bytes).wrapping_neg())
            }
            [0x8d, 0x64 | 0xa4, 0x24, bytes @ ..] if rex == 0x48 => {
                self.grown(constant(bytes).wrapping_neg())
            }
            // mov rbp, rsp; mov rsp, rbp; lea rsp, [rbp + constant]
            [0x89, 0xe5] | [0x8b, 0xec] if rex == 0x48 => Self { fp: self.sp, ..self },
            [0x89, 0xec] | [0x8b, 0xe5] if rex == 0x48 => Self { sp: self.fp, ..self },
            [0x8d, 0x65 | 0xa5, bytes @ ..] if rex == 0x48 => {
                Self { sp: self.fp.map(|fp| fp.wrapping_sub(constant(bytes))), ..self }
            }
            // Anything else that writes the stack pointer: and with a constant; add, sub, mov, lea.
            [0x81 | 0x83, 0xe4, ..] if wide && !extended => Self { sp: None, ..self },
            [0x01 | 0x29 | 0x89, modrm, ..] if wide && !extended && modrm & 0xc7 == 0xc4 => {
                Self { sp: None, ..self }
            }
            [0x03 | 0x2b | 0x8b | 0x8d, modrm, ..] if wide && rex & 4 == 0 && modrm & 0x38 == 0x20 => {
                Self { sp: None, ..self }
            }
            // ret, jmp, hlt, ud2
            [0xc2 | 0xc3 | 0xe9 | 0xeb | 0xf4, ..] | [0x0f, 0x0b] => return Flow::Ends,
            [0xff, modrm, ..] if matches!(modrm >> 3 & 7, 4 | 5) => return Flow::Ends,
            _ => self,
        })
    }
}

/// What is known of code, by its bytes: the frame before each instruction that was reached.
struct Code<'c> {
    bytes: &'c [u8],
    frames: Vec<Option<Frame>>,
    /// Where to go on, and with which frame.
    reached: Vec<(usize, Frame)>,
    /// Where it may go on: behind a call from which perhaps nothing returns, and behind a jump to one of many places.
    perhaps: SortedMap<usize, Frame>,
}

impl<'c> Code<'c> {
    fn at(&self, at: usize) -> Option<(&'c [u8], x86::Instruction)> {
        let code = self.bytes.get(at..)?;
        let instruction = x86::decode(code)?;
        Some((code.get(..instruction.length)?, instruction))
    }

    /// Follows the flow from what was reached, as far as it goes.
    fn follow(&mut self) {
        while let Some((mut at, mut frame)) = self.reached.pop() {
            while self.frames.get(at).is_some_and(Option::is_none) {
                let Some((bytes, instruction)) = self.at(at) else { break };
                if let Some(known) = self.frames.get_mut(at) {
                    *known = Some(frame);
                }
                let next = at + bytes.len();
                let is_call = bytes.first() == Some(&0xe8);
                if let Some(distance) = instruction.jump.filter(|_| !is_call) {
                    if let Ok(target) = usize::try_from(next as i64 + i64::from(distance)) {
                        self.reached.push((target, frame));
                    }
                }
                let is_padded = || self.at(next).is_some_and(|(bytes, _)| is_padding(bytes));
                match frame.after(bytes) {
                    Flow::On(after) if is_call && is_padded() => {
                        self.perhaps.insert(self.behind_padding(next), after);
                        break;
                    }
                    Flow::On(after) => (at, frame) = (next, after),
                    Flow::Ends => {
                        if bytes.first() != Some(&0xc3) && instruction.jump.is_none() {
                            self.perhaps.insert(self.behind_padding(next), frame);
                        }
                        break;
                    }
                }
            }
        }
    }

    /// The first instruction from there on that is no padding.
    fn behind_padding(&self, mut at: usize) -> usize {
        let most = at.saturating_add(MAX_PADDING);
        while let Some((bytes, _)) = self.at(at).filter(|(bytes, _)| at < most && is_padding(bytes)) {
            at += bytes.len();
        }
        at
    }
}

/// Rules of code that begins at an address, each from an address on, in order. `starts` are functions; of the one at `entry`, the program's
/// first, nobody is the caller.
pub(super) fn rules(bytes: &[u8], address: u64, starts: &SortedSet<u64>, entry: u64) -> Vec<(u64, Rule)> {
    let offset = |start: &u64| usize::try_from(start.checked_sub(address)?).ok();
    let offsets = starts.iter().filter_map(offset).filter(|start| *start < bytes.len());
    let reached = offsets.map(|start| (start, Frame::CALLED)).collect();
    let mut code = Code { bytes, frames: vec![None; bytes.len()], reached, perhaps: SortedMap::new() };
    code.follow();
    let mut found = Vec::new();
    let (mut at, mut in_entry) = (0, false);
    while at < bytes.len() {
        let here = address + at as u64;
        let Some((instruction, _)) = code.at(at) else {
            // Data, or what is not known: until something tells where code begins again.
            found.push((here, Rule::default()));
            at += 1;
            continue;
        };
        if bytes.get(at..).is_some_and(|code| code.starts_with(&SIGNAL_RETURN)) {
            // A handler returns here: it is looked up one byte before.
            found.push((here.saturating_sub(1), Rule::of(Cfa::Signal)));
            at += SIGNAL_RETURN.len();
            continue;
        }
        let mut frame = code.frames.get(at).copied().flatten();
        if starts.contains(&here) {
            in_entry = here == entry;
        }
        // What nothing has reached is another function, unless something may lead here.
        if frame.is_none() && at > 0 && !is_padding(instruction) {
            let begins = here % 16 == 0 && is_prologue(instruction);
            frame = code.perhaps.get(&at).copied().filter(|_| !begins);
            in_entry &= frame.is_some();
            code.reached.push((at, frame.unwrap_or(Frame::CALLED)));
            code.follow();
            frame = code.frames.get(at).copied().flatten();
        }
        found.push((
            here,
            match frame {
                Some(_) if in_entry => Rule::of(Cfa::End),
                Some(frame) => frame.rule(),
                None => Rule::default(),
            },
        ));
        at += instruction.len();
    }
    found.dedup_by(|next, kept| next.1 == kept.1);
    found
}

/// What lies between functions: nops of one byte or more, and breakpoints.
fn is_padding(instruction: &[u8]) -> bool {
    let code = instruction.iter().position(|byte| !matches!(byte, 0x66 | 0x2e));
    let code = code.and_then(|at| instruction.get(at..));
    matches!(code, Some([0x90 | 0xcc] | [0x0f, 0x1f, ..]))
}

/// How most functions begin: with a push, room on the stack, or `endbr64`.
fn is_prologue(instruction: &[u8]) -> bool {
    matches!(
        instruction,
        [0x50..=0x57] | [0x41, 0x50..=0x57] | [0x48, 0x81 | 0x83, 0xec, ..] | [0xf3, 0x0f, 0x1e, 0xfa]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 0x1000;

    fn sp(bytes: i64) -> Rule {
        Rule::at(Cfa::Sp, bytes).with_return(-8)
    }

    fn analyzed(code: &[&[u8]]) -> Vec<Rule> {
        let mut addresses = Vec::new();
        let mut bytes = Vec::new();
        for instruction in code {
            addresses.push(START + bytes.len() as u64);
            bytes.extend_from_slice(instruction);
        }
        let starts = SortedSet::from_iter([START]);
        let rules = rules(&bytes, START, &starts, 0);
        let at = |address: &u64| rules.iter().rev().find(|(from, _)| from <= address).unwrap().1;
        addresses.iter().map(at).collect()
    }

    #[test]
    fn pushes_and_pops() {
        let rules = analyzed(&[
            &[0x41, 0x54],             // push r12
            &[0x55],                   // push rbp
            &[0x48, 0x83, 0xec, 0x18], // sub rsp, 24
            &[0xe8, 0, 0, 0, 0],       // call
            &[0x48, 0x83, 0xc4, 0x18], // add rsp, 24
            &[0x5d],                   // pop rbp
            &[0x41, 0x5c],             // pop r12
            &[0xc3],                   // ret
            &[0x90],                   // nop
            &[0x50],                   // push rax, of another function
            &[0xc3],
        ]);
        let saved = |bytes| sp(bytes).with_fp(-24);
        let unknown = Rule::default();
        assert_eq!(
            rules,
            [
                sp(8),
                sp(16),
                saved(24),
                saved(48),
                saved(48),
                saved(24),
                sp(16),
                sp(8),
                unknown,
                sp(8),
                sp(16)
            ]
        );
    }

    #[test]
    fn memory_and_what_nobody_knows() {
        let rules = analyzed(&[
            &[0xff, 0x34, 0x24], // push [rsp]
            &[0x8f, 0x00],       // pop [rax]
            &[0x48, 0x29, 0xc4], // sub rsp, rax
            &[0xf8],             // clc
        ]);
        assert_eq!(rules, [sp(8), sp(16), sp(8), Rule::default()]);
    }

    #[test]
    fn frame_pointers_and_aligned_stacks() {
        let rules = analyzed(&[
            &[0x55],                   // push rbp
            &[0x48, 0x89, 0xe5],       // mov rbp, rsp
            &[0x48, 0x83, 0xe4, 0xc0], // and rsp, -64
            &[0x90],
            &[0xc9], // leave
            &[0xc3], // ret
        ]);
        let framed = Rule::at(Cfa::Fp, 16).with_return(-8).with_fp(-16);
        assert_eq!(rules, [sp(8), sp(16).with_fp(-16), framed, framed, framed, sp(8)]);
    }

    #[test]
    fn jumps_bring_their_frame() {
        let rules = analyzed(&[
            &[0x53],       // push rbx
            &[0x74, 0x02], // je to the pop
            &[0xeb, 0x03], // jmp to the clc
            &[0x5b],       // pop rbx
            &[0xc3],       // ret
            &[0xcc],
            &[0xf8],       // clc
            &[0xeb, 0xfa], // jmp back to the pop
        ]);
        assert_eq!(rules, [sp(8), sp(16), sp(16), sp(16), sp(8), Rule::default(), sp(16), sp(16)]);
    }

    #[test]
    fn what_does_not_return_ends_a_function() {
        let rules = analyzed(&[
            &[0x50],                   // push rax
            &[0x74, 0x03],             // je to the call
            &[0x90],                   // nop
            &[0x58],                   // pop rax
            &[0xc3],                   // ret
            &[0xe8, 0, 0, 0, 0],       // call
            &[0x0f, 0x1f, 0x44, 0, 0], // nop
            &[0x53],                   // push rbx, of another function
            &[0xe8, 0, 0, 0, 0],       // call
            &[0x66, 0x90],             // nop, which aligns a loop
            &[0xf8],                   // clc
            &[0x75, 0xfd],             // jne back to it
            &[0x5b],                   // pop rbx
            &[0xc3],
        ]);
        let after = &rules[7..];
        assert_eq!(after[..2], [sp(8), sp(16)]);
        assert_eq!(after[3..], [sp(16), sp(16), sp(16), sp(8)]);
    }

    #[test]
    fn what_returns_to_nobody() {
        // A new thread: takes its argument from the stack and calls.
        let rules = analyzed(&[&[0x31, 0xed], &[0x5f], &[0x41, 0xff, 0xd1], &[0xf4]]);
        assert_eq!(rules[..3], [sp(8), sp(8), Rule::of(Cfa::End)]);
        let starts = SortedSet::from_iter([START]);
        assert_eq!(super::rules(&[0x31, 0xed, 0xf4], START, &starts, START), [(START, Rule::of(Cfa::End))]);
        let code = [&[0xc3][..], &SIGNAL_RETURN, &[0xf4]].concat();
        let signal = super::rules(&code, START, &starts, 0);
        assert_eq!(
            (signal[1].0, signal[1].1.cfa),
            (START, Cfa::Signal),
            "where the return of the handler is looked up"
        );
    }

    #[test]
    fn nothing_panics() {
        let mut state = 1u64;
        for _ in 0..500 {
            let bytes: Vec<u8> = (0..300)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 56) as u8
                })
                .collect();
            rules(&bytes, START, &SortedSet::from_iter([START + 40]), 0);
        }
    }
}
