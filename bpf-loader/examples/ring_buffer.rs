//! Reads a ring buffer: a line for each process that ends.
//!
//!     cargo run --example ring_buffer -- [SECONDS]
//!
//! as root.

use std::error::Error;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use bpf_loader::kernel::RunningKernel;
use bpf_loader::object::ObjectSpec;
use bpf_loader::ring::{Rest, RingReader};
use bpf_loader::target::RunningTarget;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What `bpf/ring_buffer.bpf.c` compiles to.
const OBJECT: &[u8] = include_bytes!("bpf/prebuilt/ring_buffer.bpf.o");

fn main() -> Result<(), Box<dyn Error>> {
    let seconds = std::env::args().nth(1).map_or(Ok(5), |s| s.parse())?;
    let spec = ObjectSpec::parse(OBJECT)?;
    let object = spec.plan(&RunningTarget::new())?.load(&RunningKernel::default())?.into_object()?;
    let mut ring = RingReader::open(&object.map("ends")?.fd)?;
    let _link = object.program("on_exit")?.attach()?;

    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        // The reader never waits: it lends what is there, and says whether there may be more.
        let drained = ring.drain(usize::MAX, print)?;
        if drained.rest == Rest::More || !ring.prepare_to_sleep() {
            continue;
        }
        let left = Timespec::try_from(end.saturating_duration_since(Instant::now()))?;
        match poll(&mut [PollFd::new(&ring.as_fd(), PollFlags::IN)], Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    println!("{} records lost: the ring was full", object.global::<u64>("lost")?.get());
    Ok(())
}

/// `struct end` of the program.
fn print(record: &[u8]) {
    let (Some(pid), Some(name)) = (record.first_chunk::<4>(), record.get(8..24)) else { return };
    let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
    println!("{:8} {}", u32::from_ne_bytes(*pid), String::from_utf8_lossy(&name[..end]));
}
