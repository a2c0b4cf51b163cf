//! The kernel's random numbers.

use rustix::rand::{GetRandomFlags, getrandom};

use crate::clock::Clock;

/// A number that nobody can guess.
///
/// Early in the boot it may be guessed, rather than waited for; where a filter of system calls forbids it, it is the time.
///
/// [`getrandom(2)`](https://man7.org/linux/man-pages/man2/getrandom.2.html).
pub fn number() -> u64 {
    let mut bytes = [0; 8];
    match getrandom(&mut bytes[..], GetRandomFlags::INSECURE) {
        Ok(8) => u64::from_ne_bytes(bytes),
        _ => Clock::Real.nanos(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_differ_in_all_their_bits() {
        let first = super::number();
        let differing = (0..64).fold(0, |differing, _| differing | first ^ super::number());
        assert_eq!(differing, u64::MAX);
    }
}
