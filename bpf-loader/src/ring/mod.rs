//! Readers of the buffers that programs and the kernel send events through, and the producer of the one that goes the
//! other way.
//!
//! | reader or producer | buffer |
//! |---|---|
//! | [`RingReader`] | BPF ring buffer, shared by all CPUs (Linux 5.8) |
//! | [`UserRing`] | user ring buffer, for records to programs (Linux 6.1) |
//! | [`PerfReader`] | perf buffer, one for each event: `bpf_perf_event_output`, and the kernel's own records |
//!
//! All are state machines over a view of memory, and neither waits: a reader says that there is nothing more, or that
//! a record is not finished, and the caller decides what to wait for. The pattern for a loop that sleeps:
//!
//! 1. read until [`Next::Empty`] or [`Next::Busy`];
//! 2. if the reader's `prepare_to_sleep` is true, wait until the descriptor is readable, or for a timer;
//! 3. go on with 1.
//!
//! Who waits for the descriptor without asking `prepare_to_sleep` may miss a wake-up. Who only waits for a timer need not
//! ask.

mod bpf;
mod perf;
#[cfg(test)]
mod privileged;
mod user;

pub use bpf::{Drained, Next, Rest, RingReader};
pub use bpf_sys::shared::RingFault;
pub use perf::{PerfFault, PerfReader, PerfRecord, PerfView};
pub use user::{Reserved, UserRing};
