//! A walk down a stack in user space, over a copy of it: the same as `unwind.h` makes in the kernel. Pure.

use super::rule::{Cfa, Return, Rule, Saved};

/// Where registers are, in what the kernel stores of what a signal has interrupted, from the stack pointer of its return on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SignalFrame {
    fp: u64,
    sp: u64,
    pc: u64,
    link: Option<u64>,
}

/// Machines whose stacks can be walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// x86-64.
    X86_64,
    /// arm64.
    Arm64,
}

impl Machine {
    /// What this program runs on. `None`: stacks are not walked there by tables.
    pub fn running() -> Option<Self> {
        if cfg!(target_arch = "x86_64") {
            Some(Self::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Self::Arm64)
        } else {
            None
        }
    }

    /// `sigcontext_64` of x86 in `ucontext`; of arm64, `sigcontext` behind `siginfo` and the rest of `ucontext`
    /// (uapi/asm/sigcontext.h of both).
    fn signal_frame(self) -> SignalFrame {
        const X86: u64 = 40;
        const ARM64: u64 = 128 + 176 + 8;
        match self {
            Self::X86_64 => SignalFrame { fp: X86 + 10 * 8, sp: X86 + 15 * 8, pc: X86 + 16 * 8, link: None },
            Self::Arm64 => SignalFrame {
                fp: ARM64 + 29 * 8,
                sp: ARM64 + 31 * 8,
                pc: ARM64 + 32 * 8,
                link: Some(ARM64 + 30 * 8),
            },
        }
    }

    /// Without what pointer authentication puts above the address.
    pub fn stripped(self, address: u64) -> u64 {
        match self {
            Self::X86_64 => address,
            Self::Arm64 => address & ((1 << 48) - 1),
        }
    }
}

/// Why a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// At the first function of the thread.
    Whole,
    /// There is no rule, and what is in the frame pointer is none.
    NoTable,
    /// The rule leads nowhere.
    BadCfa,
    /// There are more frames than are kept.
    Depth,
    /// There is no code at a return address.
    NotMapped,
    /// The copy of the stack ends before the stack does.
    Slice,
}

/// A copy of a piece of a stack.
#[derive(Debug, Clone, Copy)]
pub struct Slice<'a> {
    /// Where it begins.
    pub start: u64,
    /// Its bytes.
    pub bytes: &'a [u8],
}

impl Slice<'_> {
    /// A word of it.
    ///
    /// # Errors
    ///
    /// [`End::BadCfa`] below it, [`End::Slice`] above.
    pub fn word(&self, address: u64) -> Result<u64, End> {
        let at = address.checked_sub(self.start).ok_or(End::BadCfa)?;
        let bytes = usize::try_from(at).ok().and_then(|at| self.bytes.get(at..)?.first_chunk());
        bytes.map(|bytes| u64::from_ne_bytes(*bytes)).ok_or(End::Slice)
    }
}

/// Reads a word of a stack, by its address.
pub type Stack<'a> = dyn FnMut(u64) -> Result<u64, End> + 'a;

/// What is known of the code at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// How to get to the caller.
    Rule(Rule),
    /// It may have frame pointers.
    FramePointers,
    /// There is none.
    NotMapped,
}

/// Where a walk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walk {
    /// Where execution goes on.
    pub pc: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer.
    pub fp: u64,
    /// The link register, while it holds the return address.
    pub link: Option<u64>,
    /// Whether `pc` is where execution goes on by itself, not behind a call.
    pub exact: bool,
}

impl Walk {
    /// Walks on, by words of the stack. Addresses are added to `frames`, one added to those that no call is before, but for the first: readers take
    /// one off all but the first. `code` looks up an address.
    pub fn run(
        &mut self,
        machine: Machine,
        stack: &mut Stack<'_>,
        frames: &mut Vec<u64>,
        most: usize,
        mut code: impl FnMut(u64) -> Code,
    ) -> End {
        loop {
            let at = self.pc.wrapping_sub(u64::from(!self.exact));
            let code = code(at);
            if code == Code::NotMapped {
                // Where it is executed, at least.
                if frames.is_empty() {
                    frames.push(self.pc);
                }
                return End::NotMapped;
            }
            if frames.len() >= most {
                return End::Depth;
            }
            frames.push(self.pc.wrapping_add(u64::from(self.exact && !frames.is_empty())));
            let stepped = match code {
                Code::Rule(rule) => self.step(machine, rule, stack),
                _ => self.by_frame_pointer(machine, stack, true),
            };
            if let Err(end) = stepped {
                return end;
            }
        }
    }

