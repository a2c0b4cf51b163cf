//! Loads an object with libbpf.

#[path = "../loaders/libbpf.rs"]
mod libbpf;
#[path = "../meter.rs"]
mod meter;

fn main() -> meter::Result<()> {
    meter::child(|object, _hooks| libbpf::load(object))
}
