//! What the builders of metrics, traces and logs hand out: every valid item exactly once and no other, within the
//! limits, canonical, and nothing empty.

mod limits;
mod logs;
mod metrics;
mod model;
mod panics;
mod profiles;
mod rules;
mod traces;
