//! Requests that wait in memory, in order and bounded by bytes.

use std::collections::VecDeque;
use std::time::Duration;

use super::Request;
use crate::sorted::SortedSet;

/// What a request costs beside its message: the entry here, and the allocator's and the body's own bookkeeping.
const OVERHEAD: usize = 128;

/// A request in memory.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Of this entry alone.
    pub id: u64,
    pub request: Request,
    /// When it was handed over.
    pub since: Duration,
    /// Whether a group with it is on its way to the disk.
    pub saving: bool,
}

impl Entry {
    /// Memory that it takes.
    pub fn cost(&self) -> usize {
        cost(&self.request)
    }
}

/// Memory that a request takes.
pub(super) fn cost(request: &Request) -> usize {
    request.body.len().saturating_add(OVERHEAD)
}

/// Oldest first.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: VecDeque<Entry>,
    cost: usize,
}

impl Queue {
    /// Memory that all entries take.
    pub fn cost(&self) -> usize {
        self.cost
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    pub fn push_back(&mut self, entry: Entry) {
        self.cost += entry.cost();
        self.entries.push_back(entry);
    }

    pub fn push_front(&mut self, entry: Entry) {
        self.cost += entry.cost();
        self.entries.push_front(entry);
    }

    pub fn pop_front(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.cost -= entry.cost();
        Some(entry)
    }

    /// Takes out the oldest entry that is not on its way to the disk: a copy of that one stays in memory anyway.
    pub fn pop_oldest_droppable(&mut self) -> Option<Entry> {
        let at = self.entries.iter().position(|entry| !entry.saving)?;
        let entry = self.entries.remove(at)?;
        self.cost -= entry.cost();
        Some(entry)
    }

    /// Marks entries as on their way to the disk, oldest first, as many as fit into `limit` but at least one, and
    /// returns them.
    pub fn start_saving(&mut self, limit: usize) -> Vec<Entry> {
        let mut group: Vec<Entry> = Vec::new();
        let mut cost = 0_usize;
        for entry in &mut self.entries {
            cost = cost.saturating_add(entry.cost());
            if cost > limit && !group.is_empty() {
                break;
            }
            entry.saving = true;
            group.push(entry.clone());
        }
        group
    }

    /// Takes out the entries that are `saved`; the others are not on their way to the disk any more.
    pub fn end_saving(&mut self, saved: &SortedSet<u64>) {
        self.entries.retain_mut(|entry| {
            entry.saving = false;
            !saved.contains(&entry.id)
        });
        self.cost = self.entries.iter().map(Entry::cost).sum();
    }
}
