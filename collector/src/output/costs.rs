//! What functions cost: how many samples ended in each, and how many passed through it.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use super::names::{Call, NO_STACK, Names, samples};
use crate::model::{FrameKind, Profile};

/// Functions of one name in two files, or in the kernel and outside, are two, unless all of a name are to be one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    /// The function's name.
    pub name: Arc<str>,
    place: Option<(FrameKind, Option<Arc<str>>)>,
}

/// A function's samples.
#[derive(Debug, Clone)]
pub(super) struct Cost {
    /// Those that ended in it.
    pub own: u64,
    /// Those with it anywhere on the stack.
    pub total: u64,
    /// What code it is; `None` of samples without a stack.
    pub kind: Option<FrameKind>,
    /// Short name of its file.
    pub module: Arc<str>,
    /// The last sample that counted into the total, so that recursion counts once.
    seen: u64,
}

/// Every function of one profile or of several.
#[derive(Debug, Default)]
pub(super) struct Costs {
    rows: HashMap<Key, Cost>,
    all_of_a_name: bool,
    /// Samples looked at.
    position: u64,
    total: u64,
}

impl Costs {
    /// With functions of one name as one, whatever file they are in.
    #[cfg(feature = "compare")]
    pub fn by_name() -> Self {
        Self { all_of_a_name: true, ..Self::default() }
    }

    /// Of one profile.
    pub fn of(profile: &Profile, names: &Names<'_>) -> Self {
        let mut costs = Self::default();
        costs.add(profile, names);
        costs
    }

    /// Adds another profile's samples.
    pub fn add(&mut self, profile: &Profile, names: &Names<'_>) {
        let modules: Vec<Arc<str>> =
            profile.mappings.iter().map(|mapping| names.module_of(mapping)).collect();
        for sample in samples(profile) {
            self.position += 1;
            self.total = self.total.saturating_add(sample.count);
            let mut own = sample.count;
            for Call { name, frame } in names.leaf_first(sample.stack) {
                let mapping = frame.mapping.map(|index| index.0 as usize);
                let path = mapping.and_then(|index| profile.mappings.get(index)).map(|mapping| &mapping.path);
                let place = (!self.all_of_a_name).then(|| (frame.kind, path.cloned()));
                let module = || mapping.and_then(|index| modules.get(index)).cloned().unwrap_or_default();
                let key = Key { name: name.clone(), place };
                self.count(key, Some(frame.kind), module, std::mem::take(&mut own), sample.count);
            }
            if own > 0 {
                self.count(Key { name: NO_STACK.into(), place: None }, None, Arc::default, own, own);
            }
        }
    }

    fn count(
        &mut self,
        key: Key,
        kind: Option<FrameKind>,
        module: impl FnOnce() -> Arc<str>,
        own: u64,
        total: u64,
    ) {
        let row = self.rows.entry(key).or_insert_with(|| Cost {
            own: 0,
            total: 0,
            seen: 0,
            kind,
            module: module(),
        });
        row.own = row.own.saturating_add(own);
        if row.seen != self.position {
            row.seen = self.position;
            row.total = row.total.saturating_add(total);
        }
    }

    /// Forgets the cheapest functions, so that `most` are left.
    pub fn keep(&mut self, most: usize) {
        if self.rows.len() > most {
            let mut totals: Vec<u64> = self.rows.values().map(|cost| cost.total).collect();
            totals.sort_unstable_by_key(|total| Reverse(*total));
            let least = totals.get(most).copied().unwrap_or_default();
            self.rows.retain(|_, cost| cost.total > least);
        }
    }

    /// How many functions.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// All samples.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Of one function.
    pub fn get(&self, key: &Key) -> Option<&Cost> {
        self.rows.get(key)
    }

    /// All functions, in no order.
    #[cfg(feature = "compare")]
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Cost)> {
        self.rows.iter()
    }

    /// Those that samples ended in, the most expensive first.
    pub fn hottest(&self) -> Vec<(&Key, &Cost)> {
        let mut rows: Vec<_> = self.rows.iter().filter(|(_, cost)| cost.own > 0).collect();
        rows.sort_unstable_by(|(a, x), (b, y)| {
            (Reverse(x.own), Reverse(x.total), a).cmp(&(Reverse(y.own), Reverse(y.total), b))
        });
        rows
    }
}
