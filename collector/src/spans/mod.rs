//! Which spans samples belong to: what programs publish as OpenTelemetry's process context (OTEP 4719) and thread context (OTEP 4947).
//!
//! `spans.h` reads the span of a thread at the moment of the sample; which processes publish one, and where, is found here.
//!
//! | file | what it does |
//! |---|---|
//! | `context.rs` | what a process publishes of itself |
//! | `processes.rs` | where the threads of a process have their variable |

mod context;
mod processes;

pub(crate) use context::publishes_spans;
pub(crate) use processes::SpanProcesses;
