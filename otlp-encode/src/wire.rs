//! The protobuf wire format, written backwards.
//!
//! A length-delimited field is header, length, content. Written from the end of a buffer towards its start, the
//! content is there before its length is needed: no size pass, no reserved gap, no moving of bytes. The price is
//! the order of calls: fields in descending number, and repeated fields last element first. The methods that
//! take several elements iterate backwards themselves; the order of fields is asserted in debug builds. (In a
//! release build a wrong order still gives a message that every decoder reads, only not the canonical one.)

use alloc::vec::Vec;

/// The smallest buffer that is allocated.
const MIN_CAPACITY: usize = 1024;

/// How a field's content is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WireType {
    Varint = 0,
    Fixed64 = 1,
    Delimited = 2,
    Fixed32 = 5,
}

/// A buffer that is filled from its end, and reused.
#[derive(Debug, Clone, Default)]
pub struct Writer {
    buf: Vec<u8>,
    /// Where the written bytes start; they reach to the end of `buf`.
    start: usize,
    /// For whoever needs a list of positions for a moment.
    pub(crate) scratch: Vec<usize>,
}

impl Writer {
    /// An empty buffer; allocates on first use.
    pub const fn new() -> Self {
        Self { buf: Vec::new(), start: 0, scratch: Vec::new() }
    }

    /// Forgets what was written and keeps the memory.
    pub fn clear(&mut self) {
        self.start = self.buf.len();
    }

    /// What was written so far.
    pub fn as_bytes(&self) -> &[u8] {
        self.buf.get(self.start..).unwrap_or_default()
    }

    /// How many bytes were written so far.
    pub fn len(&self) -> usize {
        self.buf.len() - self.start
    }

    /// Whether nothing was written since [`clear`](Self::clear).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets what was written, and gives back more memory than `usual` bytes.
    pub(crate) fn trim(&mut self, usual: usize) {
        self.clear();
        if self.capacity() > usual {
            *self = Self::new();
        }
    }

    /// How many bytes of memory it has.
    pub(crate) fn capacity(&self) -> usize {
        self.buf.capacity() + self.scratch.capacity() * size_of::<usize>()
    }

    /// The fields of the outermost message, in front of what was written already.
    pub fn fields(&mut self) -> Fields<'_> {
        Fields::new(self)
    }

    /// Puts bytes in front of what was written already.
    pub fn prepend(&mut self, bytes: &[u8]) {
        self.claim(bytes.len()).copy_from_slice(bytes);
    }

    /// Takes back what was written since [`len`](Self::len) was `len`.
    pub(crate) fn rewind(&mut self, len: usize) {
        self.start = self.start.max(self.buf.len().saturating_sub(len));
    }

    /// `n` bytes to fill, in front of what was written already.
    #[inline]
    pub(crate) fn claim(&mut self, n: usize) -> &mut [u8] {
        if n > self.start {
            self.grow(n);
        }
        let end = self.start;
        self.start = end - n;
        &mut self.buf[self.start..end]
    }

    /// `N` bytes, in front of what was written already.
    #[inline]
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        if let Some(slot) = self.claim(N).first_chunk_mut() {
            *slot = bytes;
        }
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, n: usize) {
        let (len, old) = (self.len(), self.buf.len());
        let new = (len + n).max(old * 2).max(MIN_CAPACITY);
        self.buf.resize(new, 0);
        self.buf.copy_within(self.start..old, new - len);
        self.start = new - len;
    }

    // What follows without `#[inline]` is compiled with this crate and its optimization, and is fast whatever its callers
    // are compiled for; measured, it is not slower where they are compiled for speed.

    pub(crate) fn varint(&mut self, value: u64) {
        if value < 0x80 {
            self.put([value as u8]);
        } else if value < 0x4000 {
            self.put([value as u8 | 0x80, (value >> 7) as u8]);
        } else {
            self.long_varint(value);
        }
    }

    #[inline(never)]
    fn long_varint(&mut self, value: u64) {
        let n = varint_len(value);
        let slot = self.claim(n);
        let mut rest = value;
        for byte in &mut *slot {
            *byte = rest as u8 | 0x80;
            rest >>= 7;
        }
        if let Some(last) = slot.last_mut() {
            *last &= 0x7f;
        }
    }

    /// Varints, last to first, most of which take one or two bytes.
    #[inline]
    fn varints(&mut self, values: impl Iterator<Item = u64>) {
        let mut start = self.start;
        for value in values {
            if value >= 0x4000 || start < 2 {
                self.start = start;
                self.long_varint(value);
                start = self.start;
                continue;
            }
            // Without a branch: the first of two bytes is written over where there is but one.
            let is_long = value >= 0x80;
            let one = (value as u16) << 8;
            let two = (value as u16 & 0x7f | 0x80) | (value as u16 >> 7) << 8;
            if let Some(slot) = self.buf.get_mut(..start).and_then(|rest| rest.last_chunk_mut()) {
                *slot = if is_long { two } else { one }.to_le_bytes();
            }
            start -= 1 + usize::from(is_long);
        }
        self.start = start;
    }

    #[inline]
    fn tag(&mut self, field: u32, wire_type: WireType) {
        self.varint(u64::from(field) << 3 | wire_type as u64);
    }

    /// Header and length of a delimited field.
    fn header(&mut self, field: u32, len: usize) {
        let tag = field << 3 | WireType::Delimited as u32;
        if tag < 0x80 && len < 0x80 {
            self.put([tag as u8, len as u8]);
        } else if tag < 0x80 && len < 0x4000 {
            self.put([tag as u8, len as u8 | 0x80, (len >> 7) as u8]);
        } else {
            self.varint(len as u64);
            self.tag(field, WireType::Delimited);
        }
    }

    /// A delimited field with its header; a short one is claimed at once.
    fn bytes(&mut self, field: u32, value: &[u8]) {
        let tag = field << 3 | WireType::Delimited as u32;
        if tag < 0x80 && value.len() < 0x80 {
            if let [to_tag, to_len, content @ ..] = self.claim(value.len() + 2) {
                *to_tag = tag as u8;
                *to_len = value.len() as u8;
                copy(content, value);
            }
        } else {
            self.prepend(value);
            self.header(field, value.len());
        }
    }

    /// A field of eight bytes with its header.
    fn fixed64(&mut self, field: u32, value: [u8; 8]) {
        let tag = field << 3 | WireType::Fixed64 as u32;
        if tag < 0x80 {
            let [a, b, c, d, e, f, g, h] = value;
            self.put([tag as u8, a, b, c, d, e, f, g, h]);
        } else {
            self.put(value);
            self.tag(field, WireType::Fixed64);
        }
    }
}

