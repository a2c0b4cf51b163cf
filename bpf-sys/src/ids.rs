//! Walks over the ids of all objects of a kind.

use crate::errno::Result;
use crate::raw::{self, IdKind};

/// The ids of all objects of a kind, ascending. Objects that come and go meanwhile may or may not appear.
#[derive(Debug)]
pub struct Ids {
    kind: IdKind,
    after: Option<u32>,
}

impl Ids {
    pub(crate) fn new(kind: IdKind) -> Self {
        Self { kind, after: Some(0) }
    }
}

impl Iterator for Ids {
    type Item = Result<u32>;

    fn next(&mut self) -> Option<Result<u32>> {
        let next = raw::next_id(self.kind, self.after.take()?);
        if let Ok(id) = next {
            self.after = id;
        }
        next.transpose()
    }
}

impl core::iter::FusedIterator for Ids {}
