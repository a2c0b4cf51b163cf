//! Loads an object, attaches it to a tracepoint, and reads a map: which programs start on this machine, and how often.
//!
//!     cargo run --example tracepoint -- [SECONDS]
//!
//! as root.

use std::error::Error;
use std::thread::sleep;
use std::time::Duration;

use bpf_loader::kernel::RunningKernel;
use bpf_loader::map::Hash;
use bpf_loader::object::ObjectSpec;
use bpf_loader::target::RunningTarget;

/// What `bpf/tracepoint.bpf.c` compiles to.
const OBJECT: &[u8] = include_bytes!("bpf/prebuilt/tracepoint.bpf.o");

fn main() -> Result<(), Box<dyn Error>> {
    let seconds = std::env::args().nth(1).map_or(Ok(5), |s| s.parse())?;

    // Bytes to what is in them; that and a kernel to a plan; the plan into the kernel.
    let spec = ObjectSpec::parse(OBJECT)?;
    let plan = spec.plan(&RunningTarget::new())?;
    let object = plan.load(&RunningKernel::default())?.into_object()?;

    // The program's section, `tracepoint/sched/sched_process_exec`, says where. Dropping the link detaches.
    let link = object.program("count_start")?.attach()?;
    println!("counting for {seconds} seconds");
    sleep(Duration::from_secs(seconds));
    drop(link);

    // Keys and values are plain old data of the sizes that the map has.
    let starts: Hash<[u8; 16], u64> = Hash::new(object.map("starts")?)?;
    let mut all = starts.entries().collect::<Result<Vec<_>, _>>()?;
    all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for (name, count) in all {
        let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
        println!("{count:6} {}", String::from_utf8_lossy(&name[..end]));
    }
    let not_counted = object.global::<u64>("not_counted")?.get();
    if not_counted > 0 {
        println!("{not_counted:6} (not counted by name: the table is full)");
    }
    Ok(())
}