    /// Goes to the caller.
    fn step(&mut self, machine: Machine, rule: Rule, stack: &mut Stack<'_>) -> Result<(), End> {
        let offset = |words: i16| i64::from(words) * 8;
        let cfa_offset = rule.cfa_offset() * 8;
        let cfa = match rule.cfa {
            Cfa::End => return Err(End::Whole),
            Cfa::Signal => return self.over_signal(machine.signal_frame(), stack),
            Cfa::Unknown => return self.by_frame_pointer(machine, stack, false),
            Cfa::Unsupported => {
                return self.by_frame_pointer(machine, stack, false).map_err(|end| match end {
                    End::NoTable => End::BadCfa,
                    other => other,
                });
            }
            Cfa::Sp => self.sp.wrapping_add_signed(cfa_offset),
            Cfa::Fp => self.fp.wrapping_add_signed(cfa_offset),
            Cfa::AtFp => stack(self.fp.wrapping_add_signed(cfa_offset))?,
            Cfa::Plt => {
                let is_second = (self.pc & 15) as i64 >= rule.cfa_offset();
                self.sp.wrapping_add(if is_second { 16 } else { 8 })
            }
        };
        let in_link = rule.ra() == Return::InLink;
        if cfa < self.sp || (cfa == self.sp && !in_link) || cfa % 8 != 0 {
            return Err(End::BadCfa);
        }
        let pc = if in_link {
            // Who calls has saved it, unless nobody has called them.
            self.link.ok_or(End::Whole)?
        } else {
            stack(cfa.wrapping_add_signed(offset(rule.ra_offset)))?
        };
        self.fp = match rule.fp() {
            Saved::InRegister => self.fp,
            Saved::OnStack => stack(cfa.wrapping_add_signed(offset(rule.fp_offset)))?,
            Saved::AtFp => stack(self.fp)?,
        };
        self.sp = cfa;
        self.behind_call(machine.stripped(pc))
    }

    fn behind_call(&mut self, pc: u64) -> Result<(), End> {
        (self.pc, self.link, self.exact) = (pc, None, false);
        if pc == 0 { Err(End::Whole) } else { Ok(()) }
    }

    /// The chain of frame pointers may end here if `may_end`.
    fn by_frame_pointer(
        &mut self,
        machine: Machine,
        stack: &mut Stack<'_>,
        may_end: bool,
    ) -> Result<(), End> {
        let fp = self.fp;
        if fp == 0 {
            return Err(if may_end { End::Whole } else { End::NoTable });
        }
        if fp < self.sp || fp % 8 != 0 {
            return Err(End::NoTable);
        }
        // What is in the register may be anything, but for code that has frame pointers: that it is not in the copy says nothing then.
        let mut word = |address| stack(address).map_err(|end| if may_end { end } else { End::NoTable });
        let (next, pc) = (word(fp)?, word(fp.wrapping_add(8))?);
        (self.fp, self.sp) = (next, fp.wrapping_add(16));
        self.behind_call(machine.stripped(pc))
    }

    fn over_signal(&mut self, frame: SignalFrame, stack: &mut Stack<'_>) -> Result<(), End> {
        let mut at = |offset| stack(self.sp.wrapping_add(offset));
        let link = frame.link.map(&mut at).transpose()?;
        *self = Self { pc: at(frame.pc)?, fp: at(frame.fp)?, sp: at(frame.sp)?, link, exact: true };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOP: u64 = 0x7000;

    fn walk(pc: u64, fp: u64) -> Walk {
        Walk { pc, sp: TOP, fp, link: None, exact: true }
    }

    fn run(
        mut walk: Walk,
        machine: Machine,
        words: &[u64],
        code: impl FnMut(u64) -> Code,
    ) -> (Vec<u64>, End) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut frames = Vec::new();
        let stack = Slice { start: TOP, bytes: &bytes };
        let end = walk.run(machine, &mut |address| stack.word(address), &mut frames, 10, code);
        (frames, end)
    }

    fn sp_rule(bytes: i64) -> Code {
        Code::Rule(Rule::at(Cfa::Sp, bytes).with_return(-8))
    }

