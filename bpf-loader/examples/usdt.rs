//! Attaches a program to a USDT probe that a binary brings with it, and reads global variables: how often the probe is
//! passed, and its first argument.
//!
//!     cargo run --example usdt -- PATH PROVIDER NAME [SECONDS]
//!
//! as root. `readelf -n PATH` lists the probes of a binary.

use std::error::Error;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use bpf_loader::attach::usdt::{Usdt, UsdtOptions};
use bpf_loader::kernel::RunningKernel;
use bpf_loader::object::ObjectSpec;
use bpf_loader::target::RunningTarget;

/// What `bpf/usdt.bpf.c` compiles to.
const OBJECT: &[u8] = include_bytes!("bpf/prebuilt/usdt.bpf.o");

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(path), Some(provider), Some(name)) = (args.next(), args.next(), args.next()) else {
        return Err("name a binary, a provider and a probe".into());
    };
    let seconds: u64 = args.next().map_or(Ok(5), |s| s.parse())?;

    let spec = ObjectSpec::parse(OBJECT)?;
    let object = spec.plan(&RunningTarget::new())?.load(&RunningKernel::default())?.into_object()?;
    // Where the probe's arguments are at each of its places is written into maps that all programs for USDT share.
    let usdt = Usdt::new(&object)?;
    let program = object.program("on_probe")?;
    let _link = usdt.attach(program, &PathBuf::from(path), &provider, &name, &UsdtOptions::default())?;

    let passed = object.global::<u64>("passed")?;
    let first_argument = object.global::<u64>("first_argument")?;
    for _ in 0..seconds {
        sleep(Duration::from_secs(1));
        println!("passed {} times; first argument {:#x}", passed.get(), first_argument.get());
    }
    Ok(())
}
