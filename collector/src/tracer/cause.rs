//! Causes of losses: what tracers say in [`Stats::dropped`](super::Stats::dropped), each in one way only.

/// Defines each cause and lists them all with what they mean.
macro_rules! causes {
    ($(#[doc = $about:literal] $constant:ident = $name:literal;)*) => {
        $(#[doc = $about] pub const $constant: &str = $name;)*

        /// All causes, and what each means.
        pub static ALL: &[(&str, &str)] = &[$(($constant, $about)),*];
    };
}

causes! {
    /// Events for which the ring had no room.
    RING_FULL = "ring full";
    /// What was to be counted, and found no room in the window's table.
    TABLE_FULL = "table full";
    /// What had begun, and found no room in the table of all that is under way: it is not timed, or not told of at all.
    TOO_MANY_AT_ONCE = "too many at once";
    /// Ends of something that had begun before it was looked at, or whose beginning was missed.
    BEGIN_NOT_SEEN = "begin not seen";
    /// Beginnings whose end did not come, and may have been missed.
    END_NOT_SEEN = "end not seen";
    /// Runs of programs that the kernel left out, since another ran on the CPU already: from Linux 5.12 on, as far as it counts them.
    SKIPPED = "skipped by the kernel";
    /// Processes that a process of the filter started, and for which the filter had no room.
    CHILDREN = "children not followed";
    /// Threads for which there was no room.
    THREADS = "too many threads";
    /// Ended threads for which the table of them had no room.
    ENDED_THREADS = "table of ended threads full";
    /// Sockets for which there was no room.
    SOCKETS = "socket table full";
    /// Peers for which there was no room: they are told together.
    PEERS = "peers full";
    /// Network namespaces for which there was no room.
    NAMESPACES = "namespaces full";
    /// Reasons for which there was no room.
    REASONS = "reasons full";
    /// Samples whose stack could not be read.
    NO_STACK = "no stack";
    /// Samples of stacks that the kernel left out.
    STACKS_SKIPPED = "stacks skipped by the kernel";
    /// Samples of stacks for which the window's table had no room.
    STACKS_FULL = "table of stacks full";
    /// Records of what processes map, for which their ring had no room: names of functions may be missing.
    PROCESS_RECORDS = "process records";
    /// Addresses whose functions were not looked for in their files, since that would have come too late.
    LATE_NAMES = "names too late";
    /// Spans beyond as many as there may be in a second; they are counted in metrics all the same.
    SPAN_RATE = "span rate";
    /// Spans that sampling left out; they are counted in metrics all the same.
    SPAN_SAMPLING = "span sampling";
    /// Times that a file with functions to probe could not be probed, which is tried again.
    FILES_NOT_PROBED = "files not probed";
    /// Processes that were killed, and gone before the filter could be asked.
    VICTIMS_GONE = "victims gone";
    /// Messages that make no sense.
    MALFORMED = "malformed";
    /// What is of a socket of which nobody knows whose it is, as it was there before the tracer or nobody receives from it.
    OWNER_NOT_KNOWN = "owner not known";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn each_has_a_name_of_its_own() {
        let names: BTreeSet<_> = super::ALL.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), super::ALL.len());
        assert!(super::ALL.iter().all(|(name, about)| !name.is_empty() && about.trim().ends_with('.')));
    }
}
