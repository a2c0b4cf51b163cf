//! What ran when: the call tree of a run with how much of it there was in each second. Pure.

use super::names::Names;
use super::tree::{Builder, Side, Tree};
use crate::model::Profile;

/// Slots of time; where a run is longer, they are made longer.
const MAX_SLOTS: u64 = 240;
/// Numbers of all slots of all calls, of 8 bytes each; where there are more, slots are made longer.
const MAX_ENTRIES: usize = 8 << 20;
/// Different calls; those beyond count where they come from.
const MAX_CALLS: usize = 1 << 20;
const SECOND: u64 = 1_000_000_000;

/// Windows, one after the other.
#[derive(Debug)]
pub struct Timeline {
    builder: Builder,
    start_unix_nanos: u64,
    slot_nanos: u64,
    /// The last one that counts.
    slot: u64,
}

impl Default for Timeline {
    fn default() -> Self {
        let mut builder = Builder::default();
        builder.most_nodes = MAX_CALLS;
        Self { builder, start_unix_nanos: 0, slot_nanos: SECOND, slot: 0 }
    }
}

impl Timeline {
    /// Adds a later window, of a second or less.
    pub fn add(&mut self, window: &Profile) {
        if self.start_unix_nanos == 0 {
            self.start_unix_nanos = window.start_unix_nanos;
        }
        let middle = window.start_unix_nanos.saturating_add(window.duration_nanos / 2);
        let since = middle.saturating_sub(self.start_unix_nanos);
        while since / self.slot_nanos >= MAX_SLOTS {
            self.halve();
        }
        // A clock that was set back does not take time back.
        self.slot = self.slot.max(since / self.slot_nanos);
        self.builder.add(window, &Names::new(window), Side::Slot(self.slot as u32));
        if self.builder.entries() > MAX_ENTRIES {
            self.halve();
        }
    }

    fn halve(&mut self) {
        self.builder.halve_slots();
        self.slot_nanos = self.slot_nanos.saturating_mul(2);
        self.slot /= 2;
    }

    /// Seconds of a slot.
    pub(super) fn slot_seconds(&self) -> u64 {
        self.slot_nanos / SECOND
    }

    /// Slots up to the last one.
    pub(super) fn slots(&self) -> u64 {
        self.slot + 1
    }

    /// The tree as it is now.
    pub(super) fn tree(&self) -> Tree {
        self.builder.clone().finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::fixture::Fixture;

    const START: u64 = 1_700_000_000 * SECOND;

    fn window(second: u64, stacks: &[(&str, u64)]) -> Profile {
        let mut fixture = Fixture::default();
        let process = fixture.process(1, "app", "/bin/app");
        stacks.iter().for_each(|(stack, count)| fixture.sample(process, stack, *count));
        Profile { start_unix_nanos: START + second * SECOND, duration_nanos: SECOND, ..fixture.finish() }
    }

    /// A node's slots, by the names from the process on.
    fn times(tree: &Tree, path: &[&str]) -> Vec<(u32, u32)> {
        let mut at = 0;
        for name in path {
            at = *tree.nodes[at].children.iter().find(|child| &*tree.nodes[**child].name == *name).unwrap();
        }
        tree.times[at].clone()
    }

    #[test]
    fn every_call_knows_when_it_ran() {
        let mut timeline = Timeline::default();
        timeline.add(&window(0, &[("main;a", 7), ("main;b", 1)]));
        timeline.add(&window(1, &[]));
        timeline.add(&window(2, &[("main;a", 2), ("main;c", 3)]));
        assert_eq!((timeline.slots(), timeline.slot_seconds()), (3, 1));
        let tree = timeline.tree();
        assert_eq!(times(&tree, &[]), [(0, 8), (2, 5)]);
        assert_eq!(times(&tree, &["app", "main", "a"]), [(0, 7), (2, 2)]);
        assert_eq!(times(&tree, &["app", "main", "c"]), [(2, 3)]);
        assert_eq!((tree.total(), tree.nodes.iter().map(|node| node.own).sum::<u64>()), (13, 13));
    }

    #[test]
    fn long_runs_have_longer_slots() {
        let mut timeline = Timeline::default();
        for second in 0..1000 {
            timeline.add(&window(second, &[("main", 1)]));
            assert!(timeline.slots() <= MAX_SLOTS);
        }
        assert_eq!((timeline.slots(), timeline.slot_seconds()), (125, 8));
        let tree = timeline.tree();
        let times = times(&tree, &["app", "main"]);
        assert!(times.iter().all(|(_, count)| *count == 8), "{times:?}");
        assert_eq!(times.len(), 125);
    }

    #[test]
    fn clocks_that_are_set_do_no_harm() {
        let mut timeline = Timeline::default();
        timeline.add(&window(10, &[("main", 1)]));
        timeline.add(&window(0, &[("main", 1)]));
        timeline.add(&window(100_000_000, &[("main", 1)]));
        timeline.add(&Profile { start_unix_nanos: u64::MAX, ..window(0, &[("main", 1)]) });
        assert!(timeline.slots() <= MAX_SLOTS);
        assert_eq!(timeline.tree().total(), 4);
    }
}
