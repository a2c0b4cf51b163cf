//! The levels around items: opened when there is an item for them, closed when something else is opened, and closed
//! and opened again where a request is split.

use super::SpanLimits;
use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::json;
use crate::wire::{Fields, Writer};
use alloc::string::String;
use alloc::vec::Vec;

/// How large a request may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes, as sent and not compressed; above [`MAX_BYTES`](Self::MAX_BYTES), that. A request with a single item (of
    /// profiles: sample) may be larger.
    pub max_bytes: usize,
    /// Points, spans, log records, or samples of profiles; one at least.
    pub max_items: u64,
}

impl Limits {
    /// The most that OTLP 1.11 allows: 64 MiB before compression. A larger request is never made.
    pub const MAX_BYTES: usize = 64 << 20;
}

impl Default for Limits {
    /// What servers take that were not told otherwise: gRPC's limit of 4 MiB, with some room, and any number of items.
    fn default() -> Self {
        Self { max_bytes: (4 << 20) - (64 << 10), max_items: u64::MAX }
    }
}

/// A finished request.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Batch<'a> {
    /// The encoded message.
    pub bytes: &'a [u8],
    /// How many points, spans, log records or profiles it has: what a receiver counts that rejects some.
    pub items: u64,
    pub(super) descriptor: fn() -> &'static Descriptor,
}

impl Batch<'_> {
    /// Appends the request as one line of OTLP JSON, without its end of line.
    pub fn json_line(&self, out: &mut String) -> Result<(), Error> {
        json::transcode((self.descriptor)(), self.bytes, out)
    }
}

/// A level around items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Resource,
    Scope,
    /// A metric or a profile.
    Group,
    /// The field of a metric that holds its points, by its number.
    Data(u32),
}

const LEVELS: usize = 4;

impl Level {
    fn index(self) -> usize {
        match self {
            Self::Resource => 0,
            Self::Scope => 1,
            Self::Group => 2,
            Self::Data(_) => 3,
        }
    }

    /// The field of the level above.
    fn field(self) -> u32 {
        match self {
            Self::Resource => 1,
            Self::Scope | Self::Group => 2,
            Self::Data(field) => field,
        }
    }
}

#[derive(Debug, Default)]
struct Frame {
    /// The fields before the items.
    head: Vec<u8>,
    /// The fields after the items.
    tail: Vec<u8>,
    tag: u8,
    /// The writer's length where the frame ends, if it is open.
    end: usize,
}

impl Frame {
    /// The most that closing takes: header, and a length below 2^28.
    fn closing(&self) -> usize {
        self.head.len() + 1 + 4
    }
}

/// One request after another.
#[derive(Debug)]
pub(crate) struct Frames {
    pub(super) writer: Writer,
    frames: [Frame; LEVELS],
    /// How many frames the next item is in.
    pub(super) set: usize,
    /// How many of them are open: those that have an item.
    pub(super) open: usize,
    pub(super) items: u64,
    /// What `writer` may hold while all frames that are set are open.
    pub(super) budget: usize,
    pub(super) limits: Limits,
    /// What is kept of a span, or of a log record's attributes.
    pub(super) item_limits: SpanLimits,
    /// The item that opens the next request.
    carry: Vec<u8>,
    descriptor: fn() -> &'static Descriptor,
}

impl Frames {
    pub(super) fn new(limits: Limits, descriptor: fn() -> &'static Descriptor) -> Self {
        Self {
            writer: Writer::new(),
            frames: Default::default(),
            set: 0,
            open: 0,
            items: 0,
            budget: 0,
            limits: Limits { max_bytes: limits.max_bytes.min(Limits::MAX_BYTES), ..limits },
            item_limits: SpanLimits::default(),
            carry: Vec::new(),
            descriptor,
        }
    }

    #[cfg(test)]
    pub(super) fn capacities(&self) -> ([usize; 2], [[usize; 2]; LEVELS]) {
        let frames = self.frames.each_ref().map(|frame| [frame.head.capacity(), frame.tail.capacity()]);
        ([self.writer.capacity(), self.carry.capacity()], frames)
    }

    pub(super) fn clear(&mut self) {
        self.rewind(0, 0);
        self.set = 0;
        self.items = 0;
        self.trim();
        let usual = self.usual_bytes();
        for frame in &mut self.frames {
            if frame.head.capacity().max(frame.tail.capacity()) > usual {
                *frame = Frame::default();
            }
        }
    }

    pub(super) fn rewind(&mut self, len: usize, open: usize) {
        self.writer.rewind(len);
        self.open = open;
    }

    pub(super) fn set(&mut self, level: Level, head: &[u8], tail: &[u8]) {
        let index = level.index();
        self.close(index);
        if let Some(frame) = self.frames.get_mut(index) {
            frame.head.clear();
            frame.head.extend_from_slice(head);
            frame.tail.clear();
            frame.tail.extend_from_slice(tail);
            frame.tag = (level.field() << 3 | 2) as u8;
        }
        self.set = index + 1;
    }

