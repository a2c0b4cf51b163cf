//! Programs to hooks. An attachment lasts as long as its [`Link`](crate::link::Link).

mod freplace;
mod perf_event;
mod struct_ops;
mod tracepoint;
