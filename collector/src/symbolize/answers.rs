//! Lines of addresses that were asked for, and the texts in them, in bounded memory.

use std::sync::Arc;

use crate::model::Line;
use crate::sorted::{SortedMap, SortedSet};

/// The part of the memory for all files that those of one may take, in sixteenths: some ten thousand addresses.
const PART: usize = 3;
/// What an entry takes beside its content.
const OVERHEAD: usize = 64;

/// Lines of addresses that were asked for.
#[derive(Debug)]
pub(super) struct Answers {
    lines: SortedMap<u64, Arc<[Line]>>,
    /// Paths and names that many of them have in common.
    texts: SortedSet<Arc<str>>,
    memory: usize,
    limit: usize,
}

impl Answers {
    /// None yet; `budget` is the memory that all files may take.
    pub fn new(budget: usize) -> Self {
        let limit = budget / 16 * PART;
        Self { lines: SortedMap::new(), texts: SortedSet::new(), memory: 0, limit }
    }

    /// The lines of an address, if they are known.
    pub fn get(&self, address: u64) -> Option<Arc<[Line]>> {
        self.lines.get(&address).cloned()
    }

    /// Keeps the lines of an address.
    pub fn insert(&mut self, address: u64, lines: Arc<[Line]>) {
        self.memory += size_of_val(&*lines) + OVERHEAD;
        self.lines.insert(address, lines);
    }

    /// A text, once for all that have it.
    pub fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(text) = self.texts.get(text) {
            return Arc::clone(text);
        }
        let text: Arc<str> = text.into();
        self.memory += text.len() + OVERHEAD;
        self.texts.insert(Arc::clone(&text));
        text
    }

    /// Counts memory that is kept beside it, as long as it is not cleared.
    pub fn count(&mut self, bytes: usize) {
        self.memory += bytes + OVERHEAD;
    }

    /// Forgets everything if there is too much of it: what is wanted again is soon read again. Says whether it did.
    pub fn clear_if_full(&mut self) -> bool {
        let is_full = self.memory > self.limit;
        if is_full {
            self.lines.clear();
            self.texts.clear();
            self.memory = 0;
        }
        is_full
    }

    /// Heap memory, in bytes.
    pub fn memory(&self) -> usize {
        self.memory
    }
}
