//! Sets of calls, by name, for the programs. Pure.

use std::borrow::Cow;

use bpf_programs::events::syscalls::{NUMBERS, SET_WORDS, What};

use crate::names::SyscallAbi;

/// A bit for each call: those of 64-bit programs first, then those of 32-bit programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CallSet([u64; SET_WORDS]);

impl CallSet {
    pub(super) const EMPTY: Self = Self([0; SET_WORDS]);

    /// All calls of these names, on a machine whose 64-bit programs use `abi`; the first name that there is no call of.
    pub(super) fn named<'n>(
        abi: SyscallAbi,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Result<Self, &'n str> {
        let mut set = Self::EMPTY;
        for name in names {
            let native = abi.numbers(name);
            let compat = abi.compat().map(|abi| abi.numbers(name)).into_iter().flatten();
            let mut known = false;
            native.chain(compat.map(|number| number | NUMBERS)).for_each(|bit| {
                known = true;
                set.insert(bit);
            });
            if !known {
                return Err(name);
            }
        }
        Ok(set)
    }

    fn insert(&mut self, bit: u16) {
        if let Some(word) = self.0.get_mut(usize::from(bit / 64)) {
            *word |= 1 << (bit % 64);
        }
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }
}

/// The name of a call, or its number where it has none.
pub(super) fn call_name(abi: SyscallAbi, what: What) -> Cow<'static, str> {
    let abi = if what.compat { abi.compat() } else { Some(abi) };
    match abi.and_then(|abi| abi.name(what.number)) {
        Some(name) => name.into(),
        // The programs put everything there that cannot be a call.
        None if what.number == NUMBERS - 1 => "invalid".into(),
        None => what.number.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(set: CallSet) -> Vec<u32> {
        (0..2048u32).filter(|bit| set.0[*bit as usize / 64] >> (bit % 64) & 1 != 0).collect()
    }

    #[test]
    fn sets_hold_the_numbers_of_both_widths() {
        let set = CallSet::named(SyscallAbi::X86_64, ["exit", "rt_sigreturn"]).unwrap();
        assert_eq!(bits(set), [15, 60, 513, 1024 + 1, 1024 + 173]);
        let set = CallSet::named(SyscallAbi::Arm64, ["fork", "clone"]).unwrap();
        assert_eq!(bits(set), [220, 1024 + 2, 1024 + 120], "arm64 itself has no fork");
        assert_eq!(CallSet::named(SyscallAbi::X86_64, ["read", "reed"]), Err("reed"));
        assert_eq!(CallSet::named(SyscallAbi::X86_64, []), Ok(CallSet::EMPTY));
        assert_eq!(set.to_bytes().len(), 256);
    }

    #[test]
    fn calls_without_a_name_have_their_number() {
        let call = |what| call_name(SyscallAbi::X86_64, What::unpack(what)).into_owned();
        assert_eq!(call(1), "write");
        assert_eq!(call(1 | 1 << 10), "exit");
        assert_eq!(call(900), "900");
        assert_eq!(call(1023), "invalid");
    }
}
