//! What `heap.h` writes, by `heap.bpf.c` and `heap_unwind.bpf.c`.

use super::unwind::{MissedHead, MissedWalk};
use super::{Field, Layout, record};

record! {
    /// What was allocated from one place; its frames are behind it ([`frames`](Self::frames)).
    pub struct Stack = "stack", 40 {
        /// Bytes that are not freed yet.
        bytes: u64 = 0,
        /// Allocations that are not freed yet, in parts of [`COUNT_ONE`].
        count: u64 = 8,
        /// Bytes since the start.
        allocated_bytes: u64 = 16,
        /// Allocations since the start, in parts of [`COUNT_ONE`].
        allocated_count: u64 = 24,
        /// How many frames there are.
        frame_count: u64 = 32,
    }
}

impl Stack {
    /// Bytes with the frames of `heap.bpf.c`, which walks by frame pointers.
    pub const BY_FRAME_POINTERS: usize = Self::SIZE + 64 * 8;
    /// Bytes with those of `heap_unwind.bpf.c`.
    pub const BY_TABLES: usize = Self::SIZE + 128 * 8;

    /// Its frames as addresses, of all its bytes: the allocator's function, then its caller and so on.
    pub fn frames(self, bytes: &[u8]) -> Vec<u64> {
        let words = bytes.get(Self::SIZE..).unwrap_or_default().chunks_exact(8);
        let words = words.filter_map(|word| Some(u64::from_ne_bytes(word.try_into().ok()?)));
        words.take(usize::try_from(self.frame_count).unwrap_or(usize::MAX)).collect()
    }
}

/// One allocation, in the unit of [`Stack::count`].
pub const COUNT_ONE: u64 = 1024;

record! {
    /// What one address stands for.
    pub struct Allocation = "allocation", 24 {
        /// Key of its stack.
        stack: u64 = 0,
        /// Bytes.
        bytes: u64 = 8,
        /// As [`Stack::count`].
        count: u64 = 16,
    }
}

/// Bytes of a thread, and the call in which it is: of `heap.bpf.c`, and of `heap_unwind.bpf.c`, where the state of a walk is with it.
pub mod thread {
    /// Bytes where stacks are walked by frame pointers.
    pub const BY_FRAME_POINTERS: usize = 648;
    /// Bytes where they are walked by tables.
    pub const BY_TABLES: usize = 1208;
}

record! {
    /// Head of an allocation whose walk has missed a page; [`MissedAllocation`] has the rest.
    pub struct MissedStack = "missed_allocation", 18528 {
        /// Key of its stack.
        stack: u64 = 0,
    }
}

const AT: Field = Field { name: "at", offset: 8, size: MissedHead::SIZE };

/// Where the part of [`MissedStack`] lies that is not decoded.
pub const MISSED_AT: Layout =
    Layout { name: MissedStack::LAYOUT.name, size: MissedStack::SIZE, fields: &[AT] };

/// An allocation whose walk has missed a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissedAllocation<'a> {
    /// Key of its stack, which is that of no other; 0: it is counted under another.
    pub stack: u64,
    /// Its walk, from the caller of the allocator's function on.
    pub at: MissedWalk<'a>,
}

impl<'a> MissedAllocation<'a> {
    /// Decodes a record; `None` if it is shorter than it should be, or says so of its parts.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let MissedStack { stack } = MissedStack::decode(bytes)?;
        Some(Self { stack, at: MissedWalk::decode(bytes.get(AT.offset..)?)? })
    }
}

record! {
    /// Counts of one CPU, since the object was loaded.
    pub struct HeapStats = "heap_stats", 72 {
        /// Calls of functions that allocate, sampled or not, but not those that others of them make.
        calls: u64 = 0,
        /// Of these, calls that allocated nothing.
        empty: u64 = 8,
        /// Calls of functions that free.
        frees: u64 = 16,
        /// Calls from within the allocator.
        nested: u64 = 24,
        /// Allocations that found no room in their table.
        table_full: u64 = 32,
        /// Allocations that were counted without a stack, for want of room.
        no_stack: u64 = 40,
        /// Calls whose thread found no room.
        no_thread: u64 = 48,
        /// Addresses that were allocated again though they had not been seen to be freed.
        replaced: u64 = 56,
        /// Addresses in the table; of one CPU, what it put in less what it took out.
        held: u64 = 64,
    }
}

impl Default for HeapStats {
    fn default() -> Self {
        let [calls, empty, frees, nested, table_full, no_stack, no_thread, replaced, held] = [0; 9];
        Self { calls, empty, frees, nested, table_full, no_stack, no_thread, replaced, held }
    }
}

impl std::ops::Add for HeapStats {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            calls: self.calls.wrapping_add(other.calls),
            empty: self.empty.wrapping_add(other.empty),
            frees: self.frees.wrapping_add(other.frees),
            nested: self.nested.wrapping_add(other.nested),
            table_full: self.table_full.wrapping_add(other.table_full),
            no_stack: self.no_stack.wrapping_add(other.no_stack),
            no_thread: self.no_thread.wrapping_add(other.no_thread),
            replaced: self.replaced.wrapping_add(other.replaced),
            held: self.held.wrapping_add(other.held),
        }
    }
}

/// Values of the cookie of the program `session`: how a function takes what it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u64)]
pub enum Sort {
    /// `malloc(size)`
    Malloc = 1,
    /// `valloc(size)`, and whatever else begins with a size.
    Sized = 2,
    /// `calloc(number, size)`
    Array = 3,
    /// `realloc(old, size)`
    Realloc = 4,
    /// `reallocarray(old, number, size)`
    Rearray = 5,
    /// `aligned_alloc(alignment, size)`
    Aligned = 6,
    /// `posix_memalign(&address, alignment, size)`
    Memalign = 7,
    /// `free(address)`
    Free = 8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_end_where_they_end() {
        let mut bytes = vec![0; Stack::BY_FRAME_POINTERS];
        bytes[32..40].copy_from_slice(&2u64.to_ne_bytes());
        for (i, address) in [0x10u64, 0x20, 0x30].iter().enumerate() {
            bytes[40 + i * 8..48 + i * 8].copy_from_slice(&address.to_ne_bytes());
        }
        let frames = |bytes: &[u8]| Stack::decode(bytes).unwrap().frames(bytes);
        assert_eq!(frames(&bytes), [0x10, 0x20]);
        bytes[32..40].copy_from_slice(&u64::MAX.to_ne_bytes());
        assert_eq!(frames(&bytes).len(), 64, "no more than there is room for");
    }

    #[test]
    fn a_missed_allocation_is_as_long_as_it_says() {
        let mut bytes = vec![0; MissedStack::SIZE];
        (bytes[0], bytes[8 + 36], bytes[8 + 64 + 8]) = (5, 2, 7);
        let missed = MissedAllocation::decode(&bytes).unwrap();
        assert_eq!((missed.stack, missed.at.frames.len(), missed.at.frames[8]), (5, 16, 7));
        assert_eq!(MissedAllocation::decode(&bytes[1..]), None);
    }
}
