//! Attaches an XDP program to a network device: packets by IP protocol, each second.
//!
//!     cargo run --example xdp -- DEVICE [SECONDS]
//!
//! as root.

use std::error::Error;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

use bpf_loader::attach::XdpMode;
use bpf_loader::kernel::RunningKernel;
use bpf_loader::map::PerCpuArray;
use bpf_loader::object::ObjectSpec;
use bpf_loader::target::RunningTarget;

/// What `bpf/xdp.bpf.c` compiles to.
const OBJECT: &[u8] = include_bytes!("bpf/prebuilt/xdp.bpf.o");

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let device = args.next().ok_or("name a network device, such as lo")?;
    let seconds: u64 = args.next().map_or(Ok(5), |s| s.parse())?;
    let index = fs::read_to_string(format!("/sys/class/net/{device}/ifindex"))?.trim().parse()?;

    let spec = ObjectSpec::parse(OBJECT)?;
    let object = spec.plan(&RunningTarget::new())?.load(&RunningKernel::default())?.into_object()?;
    // In the driver if it can, else in the network stack. The link detaches when it is dropped, or the process ends.
    let _link = object.program("count_packet")?.attach_xdp(index, XdpMode::Any)?;

    // One value a CPU, so that no CPU waits for another.
    let packets: PerCpuArray<u64> = PerCpuArray::new(object.map("packets")?)?;
    let mut before = vec![0; 256];
    for _ in 0..seconds {
        sleep(Duration::from_secs(1));
        let mut line = String::new();
        for (protocol, before) in (0u32..).zip(&mut before) {
            let total: u64 = packets.get(protocol)?.iter().flat_map(|values| values.iter()).sum();
            if total > *before {
                line += &format!("  {}: {}", name(protocol), total - *before);
            }
            *before = total;
        }
        println!("packets by protocol:{}", if line.is_empty() { "  none" } else { &line });
    }
    Ok(())
}

fn name(protocol: u32) -> String {
    match protocol {
        1 => "ICMP".into(),
        6 => "TCP".into(),
        17 => "UDP".into(),
        58 => "ICMPv6".into(),
        other => format!("protocol {other}"),
    }
}