    #[test]
    fn through_rules_frame_pointers_and_the_end() {
        let code = |at| match at {
            0x1000 => sp_rule(16),
            // Behind a call.
            0x1fff => Code::Rule(Rule::at(Cfa::Sp, 24).with_return(-8).with_fp(-24)),
            0x2fff => Code::FramePointers,
            0x3fff => Code::Rule(Rule::of(Cfa::End)),
            _ => Code::NotMapped,
        };
        let stack = [0, 0x2000, TOP + 48, 0, 0x3000, 9, 0, 0x4000];
        assert_eq!(
            run(walk(0x1000, 1), Machine::X86_64, &stack, code),
            (vec![0x1000, 0x2000, 0x3000, 0x4000], End::Whole)
        );
        let stack = [0, 0x2000, TOP + 48, 0, 0x5000];
        assert_eq!(
            run(walk(0x1000, 1), Machine::X86_64, &stack, code),
            (vec![0x1000, 0x2000], End::NotMapped)
        );
        let stack = [0, 0x2000, 4];
        assert_eq!(run(walk(0x1000, 1), Machine::X86_64, &stack, code), (vec![0x1000, 0x2000], End::Slice));
    }

    #[test]
    fn what_a_signal_interrupts_is_where_it_is() {
        let mut stack = vec![0; 60];
        (stack[1 + 15], stack[1 + 20], stack[1 + 21]) = (77, TOP + 256, 0x2000);
        (stack[32], stack[33]) = (0x3000, 0);
        let code = |at| match at {
            0x1000 => sp_rule(8),
            0x1fff => Code::Rule(Rule::of(Cfa::Signal)),
            0x2000 => sp_rule(8),
            0x2fff => Code::Rule(Rule::of(Cfa::End)),
            _ => Code::NotMapped,
        };
        stack[0] = 0x2000;
        let (frames, end) = run(walk(0x1000, 1), Machine::X86_64, &stack, code);
        // Once the signal's return, once what it interrupted.
        assert_eq!((frames, end), (vec![0x1000, 0x2000, 0x2001, 0x3000], End::Whole));
    }

    #[test]
    fn a_leaf_of_arm64_returns_by_its_link() {
        let code = |at| match at {
            0x1000 => Code::Rule(Rule::at(Cfa::Sp, 0).with_link()),
            0x1fff => Code::Rule(Rule::at(Cfa::Fp, 32).with_fp(-32).with_return(-24)),
            0x2fff => Code::Rule(Rule::at(Cfa::Sp, 0).with_link()),
            _ => Code::NotMapped,
        };
        let start = Walk { link: Some(0x2000), ..walk(0x1000, TOP + 8) };
        let stack = [0, TOP + 64, 0x00ab_0000_0000_3000, 0];
        assert_eq!(
            run(start, Machine::Arm64, &stack, code),
            (vec![0x1000, 0x2000, 0x3000], End::Whole),
            "the link is used up, and the last function has not saved it"
        );
    }

    #[test]
    fn stacks_only_grow_down() {
        assert_eq!(run(walk(1, 0), Machine::X86_64, &[0; 4], |_| sp_rule(0)).1, End::BadCfa);
        assert_eq!(run(walk(1, 8), Machine::X86_64, &[0; 4], |_| Code::FramePointers).1, End::NoTable);
        assert_eq!(run(walk(1, TOP + 4), Machine::X86_64, &[0; 4], |_| Code::FramePointers).1, End::NoTable);
        assert_eq!(run(walk(1, 0), Machine::X86_64, &[0; 4], |_| Code::FramePointers).1, End::Whole);
        let unknown = Code::Rule(Rule::default());
        assert_eq!(run(walk(1, 0), Machine::X86_64, &[0; 4], |_| unknown).1, End::NoTable);
        let unsupported = Code::Rule(Rule::of(Cfa::Unsupported));
        assert_eq!(run(walk(1, 0), Machine::X86_64, &[0; 4], |_| unsupported).1, End::BadCfa);
        assert_eq!(run(walk(1, 0), Machine::X86_64, &[0; 4], |_| Code::NotMapped), (vec![1], End::NotMapped));
        let endless = [5; 100];
        assert_eq!(run(walk(5, 0), Machine::X86_64, &endless, |_| sp_rule(8)), (vec![5; 10], End::Depth));
    }
}
