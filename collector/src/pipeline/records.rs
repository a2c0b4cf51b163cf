//! Spans and log records that wait for a flush.

use bpf_loader::stable_sort::sort_by_number;
use std::ops::Range;

use super::ids::Ids;
use super::keep::Keys;
use super::resources::ResourceId;
use crate::telemetry::Attribute;

/// A record that waits.
#[derive(Debug)]
pub(super) struct Record<D> {
    pub(super) definition: D,
    pub(super) resource: ResourceId,
    /// Start and end in nanoseconds of `CLOCK_BOOTTIME`.
    pub(super) boot_nanos: (u64, u64),
    pub(super) trace_id: [u8; 16],
    pub(super) span_id: [u8; 8],
    attributes: Range<usize>,
    text: Option<Range<usize>>,
}

/// Records in the order in which they came, in two pieces of memory that are reused.
#[derive(Debug)]
pub(super) struct Records<D> {
    keys: Keys,
    records: Vec<Record<D>>,
    bytes: Vec<u8>,
    max_items: usize,
    max_bytes: usize,
    /// Records that found no room, by what there was none of.
    pub(super) queue_full: u64,
    pub(super) memory_full: u64,
}

impl<D> Records<D> {
    pub(super) fn new(max_items: usize, max_bytes: usize) -> Self {
        Self {
            keys: Keys::default(),
            records: Vec::new(),
            bytes: Vec::new(),
            max_items,
            max_bytes,
            queue_full: 0,
            memory_full: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Adds a record with `attributes` and, where they have none, `pid`; false if it found no room. Without an `Ids`, it
    /// needs none.
    pub(super) fn push(
        &mut self,
        (definition, resource): (D, ResourceId),
        boot_nanos: (u64, u64),
        attributes: &[Attribute<'_>],
        pid: Option<u32>,
        text: Option<&str>,
        ids: Option<&mut Ids>,
    ) -> bool {
        if self.records.len() >= self.max_items {
            self.queue_full += 1;
            return false;
        }
        let start = self.bytes.len();
        self.keys.write(attributes, &mut self.bytes);
        let pid = pid.filter(|_| !attributes.iter().any(|(key, _)| *key == "process.pid"));
        if let Some(pid) = pid {
            self.keys.write(&[("process.pid", pid.into())], &mut self.bytes);
        }
        let end = self.bytes.len();
        self.bytes.extend_from_slice(text.unwrap_or_default().as_bytes());
        let records = (self.records.len() + 1) * size_of::<Record<D>>();
        if self.bytes.len() + records > self.max_bytes {
            self.bytes.truncate(start);
            self.memory_full += 1;
            return false;
        }
        let (trace_id, span_id) = ids.map(|ids| (ids.trace(), ids.span())).unwrap_or_default();
        let text = text.map(|_| end..self.bytes.len());
        self.records.push(Record {
            definition,
            resource,
            boot_nanos,
            trace_id,
            span_id,
            attributes: start..end,
            text,
        });
        true
    }

    /// Puts those of one resource side by side.
    pub(super) fn sort(&mut self) {
        sort_by_number(&mut self.records, |record| record.resource.number());
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Record<D>> {
        self.records.iter()
    }

    pub(super) fn attributes(&self, record: &Record<D>) -> Vec<Attribute<'_>> {
        self.keys.read(self.bytes.get(record.attributes.clone()).unwrap_or_default())
    }

    pub(super) fn text(&self, record: &Record<D>) -> Option<&str> {
        let bytes = self.bytes.get(record.text.clone()?)?;
        std::str::from_utf8(bytes).ok()
    }

    pub(super) fn clear(&mut self) {
        self.records.clear();
        self.bytes.clear();
    }
}
