//! Loads an object with this project's loader.

#[path = "../meter.rs"]
mod meter;
#[path = "../loaders/ours.rs"]
mod ours;

use bpf_loader::target::RunningTarget;

fn main() -> meter::Result<()> {
    meter::child(|object, _hooks| ours::load(object, &RunningTarget::new()))
}
