//! Lists of attributes, each kept and encoded once however many series have it.

use std::sync::Arc;

use otlp_encode::{AttributesBlob, Error, Value};

use super::super::keep::Keys;
use crate::sorted::SortedMap;
use crate::telemetry::Attribute;

/// Number of a list.
pub(super) type SetId = u32;
/// The list of the series that all others are folded into.
pub(super) const OVERFLOW: SetId = 0;
const OVERFLOW_ATTRIBUTES: &[Attribute<'static>] = &[("otel.metric.overflow", Value::Bool(true))];

#[derive(Debug)]
struct Set {
    bytes: Arc<[u8]>,
    encoded: AttributesBlob,
    uses: u32,
}

/// All lists.
#[derive(Debug)]
pub(super) struct Sets {
    keys: Keys,
    by_bytes: SortedMap<Arc<[u8]>, SetId>,
    sets: Vec<Option<Set>>,
    free: Vec<SetId>,
    /// The list at hand, kept for its memory.
    scratch: Vec<u8>,
}

/// Memory of a list beside three times its bytes: entries of both tables, and allocations.
const PER_SET: usize = 200;

impl Sets {
    pub(super) fn new() -> Self {
        let overflow = AttributesBlob::new(&OVERFLOW_ATTRIBUTES).unwrap_or_default();
        let overflow = Set { bytes: Arc::from([].as_slice()), encoded: overflow, uses: 1 };
        Self {
            keys: Keys::default(),
            by_bytes: SortedMap::new(),
            sets: vec![Some(overflow)],
            free: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// The list's number, if it is known.
    pub(super) fn find(&mut self, attributes: &[Attribute<'_>]) -> Option<SetId> {
        self.scratch.clear();
        self.keys.write(attributes, &mut self.scratch);
        self.by_bytes.get(self.scratch.as_slice()).copied()
    }

    /// What the list that was looked for last would take.
    pub(super) fn cost(&self) -> usize {
        PER_SET + 3 * self.scratch.len()
    }

    /// Keeps the list that was looked for last.
    pub(super) fn add(&mut self, attributes: &[Attribute<'_>]) -> Result<SetId, Error> {
        let encoded = AttributesBlob::new(&attributes)?;
        let bytes: Arc<[u8]> = Arc::from(self.scratch.as_slice());
        let set = Some(Set { bytes: Arc::clone(&bytes), encoded, uses: 0 });
        let id = match self.free.pop() {
            Some(id) => {
                if let Some(place) = self.sets.get_mut(id as usize) {
                    *place = set;
                }
                id
            }
            None => {
                self.sets.push(set);
                self.sets.len() as SetId - 1
            }
        };
        self.by_bytes.insert(bytes, id);
        Ok(id)
    }

    /// One more series has it.
    pub(super) fn hold(&mut self, id: SetId) {
        if let Some(Some(set)) = self.sets.get_mut(id as usize) {
            set.uses += 1;
        }
    }

    /// One series fewer has it. What is free again, if it was the last.
    pub(super) fn release(&mut self, id: SetId) -> usize {
        let Some(place) = self.sets.get_mut(id as usize) else { return 0 };
        let Some(set) = place else { return 0 };
        set.uses = set.uses.saturating_sub(1);
        if set.uses > 0 || id == OVERFLOW {
            return 0;
        }
        let freed = PER_SET + 3 * set.bytes.len();
        self.by_bytes.remove(&set.bytes);
        *place = None;
        self.free.push(id);
        freed
    }

    /// The attributes of a list.
    pub(super) fn attributes(&self, id: SetId) -> Vec<Attribute<'_>> {
        if id == OVERFLOW {
            return OVERFLOW_ATTRIBUTES.to_vec();
        }
        let set = self.sets.get(id as usize).and_then(Option::as_ref);
        set.map(|set| self.keys.read(&set.bytes)).unwrap_or_default()
    }

    pub(super) fn encoded(&self, id: SetId) -> Option<&AttributesBlob> {
        Some(&self.sets.get(id as usize)?.as_ref()?.encoded)
    }
}
