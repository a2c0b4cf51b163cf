//! Loads nothing: what such a process costs.

#[path = "../meter.rs"]
mod meter;

fn main() -> meter::Result<()> {
    meter::child(|_object, _hooks| Ok(()))
}