/// Copies between slices of the same length. Few bytes are two words that overlap, which is faster than a call.
#[inline(always)]
pub(crate) fn copy(to: &mut [u8], from: &[u8]) {
    match from.len() {
        16..=32 => ends::<16>(to, from),
        8..=15 => ends::<8>(to, from),
        4..=7 => ends::<4>(to, from),
        _ => to.copy_from_slice(from),
    }
}

/// Copies the first and the last `N` bytes.
#[inline(always)]
fn ends<const N: usize>(to: &mut [u8], from: &[u8]) {
    if let (Some(first), Some(last)) = (from.first_chunk::<N>(), from.last_chunk::<N>()) {
        if let Some(to) = to.first_chunk_mut() {
            *to = *first;
        }
        if let Some(to) = to.last_chunk_mut() {
            *to = *last;
        }
    }
}

/// How many bytes a varint takes: one for every 7 bits begun.
#[inline]
pub(crate) fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// The fields of one message, to be written in descending order of their numbers.
///
/// Every method writes its field whatever the value is; leaving defaults out is the caller's decision (the
/// types that [`message!`](crate::message!) makes do so where proto3 does).
#[derive(Debug)]
pub struct Fields<'w> {
    writer: &'w mut Writer,
    #[cfg(debug_assertions)]
    last: u32,
}

impl<'w> Fields<'w> {
    pub(crate) fn new(writer: &'w mut Writer) -> Self {
        Self {
            writer,
            #[cfg(debug_assertions)]
            last: u32::MAX,
        }
    }

    #[inline]
    fn in_order(&mut self, field: u32) {
        #[cfg(debug_assertions)]
        {
            assert!(
                field <= self.last,
                "field {field} written after field {}: fields go last to first",
                self.last
            );
            self.last = field;
        }
        let _ = field;
    }

    #[inline]
    fn varint(&mut self, field: u32, value: u64) {
        self.in_order(field);
        self.writer.varint(value);
        self.writer.tag(field, WireType::Varint);
    }

    /// A `uint32` field.
    #[inline]
    pub fn uint32(&mut self, field: u32, value: u32) {
        self.varint(field, value.into());
    }

