//! What `offcpu.bpf.c` writes beside what it counts as profilers do.

use super::profile::CountKey;
use super::record;

record! {
    /// What waits are counted under, behind a [`CountKey`].
    pub struct WaitKey = "wait_key", 32 {
        /// The name of the thread that has ended it, zero-terminated; [`WaitKey::INTERRUPT`]; zeros: nobody knows.
        waker: [u8; 16] = 16,
    }
}

impl WaitKey {
    /// The waker where it was an interrupt, as of a timer or a device.
    pub const INTERRUPT: [u8; 16] = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
}

record! {
    /// The last wait of a thread.
    pub struct Wait = "wait", 72 {
        /// Since when it waits, in nanoseconds of `CLOCK_MONOTONIC`; 0 if it does not, or that is not to be counted.
        since: u64 = 0,
        /// What it is to be counted under, a [`CountKey`].
        key: [u8; 16] = 32,
        /// The window that its stacks are in.
        epoch: u32 = 48,
        /// Whether its user stack is finished in user space: not 0.
        missed: u32 = 52,
    }
}

impl Wait {
    /// What it is to be counted under.
    pub fn key(&self) -> Option<CountKey> {
        CountKey::decode(&self.key)
    }
}

record! {
    /// A wait that has ended, and is to be counted in user space.
    pub struct Waited = "waited", 80 {
        /// What it is to be counted under, a [`CountKey`].
        key: [u8; 16] = 0,
        /// The thread's name, zero-terminated.
        comm: [u8; 16] = 16,
        /// When it began, in nanoseconds of `CLOCK_MONOTONIC`.
        since: u64 = 32,
        /// How long it was, times the waits that it stands for.
        nanos: u64 = 40,
        /// The window that its stacks are in.
        epoch: u32 = 48,
        /// Whether its user stack is finished in user space: not 0.
        missed: u32 = 52,
        /// The thread's number in the initial pid namespace, which `waits` has it under.
        thread: u32 = 56,
        /// Who has woken it, as of [`WaitKey`].
        waker: [u8; 16] = 64,
    }
}

impl Waited {
    /// What it is to be counted under.
    pub fn key(&self) -> Option<CountKey> {
        CountKey::decode(&self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_decode_and_short_ones_do_not() {
        let mut bytes = [0; Waited::SIZE];
        (bytes[0], bytes[32], bytes[41], bytes[48], bytes[52], bytes[56]) = (7, 1, 2, 3, 4, 5);
        let waited = Waited::decode(&bytes).unwrap();
        assert_eq!((waited.since, waited.nanos, waited.epoch, waited.missed), (1, 512, 3, 4));
        assert_eq!((waited.thread, waited.key().unwrap().tgid), (5, 7));
        assert_eq!(Waited::decode(&bytes[1..]), None);
        let mut bytes = [0; Wait::SIZE];
        (bytes[0], bytes[36], bytes[48], bytes[52]) = (1, 2, 3, 4);
        let wait = Wait::decode(&bytes).unwrap();
        assert_eq!((wait.since, wait.key().unwrap().tid, wait.epoch, wait.missed), (1, 2, 3, 4));
        assert_eq!(Wait::decode(&bytes[1..]), None);
    }
}
