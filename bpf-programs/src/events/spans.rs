//! What `spans.h` reads, and the words that it writes for the span that a thread works for.

use super::record;

record! {
    /// Where the threads of a process have their variable `otel_thread_ctx_v1`.
    #[derive(Default, PartialOrd, Ord)]
    pub struct SpanPlace = "span_place", 24 {
        /// From the thread pointer on, or in its module's data.
        offset: u64 = 0,
        /// 0: it is at the thread pointer. Else the module's number in the thread's table of modules.
        module: u32 = 8,
        /// Bytes of an entry of that table.
        entry: u32 = 12,
        /// From the thread pointer to where the table's address is: an `i32`.
        table: u32 = 16,
        /// From the table to where its number of entries is: an `i32`.
        entries: u32 = 20,
    }
}

impl SpanPlace {
    /// As the program reads it.
    pub fn encode(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let numbers = [self.module, self.entry, self.table, self.entries];
        let words =
            self.offset.to_ne_bytes().into_iter().chain(numbers.into_iter().flat_map(u32::to_ne_bytes));
        bytes.iter_mut().zip(words).for_each(|(byte, value)| *byte = value);
        bytes
    }
}

/// What marks that the words before it are a span: no address, and no frame of CPython.
const MARK: u64 = 1 << 62;

/// The span that a thread has worked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The trace's id.
    pub trace_id: [u8; 16],
    /// The span's id.
    pub span_id: [u8; 8],
}

impl Span {
    /// Words that stand for it behind a stack.
    pub const WORDS: usize = 4;

    /// The words of a stack without those of a span, and the span if there is one.
    pub fn split(words: &[u64]) -> (&[u64], Option<Self>) {
        let Some((frames, &[first, second, span, MARK])) = words.split_last_chunk() else {
            return (words, None);
        };
        let mut trace_id = [0; 16];
        let bytes = [first, second].into_iter().flat_map(u64::to_ne_bytes);
        trace_id.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
        (frames, Some(Self { trace_id, span_id: span.to_ne_bytes() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let place =
            SpanPlace { offset: u64::MAX - 7, module: 1, entry: 16, table: 8, entries: -16i32 as u32 };
        assert_eq!(SpanPlace::decode(&place.encode()), Some(place));
    }

    #[test]
    fn spans_stand_behind_frames() {
        let id = |bytes: [u8; 8]| u64::from_ne_bytes(bytes);
        let words = [7, 1 << 63 | 5, id([1; 8]), id([2; 8]), id([3, 0, 0, 0, 0, 0, 0, 4]), MARK];
        let (frames, span) = Span::split(&words);
        assert_eq!(frames, [7, 1 << 63 | 5]);
        let span = span.unwrap();
        assert_eq!((&span.trace_id[..8], &span.trace_id[8..]), (&[1; 8][..], &[2; 8][..]));
        assert_eq!(span.span_id, [3, 0, 0, 0, 0, 0, 0, 4]);
        assert_eq!(Span::split(&words[..5]), (&words[..5], None));
        assert_eq!(Span::split(&[2, 3, MARK]), (&[2, 3, MARK][..], None));
        assert_eq!(Span::split(&[]), (&[][..], None));
        assert_eq!(Span::split(&words[2..]).0, []);
    }
}