    /// A `uint64` field.
    #[inline]
    pub fn uint64(&mut self, field: u32, value: u64) {
        self.varint(field, value);
    }

    /// An `int32` field; a negative number takes ten bytes, as the format wants.
    #[inline]
    pub fn int32(&mut self, field: u32, value: i32) {
        self.varint(field, i64::from(value) as u64);
    }

    /// An `int64` field; a negative number takes ten bytes.
    #[inline]
    pub fn int64(&mut self, field: u32, value: i64) {
        self.varint(field, value as u64);
    }

    /// A `bool` field.
    #[inline]
    pub fn bool(&mut self, field: u32, value: bool) {
        self.varint(field, value.into());
    }

    /// A `sint32` field: small numbers are short, negative ones too.
    #[inline]
    pub fn sint32(&mut self, field: u32, value: i32) {
        self.varint(field, (value << 1 ^ value >> 31) as u32 as u64);
    }

    /// A `fixed32` field.
    #[inline]
    pub fn fixed32(&mut self, field: u32, value: u32) {
        self.in_order(field);
        self.writer.put(value.to_le_bytes());
        self.writer.tag(field, WireType::Fixed32);
    }

    /// A `sfixed64` field that stands where field `position` would: the members of a `oneof` stand together, where
    /// the first of them has its place.
    #[inline]
    pub fn sfixed64_at(&mut self, position: u32, field: u32, value: i64) {
        self.in_order(position);
        self.writer.fixed64(field, value.to_le_bytes());
    }

    /// A `fixed64` field.
    #[inline]
    pub fn fixed64(&mut self, field: u32, value: u64) {
        self.in_order(field);
        self.writer.fixed64(field, value.to_le_bytes());
    }

    /// A `double` field.
    #[inline]
    pub fn double(&mut self, field: u32, value: f64) {
        self.fixed64(field, value.to_bits());
    }

    /// A `bytes` field.
    #[inline]
    pub fn bytes(&mut self, field: u32, value: &[u8]) {
        self.in_order(field);
        self.writer.bytes(field, value);
    }

    /// A `string` field.
    #[inline]
    pub fn string(&mut self, field: u32, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    /// A nested message, whose fields `fill` writes.
    #[inline]
    pub fn message(&mut self, field: u32, fill: impl FnOnce(Fields<'_>)) {
        self.in_order(field);
        let end = self.writer.len();
        fill(Fields::new(self.writer));
        let len = self.writer.len() - end;
        self.writer.header(field, len);
    }

    /// A packed field of varints (`int32`, `int64` and `uint64` alike, sign-extended to 64 bits). Nothing is
    /// written for no elements.
    #[inline]
    pub fn packed_varint(&mut self, field: u32, values: impl DoubleEndedIterator<Item = u64>) {
        self.in_order(field);
        let end = self.writer.len();
        self.writer.varints(values.rev());
        let len = self.writer.len() - end;
        if len > 0 {
            self.writer.header(field, len);
        }
    }

    /// A packed field of `fixed64` numbers, written as one slice. Nothing is written for no elements.
    #[inline]
    pub fn packed_fixed64(&mut self, field: u32, values: &[u64]) {
        self.in_order(field);
        if values.is_empty() {
            return;
        }
        let len = values.len() * 8;
        for (slot, value) in self.writer.claim(len).chunks_exact_mut(8).zip(values) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
        self.writer.header(field, len);
    }

    /// A packed field of `double` numbers, written as one slice. Nothing is written for no elements.
    #[inline]
    pub fn packed_double(&mut self, field: u32, values: &[f64]) {
        // Not shared with `packed_fixed64`: an iterator of arrays instead of the slice costs a histogram point 4 ns.
        self.in_order(field);
        if values.is_empty() {
            return;
        }
        let len = values.len() * 8;
        for (slot, value) in self.writer.claim(len).chunks_exact_mut(8).zip(values) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
        self.writer.header(field, len);
    }

    /// All elements of a repeated field, encoded already with their headers.
    pub(crate) fn encoded(&mut self, field: u32, elements: &[u8]) {
        self.in_order(field);
        self.writer.prepend(elements);
    }

    /// Where to write `field` by other means, elements last to first.
    #[inline]
    pub(crate) fn writer(&mut self, field: u32) -> &mut Writer {
        self.in_order(field);
        self.writer
    }

    /// How many bytes were written so far, of the outermost message.
    pub fn written(&self) -> usize {
        self.writer.len()
    }
}

#[cfg(test)]
mod tests;
