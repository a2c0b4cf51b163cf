//! What `profile.bpf.c` writes.

use super::record;

record! {
    /// What samples are counted under.
    pub struct CountKey = "count_key", 16 {
        /// Process.
        tgid: u32 = 0,
        /// Thread.
        tid: u32 = 4,
        /// Place of the kernel stack; 0 where there is none.
        kernel_stack: u32 = 8,
        /// Place of the user stack; 0 where there is none.
        user_stack: u32 = 12,
    }
}

record! {
    /// How often, and the thread's name when first seen.
    pub struct Count = "count", 24 {
        /// Samples.
        samples: u64 = 0,
        /// `comm`, zero-terminated.
        comm: [u8; 16] = 8,
    }
}

record! {
    /// Head of a CPU's stack region.
    pub struct Region = "region", 24 {
        /// Bytes in use, this head included; reset to [`Region::SIZE`] by the reader.
        used: u64 = 0,
        /// Set once the fill record of the window was sent; reset by the reader.
        announced: u64 = 16,
    }
}

impl Region {
    /// The head of a region without stacks, as the reader leaves it for the next window.
    pub const EMPTY: [u8; Self::SIZE] = {
        let mut head = [0; Self::SIZE];
        let used = (Self::SIZE as u64).to_ne_bytes();
        let mut i = 0;
        while i < used.len() {
            head[i] = used[i];
            i += 1;
        }
        head
    };
}

record! {
    /// What became of the program's runs on one CPU, since it was loaded.
    pub struct CpuStats = "cpu_stats", 64 {
        /// Times that the program ran.
        runs: u64 = 0,
        /// Runs that found the CPU idle.
        idle: u64 = 8,
        /// Runs whose task the filter kept out.
        filtered: u64 = 16,
        /// Samples, those that found no room included.
        samples: u64 = 24,
        /// Samples that could not be counted: their table was full.
        table_full: u64 = 32,
        /// Samples that were counted without a stack, for want of room.
        no_stack: u64 = 40,
        /// Samples that were left out, because they stand for less than is asked for.
        too_short: u64 = 48,
    }
}

record! {
    /// A window is filling up.
    pub struct Fill = "fill_record", 8 {
        /// Where.
        cpu: u32 = 0,
        /// Which window.
        window: u32 = 4,
    }
}

/// Most frames of one stack.
pub const MAX_FRAMES: usize = 127;
/// Most words of one: its frames, and what stands behind them ([`Span`](super::spans::Span)).
pub const MAX_WORDS: usize = MAX_FRAMES + super::spans::Span::WORDS;

/// The stack at a place, leaf first, within the regions of all CPUs laid end to end: a header word with the number of
/// words, then the words: the frames, and what stands behind them. `None` if the place lies outside, or its header makes no sense.
///
/// `words` reads the word of that number; places count words.
pub fn stack_at(
    place: u32,
    mut words: impl FnMut(usize) -> Option<u64>,
    frames: &mut Vec<u64>,
) -> Option<()> {
    frames.clear();
    let place = place as usize;
    let count = usize::try_from(words(place)?).ok().filter(|n| (1..=MAX_WORDS).contains(n))?;
    for i in 1..=count {
        frames.push(words(place.checked_add(i)?)?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_decode_and_short_ones_do_not() {
        let mut bytes = Vec::new();
        for n in [7u32, 8, 3, 0] {
            bytes.extend(n.to_ne_bytes());
        }
        let key = CountKey { tgid: 7, tid: 8, kernel_stack: 3, user_stack: 0 };
        assert_eq!(CountKey::decode(&bytes), Some(key));
        assert_eq!(CountKey::decode(&bytes[..15]), None);
    }

    #[test]
    fn stacks_are_found_by_place() {
        let region = [0, 0, 0, 2, 0x10, 0x20, 200, 0x30];
        let words = |i: usize| region.get(i).copied();
        let mut frames = vec![9];
        assert_eq!(stack_at(3, words, &mut frames), Some(()));
        assert_eq!(frames, [0x10, 0x20]);
        assert_eq!(stack_at(6, words, &mut frames), None, "more frames than fit a stack");
        assert_eq!(stack_at(0, words, &mut frames), None, "no frames");
        assert_eq!(stack_at(8, words, &mut frames), None, "outside");
        assert_eq!(stack_at(u32::MAX, words, &mut frames), None);
    }
}