    pub(super) fn open(&mut self) {
        for frame in self.frames.iter_mut().take(self.set).skip(self.open) {
            frame.end = self.writer.len();
            self.writer.prepend(&frame.tail);
        }
        self.open = self.set;
        self.budget = self.limits.max_bytes.saturating_sub(self.closing());
    }

    /// The most that closing what is open takes.
    pub(super) fn closing(&self) -> usize {
        self.frames.iter().take(self.open).map(Frame::closing).sum()
    }

    /// Closes all but the outermost `remaining` frames.
    fn close(&mut self, remaining: usize) {
        for frame in self.frames.iter().take(self.open).skip(remaining).rev() {
            self.writer.prepend(&frame.head);
            let len = self.writer.len() - frame.end;
            self.writer.varint(len as u64);
            self.writer.prepend(&[frame.tag]);
        }
        self.open = self.open.min(remaining);
    }

    /// Closes `level` and what is in it; it has to be set again.
    pub(super) fn truncate(&mut self, level: Level) {
        self.close(level.index());
        self.set = self.set.min(level.index());
    }

    pub(super) fn is_set(&self, level: Level) -> bool {
        self.set > level.index()
    }

    /// Hands out the request, if there is an item. It is gone also where `sink` panics.
    pub(super) fn flush(&mut self, sink: &mut dyn FnMut(Batch<'_>)) {
        let unfinished = Unfinished { frames: self, len: 0, open: 0 };
        if let Some(batch) = unfinished.frames.finish() {
            sink(batch);
        }
    }

    /// Closes everything. The request, if there is an item; the caller clears the writer.
    pub(super) fn finish(&mut self) -> Option<Batch<'_>> {
        self.close(0);
        let items = core::mem::take(&mut self.items);
        (items > 0).then(|| Batch { bytes: self.writer.as_bytes(), items, descriptor: self.descriptor })
    }

    /// Gives memory back that an item beyond the limit took: such items are rare. Nothing must be written.
    fn trim(&mut self) {
        let usual = self.usual_bytes();
        self.writer.trim(usual);
        if self.carry.capacity() > usual {
            self.carry = Vec::new();
        }
    }

    /// The most memory that a buffer takes for requests within the limit.
    pub(super) fn usual_bytes(&self) -> usize {
        self.limits.max_bytes.saturating_mul(4).max(1 << 16)
    }

    /// The item that was just added does not fit, or is the last that does. Without it, `len` bytes were written and
    /// `open` frames were open.
    #[cold]
    fn full(&mut self, len: usize, open: usize, sink: &mut dyn FnMut(Batch<'_>)) -> Result<(), Error> {
        if self.writer.len() > self.budget {
            let opened: usize = self.frames.iter().take(self.open).skip(open).map(|f| f.tail.len()).sum();
            let tails: usize = self.frames.iter().take(self.open).map(|f| f.tail.len()).sum();
            let around = self.closing() + tails;
            let item = self.writer.len() - len - opened;
            if item + around > Limits::MAX_BYTES {
                self.rewind(len, open);
                self.items -= 1;
                return Err(Error::TooLarge { bytes: item + around });
            }
            if self.items > 1 {
                self.carry.clear();
                self.carry.extend_from_slice(self.writer.as_bytes().get(..item).unwrap_or_default());
                self.rewind(len, open);
                self.items -= 1;
                self.flush(sink);
                self.open();
                self.writer.prepend(&self.carry);
                self.items = 1;
            }
        }
        if self.writer.len() > self.budget || self.items >= self.limits.max_items {
            self.flush(sink);
            self.trim();
        }
        Ok(())
    }
}

/// Takes back what was written since `len`, when it is dropped: also where code of the caller panics.
struct Unfinished<'f> {
    frames: &'f mut Frames,
    len: usize,
    open: usize,
}

impl Drop for Unfinished<'_> {
    #[inline]
    fn drop(&mut self) {
        self.frames.rewind(self.len, self.open);
    }
}

/// What a guard writes to.
pub struct Output<'s> {
    pub(super) frames: &'s mut Frames,
    pub(super) sink: &'s mut dyn FnMut(Batch<'_>),
}

impl Output<'_> {
    pub(super) fn reborrow(&mut self) -> Output<'_> {
        Output { frames: self.frames, sink: self.sink }
    }

    /// The next items are in this level; `head` and `tail` are its fields before and after them.
    pub(super) fn set(&mut self, level: Level, head: &[u8], tail: &[u8]) {
        self.frames.set(level, head, tail);
    }

    /// Writes an item as field `field` of the innermost level. If `write` fails or panics, nothing has happened.
    #[inline]
    pub(super) fn item(
        &mut self,
        field: u32,
        write: impl FnOnce(Fields<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let frames = &mut *self.frames;
        let (len, open) = (frames.writer.len(), frames.open);
        if open < frames.set {
            frames.open();
        }
        let item = Unfinished { frames, len, open };
        let mut result = Ok(());
        item.frames.writer.fields().message(field, |fields| result = write(fields));
        result?;
        core::mem::forget(item);
        let frames = &mut *self.frames;
        frames.items += 1;
        if frames.writer.len() > frames.budget || frames.items >= frames.limits.max_items {
            return frames.full(len, open, self.sink);
        }
        Ok(())
    }
}
