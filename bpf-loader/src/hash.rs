//! Hashes of numbers. The standard library's are for all purposes, and slower.

use std::hash::{BuildHasher, Hasher};

use bpf_sys::random;

/// What numbers are hashed with: other in each run, so that nobody can choose numbers that collide. What is made of them does
/// not depend on it.
#[derive(Debug, Clone, Copy)]
pub struct Keys {
    start: u64,
    factor: u64,
}

impl Keys {
    /// Random ones.
    pub fn new() -> Self {
        // Of the factor 0, all products are the same.
        Self { start: random::number(), factor: random::number() | 1 }
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self::new()
    }
}

impl BuildHasher for Keys {
    type Hasher = Mixer;

    fn build_hasher(&self) -> Mixer {
        Mixer { state: self.start, factor: self.factor }
    }
}

/// Hashes numbers with a multiplication each.
#[derive(Debug)]
pub struct Mixer {
    state: u64,
    factor: u64,
}

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.state
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        // Both halves of the product: the low one alone lets high bits be changed so that the next number undoes it.
        let product = u128::from(self.state ^ number) * u128::from(self.factor);
        self.state = (product as u64 ^ (product >> 64) as u64).rotate_left(26).wrapping_add(self.factor);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each bit of one number and each of the next, changed together, give other hashes; and so does another run.
    #[test]
    fn nobody_can_choose_numbers_that_collide() {
        let hash_of = |keys: Keys, numbers: [u64; 2]| {
            let mut hasher = keys.build_hasher();
            numbers.iter().for_each(|number| hasher.write_u64(*number));
            hasher.finish()
        };
        let keys = Keys::new();
        let plain = hash_of(keys, [7, 9]);
        assert_eq!(plain, hash_of(keys, [7, 9]));
        assert_ne!(plain, hash_of(Keys::new(), [7, 9]));
        for (first, next) in (0..64).flat_map(|first| (0..64).map(move |next| (first, next))) {
            assert_ne!(plain, hash_of(keys, [7 ^ 1 << first, 9 ^ 1 << next]), "bits {first} and {next}");
        }
    }
}
