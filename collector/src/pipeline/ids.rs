//! Ids of traces and spans.

use bpf_sys::random;

/// Random numbers that differ between runs and need not be hard to guess: xoshiro256++ (Blackman and Vigna, 2019).
#[derive(Debug)]
pub(super) struct Ids([u64; 4]);

impl Ids {
    /// Seeded by the system.
    pub(super) fn new() -> Self {
        Self([(); 4].map(|()| random::number() | 1))
    }

    fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.0;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// A span's id: not zero.
    pub(super) fn span(&mut self) -> [u8; 8] {
        self.next().max(1).to_be_bytes()
    }

    /// A trace's id: not zero.
    pub(super) fn trace(&mut self) -> [u8; 16] {
        (u128::from(self.next()) << 64 | u128::from(self.next().max(1))).to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_differ() {
        let (mut a, mut b) = (Ids::new(), Ids::new());
        let traces: HashSet<_> = (0..10_000).flat_map(|_| [a.trace(), b.trace()]).collect();
        let spans: HashSet<_> = (0..10_000).flat_map(|_| [a.span(), b.span()]).collect();
        assert_eq!((traces.len(), spans.len()), (20_000, 20_000));
    }

    #[test]
    fn numbers_are_those_of_the_published_algorithm() {
        // State 1, 2, 3, 4: the first results of the reference implementation.
        let mut ids = Ids([1, 2, 3, 4]);
        let numbers: [u64; 4] = std::array::from_fn(|_| ids.next());
        assert_eq!(numbers, [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386]);
    }
}
