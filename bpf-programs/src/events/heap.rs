//! What `heap.bpf.c` writes.

use super::record;

record! {
    /// What was allocated from one place.
    pub struct Stack = "stack", 552 {
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
        /// The allocator's function, then its caller and so on.
        frames: [u8; 512] = 40,
    }
}

impl Stack {
    /// The frames as addresses.
    pub fn addresses(&self) -> impl Iterator<Item = u64> + '_ {
        let words =
            self.frames.chunks_exact(8).filter_map(|word| Some(u64::from_ne_bytes(word.try_into().ok()?)));
        words.take(usize::try_from(self.frame_count).unwrap_or(usize::MAX))
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

record! {
    /// A thread and the call in which it is.
    pub struct Thread = "thread", 640 {
        /// Stack pointer of the call; 0 if there is none.
        sp: u64 = 0,
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
        let mut bytes = vec![0; Stack::SIZE];
        bytes[32..40].copy_from_slice(&2u64.to_ne_bytes());
        for (i, address) in [0x10u64, 0x20, 0x30].iter().enumerate() {
            bytes[40 + i * 8..48 + i * 8].copy_from_slice(&address.to_ne_bytes());
        }
        assert_eq!(Stack::decode(&bytes).unwrap().addresses().collect::<Vec<_>>(), [0x10, 0x20]);
        bytes[32..40].copy_from_slice(&u64::MAX.to_ne_bytes());
        assert_eq!(Stack::decode(&bytes).unwrap().addresses().count(), 64, "no more than there is room for");
    }
}
