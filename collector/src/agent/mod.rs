//! The agent: every enabled tracer in one process, for as long as it is wanted.
//!
//! | module | what it does |
//! |---|---|
//! | `config` | what it is told: file, environment, flags |
//! | `running.rs` | starts tracers, drains and collects them in one event loop, changes them while they run |
//! | `slot.rs` | one tracer that runs, with what is kept of it |
//! | `budget.rs` | the memory budget and who has what of it |
//! | `governor` | keeps the cost of tracing under its limit |
//! | `meter.rs` | what tracing costs |
//! | `pacing.rs` | how often rings are drained |
//! | `order.rs` | events of all tracers in one order |
//! | `health` | `/healthz`, `/readyz`, `/metrics` |
//! | `notify.rs` | what the service manager is told |
//! | `privileges.rs` | what is given up once everything is attached |
//! | `report.rs`, `self_metrics.rs` | what it knows about itself, and how it tells that |

mod budget;
pub mod config;
pub mod governor;
pub mod health;
mod meter;
pub mod notify;
mod order;
mod pacing;
pub mod privileges;
mod report;
mod running;
pub mod self_metrics;
mod slot;
#[cfg(test)]
mod tests;

pub use budget::Budget;
pub use report::{Failure, Report, TracerReport};
pub use running::{Agent, FIRST_FOREIGN_TOKEN};
