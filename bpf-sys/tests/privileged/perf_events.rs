//! Perf events.

use std::path::Path;

use bpf_sys::perf::{self, Scope};
use bpf_sys::shared::PerfMapping;
use bpf_sys::uapi::perf::{PERF_COUNT_SW_CPU_CLOCK, PERF_COUNT_SW_DUMMY, attr_flags};
use bpf_sys::{Errno, Error, PerfEventAttr, PerfFd, PerfType, ProgType, RecordType};

use crate::{load, return_program};

fn perf_event(config: u64, flags: u64) -> Option<PerfFd> {
    let attr = PerfEventAttr {
        kind: PerfType::SOFTWARE,
        config,
        sample_period: 1_000_000,
        flags: attr_flags::DISABLED | flags,
        ..Default::default()
    };
    match perf::open(&attr, Scope::CallingThread, None, None) {
        Ok(event) => Some(event),
        Err(e) if matches!(e.errno(), Some(Errno::EPERM | Errno::EACCES)) => {
            eprintln!("skip: needs CAP_PERFMON");
            None
        }
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn a_perf_event_counts_and_runs_a_program() {
    let Some(event) = perf_event(PERF_COUNT_SW_CPU_CLOCK, 0) else { return };
    let other = perf_event(PERF_COUNT_SW_CPU_CLOCK, 0).unwrap();
    assert_ne!(event.id().unwrap(), other.id().unwrap());
    if let Some(prog) = load(ProgType::PERF_EVENT, &return_program(0)) {
        event.set_bpf(&prog).unwrap();
        assert_eq!(event.set_bpf(&prog).unwrap_err().errno(), Some(Errno::EEXIST));
    }
    event.enable(false).unwrap();
    let start = std::time::Instant::now();
    while start.elapsed().as_millis() < 20 {
        std::hint::spin_loop();
    }
    event.disable(false).unwrap();
    let mut count = [0; 1];
    assert_eq!(event.read(&mut count), Ok(1));
    assert!(count[0] > 1_000_000, "{count:?} ns");
    assert_eq!(event.read(&mut []).unwrap_err().errno(), Some(Errno::ENOSPC));
    event.reset(false).unwrap();
    event.set_period(2_000_000).unwrap();
    assert!(event.set_filter(c"pid == 1").is_err());
    assert!(event.query_bpf(&mut [0; 4]).is_err(), "not a tracepoint");
    let same = PerfEventAttr { kind: PerfType::SOFTWARE, ..Default::default() };
    assert!(event.modify_attributes(&same).is_err(), "not a breakpoint");
}

#[test]
fn a_dummy_event_writes_sideband_records() {
    let Some(event) = perf_event(PERF_COUNT_SW_DUMMY, attr_flags::MMAP | attr_flags::COMM) else { return };
    assert!(matches!(PerfMapping::new(&event, 3), Err(Error::Argument { .. })));
    let mapping = PerfMapping::new(&event, 1).unwrap();
    assert_eq!((mapping.head(), mapping.tail()), (0, 0));
    event.pause_output(true).unwrap();
    event.pause_output(false).unwrap();
    event.enable(false).unwrap();
    std::fs::write(format!("/proc/self/task/{}/comm", thread_id()), "renamed").unwrap();
    event.disable(false).unwrap();
    assert!(mapping.head() > 0);
    let mut header = [0; 8];
    mapping.copy_out(0, &mut header).unwrap();
    assert_eq!(header[..4], RecordType::COMM.0.to_ne_bytes());
    let mut record = vec![0; usize::from(u16::from_ne_bytes([header[6], header[7]]))];
    mapping.copy_out(0, &mut record).unwrap();
    assert!(record[16..].starts_with(b"renamed\0"));
    assert_eq!(mapping.copy_out(0, &mut vec![0; mapping.data_len() + 1]), None);

    let other = perf_event(PERF_COUNT_SW_DUMMY, 0).unwrap();
    other.set_output(Some(&event)).unwrap();
    // In another's bits, -1 is a large number.
    let is_compat = size_of::<usize>() == 4 && Path::new("/proc/sys/vm/mmap_rnd_compat_bits").exists();
    let back = other.set_output(None).map_err(|error| error.errno());
    assert_eq!(back, if is_compat { Err(Some(Errno::EBADF)) } else { Ok(()) });
    assert!(other.refresh(1).is_ok());
}

/// The calling thread.
fn thread_id() -> i32 {
    let link = std::fs::read_link("/proc/thread-self").unwrap();
    link.file_name().unwrap().to_str().unwrap().parse().unwrap()
}

#[test]
fn perf_arguments_out_of_range_do_not_reach_the_kernel() {
    let attr = PerfEventAttr::default();
    for (scope, cpu) in
        [(Scope::Thread(u32::MAX), None), (Scope::Thread(0), None), (Scope::AllProcesses, Some(u32::MAX))]
    {
        assert!(matches!(perf::open(&attr, scope, cpu, None), Err(Error::Argument { .. })), "{scope:?}");
    }
    let e = perf::open_uprobe(
        &PerfEventAttr { kind: PerfType(9999), ..attr },
        c"/bin/true",
        Scope::CallingThread,
        None,
    );
    assert_eq!(e.unwrap_err().to_string().split(':').next(), Some("perf_event_open"));
}
