//! Loads an object with aya.

#[path = "../loaders/aya.rs"]
mod aya_loader;
#[path = "../meter.rs"]
mod meter;

fn main() -> meter::Result<()> {
    meter::child(|object, hooks| aya_loader::load(object, hooks))
}
