//! Lines of addresses that were asked for, and the texts in them, in bounded memory.

use std::sync::Arc;

use crate::model::Line;
use crate::sorted::{SortedMap, SortedSet};

/// Memory of one file's: some thousand addresses.
const BUDGET: usize = 3 << 20;
/// What an entry takes beside its content.
const OVERHEAD: usize = 64;

/// Lines of addresses that were asked for.
#[derive(Debug, Default)]
pub(super) struct Answers {
    lines: SortedMap<u64, Arc<[Line]>>,
    /// Paths and names that many of them have in common.
    texts: SortedSet<Arc<str>>,
    memory: usize,
}

impl Answers {
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
        let is_full = self.memory > BUDGET;
        if is_full {
            *self = Self::default();
        }
        is_full
    }

    /// Heap memory, in bytes.
    pub fn memory(&self) -> usize {
        self.memory
    }
}
