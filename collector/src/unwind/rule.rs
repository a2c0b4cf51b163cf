//! How to get from a frame to its caller's, in 8 bytes: what a BPF program and user space both read.

use object::elf;

/// Bytes in which offsets are counted: stacks are made of words.
const WORD: i64 = 8;

/// Where the canonical frame address is: the stack pointer as it was before the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Cfa {
    /// Nothing is known of these addresses.
    #[default]
    Unknown = 0,
    /// No frame called this one: the first function of a thread.
    End = 1,
    /// The stack pointer and an offset.
    Sp = 2,
    /// The frame pointer and an offset.
    Fp = 3,
    /// Stored at the frame pointer and an offset: functions that align their stack.
    AtFp = 4,
    /// Entries of a procedure linkage table, of 16 bytes: the stack pointer and one word, and a second from the offset within
    /// the entry on.
    Plt = 5,
    /// A signal's frame: the registers are where the kernel stored them, counted from the stack pointer.
    Signal = 6,
    /// Found in a way that is not understood here.
    Unsupported = 7,
}

/// Where the caller's frame pointer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Saved {
    /// In the register still.
    #[default]
    InRegister = 0,
    /// On the stack, at an offset from the frame address.
    OnStack = 1,
    /// Where the frame pointer points: in functions that align their stack.
    AtFp = 2,
}

/// Where the return address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Return {
    /// On the stack, at an offset from the frame address; on x86-64 the word below it.
    #[default]
    OnStack = 0,
    /// In the link register: a function of arm64 that calls none, or has not begun to.
    InLink = 1,
}

/// How to get from a frame to its caller's.
///
/// Offsets are in words of 8 bytes: of the frame address from -2 MiB to 2 MiB, the other two from -262,144 to 262,136 bytes. What is
/// further, or no multiple of 8, is [`Cfa::Unsupported`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(C)]
pub struct Rule {
    /// Where the frame address is.
    pub cfa: Cfa,
    /// Four bits: where the frame pointer is; one: where the return address is; three: the high ones of the frame address' offset.
    saved: u8,
    /// Low bits of the frame address' offset from its register; of [`Cfa::Plt`], from which byte of the entry on there is a second word.
    cfa_low: u16,
    /// Of the saved frame pointer from the frame address.
    pub fp_offset: i16,
    /// Of the return address from the frame address.
    pub ra_offset: i16,
}

const _: () = assert!(size_of::<Rule>() == 8);

/// Parts of `saved`.
const FP: u8 = 0x0f;
const LINK: u8 = 0x10;
const CFA_HIGH: u8 = 0xe0;

impl Rule {
    /// A rule without registers.
    pub const fn of(cfa: Cfa) -> Self {
        Self { cfa, saved: 0, cfa_low: 0, fp_offset: 0, ra_offset: 0 }
    }

    /// An entry of a procedure linkage table, whose second word is there from that byte of it on.
    pub const fn plt(from: u16) -> Self {
        Self { cfa_low: from, ..Self::of(Cfa::Plt) }
    }

    /// Where the frame address is, by an offset in bytes.
    pub fn at(cfa: Cfa, offset: i64) -> Self {
        let words = offset / WORD;
        if offset % WORD != 0 || !(-(1 << 18)..1 << 18).contains(&words) {
            return Self::of(Cfa::Unsupported);
        }
        Self { saved: ((words >> 16) as u8) << 5, cfa_low: words as u16, ..Self::of(cfa) }
    }

    /// The frame address from its register, in words; of [`Cfa::Plt`], from which byte of the entry on there is a second word.
    pub fn cfa_offset(&self) -> i64 {
        let high = i64::from((self.saved & CFA_HIGH) as i8 >> 5);
        high << 16 | i64::from(self.cfa_low)
    }

    /// With the frame pointer saved at that many bytes from the frame address.
    #[must_use]
    pub fn with_fp(self, offset: i64) -> Self {
        words(offset).map_or(Self::of(Cfa::Unsupported), |fp_offset| Self {
            saved: self.saved & !FP | Saved::OnStack as u8,
            fp_offset,
            ..self
        })
    }

    /// With the frame pointer saved where it points.
    #[must_use]
    pub fn with_fp_at_fp(self) -> Self {
        Self { saved: self.saved & !FP | Saved::AtFp as u8, fp_offset: 0, ..self }
    }

    /// With the return address at that many bytes from the frame address.
    #[must_use]
    pub fn with_return(self, offset: i64) -> Self {
        words(offset).map_or(Self::of(Cfa::Unsupported), |ra_offset| Self {
            saved: self.saved & !LINK,
            ra_offset,
            ..self
        })
    }

    /// With the return address in the link register.
    #[must_use]
    pub fn with_link(self) -> Self {
        Self { saved: self.saved | LINK, ra_offset: 0, ..self }
    }

    /// As `unwind.h` reads it.
    pub fn encode(self) -> [u8; 8] {
        let [a, b] = self.cfa_low.to_ne_bytes();
        let [c, d] = self.fp_offset.to_ne_bytes();
        let [e, f] = self.ra_offset.to_ne_bytes();
        [self.cfa as u8, self.saved, a, b, c, d, e, f]
    }

    /// Where the caller's frame pointer is.
    pub fn fp(&self) -> Saved {
        match self.saved & FP {
            1 => Saved::OnStack,
            2 => Saved::AtFp,
            _ => Saved::InRegister,
        }
    }

    /// Where the return address is.
    pub fn ra(&self) -> Return {
        if self.saved & LINK != 0 { Return::InLink } else { Return::OnStack }
    }
}

/// Bytes as words.
fn words(bytes: i64) -> Option<i16> {
    (bytes % WORD == 0).then(|| i16::try_from(bytes / WORD).ok())?
}

/// From an address of a page on, to the next row's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Bytes from the beginning of the page.
    pub start: u16,
    /// What holds from there on.
    pub rule: Rule,
}

/// Machines whose programs can be unwound with tables, and how their registers are numbered in DWARF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registers {
    /// The stack pointer.
    pub sp: u16,
    /// The frame pointer.
    pub fp: u16,
    /// What stands for the return address.
    pub ra: u16,
    /// Whether a call leaves the return address in a register.
    pub has_link: bool,
}

impl Registers {
    /// Of a machine, where this is known here.
    pub fn of(machine: elf::Machine) -> Option<Self> {
        match machine {
            // System V ABI, AMD64 supplement, figure 3.36.
            elf::EM_X86_64 => Some(Self { sp: 7, fp: 6, ra: 16, has_link: false }),
            // DWARF for the Arm 64-bit architecture, table 4.1.
            elf::EM_AARCH64 => Some(Self { sp: 31, fp: 29, ra: 30, has_link: true }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_of_frames_have_nineteen_bits() {
        for bytes in [0, 8, -8, 262_136, 262_144, 540_080, (1 << 21) - 8, -(1 << 21)] {
            let rule = Rule::at(Cfa::Sp, bytes).with_fp(-16).with_return(-8);
            assert_eq!((rule.cfa, rule.cfa_offset() * 8), (Cfa::Sp, bytes));
            assert_eq!((rule.fp(), rule.ra()), (Saved::OnStack, Return::OnStack));
            let rule = rule.with_fp_at_fp().with_link();
            assert_eq!((rule.cfa_offset() * 8, rule.fp(), rule.ra()), (bytes, Saved::AtFp, Return::InLink));
        }
        for bytes in [1 << 21, -(1 << 21) - 8, 4] {
            assert_eq!(Rule::at(Cfa::Sp, bytes).cfa, Cfa::Unsupported);
        }
    }
}
