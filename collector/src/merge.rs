//! Records of several CPUs into one order, by time.
//!
//! Each CPU's records are in order; those of different CPUs are read one buffer after the other. What was written
//! while they were being read may have an earlier record still unread on another CPU, so it waits for the next round.

use bpf_loader::stable_sort::sort_by_number;

/// Holds back what is too young to be in order yet.
#[derive(Debug)]
pub struct Merge<T> {
    waiting: Vec<(u64, T)>,
}

impl<T> Default for Merge<T> {
    fn default() -> Self {
        Self { waiting: Vec::new() }
    }
}

impl<T> Merge<T> {
    /// Adds a record of a time in nanoseconds.
    pub fn push(&mut self, time: u64, record: T) {
        self.waiting.push((time, record));
    }

    /// Records that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Hands over, in order, all records from before `until`: the time at which the reading of the buffers began.
    pub fn drain(&mut self, until: u64) -> impl Iterator<Item = (u64, T)> + '_ {
        // Stable: records of one CPU with the same time keep their order.
        sort_by_number(&mut self.waiting, |(time, _)| *time);
        let ready = self.waiting.partition_point(|(time, _)| *time < until);
        self.waiting.drain(..ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_two_cpus_come_in_order_and_young_ones_wait() {
        let mut merge = Merge::default();
        for (time, name) in [(10, "a1"), (30, "a2"), (50, "a3"), (20, "b1"), (30, "b2")] {
            merge.push(time, name);
        }
        let names = |m: &mut Merge<&'static str>, until| m.drain(until).map(|(_, n)| n).collect::<Vec<_>>();
        assert_eq!(names(&mut merge, 40), ["a1", "b1", "a2", "b2"]);
        merge.push(45, "b3");
        assert_eq!(merge.waiting.len(), 2);
        assert_eq!(names(&mut merge, u64::MAX), ["b3", "a3"]);
        assert!(merge.waiting.is_empty());
    }
}
