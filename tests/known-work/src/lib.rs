//! A workload that does a known amount of everything that the agent measures, and whether an agent says the same of it.

mod check;
mod loop_device;
pub mod measure;
pub mod received;
pub mod receiver;
pub mod round;
pub mod unprivileged;
pub mod work;
mod workload;

pub use workload::{ROUNDS, Workload};
