//! Programs of perf events.

use bpf_loader::attach::PerfEventOptions;
use bpf_sys::perf::{self, Scope};
use bpf_sys::uapi::perf::{PERF_COUNT_SW_CPU_CLOCK, attr_flags};
use bpf_sys::{PerfEventAttr, PerfType};

use crate::record::fired;
use crate::subject::load;
use crate::{kernel_has, permitted};

const OBJECT: &[u8] = include_bytes!("../bpf/prebuilt/perf_event.bpf.o");

/// Keeps the CPU busy.
fn burn() {
    let start = std::time::Instant::now();
    while start.elapsed().as_millis() < 100 {
        std::hint::spin_loop();
    }
}

#[test]
fn a_perf_event_runs_its_program_when_it_overflows() {
    for force_ioctl in [false, true] {
        let Some(subject) = load(OBJECT, "on_overflow") else { return };
        let attr = PerfEventAttr {
            kind: PerfType::SOFTWARE,
            config: PERF_COUNT_SW_CPU_CLOCK,
            sample_period: 1_000_000,
            flags: attr_flags::DISABLED,
            ..PerfEventAttr::default()
        };
        let event = perf::open(&attr, Scope::CallingThread, None, None).map_err(Into::into);
        let Some(event) = permitted(event) else { return };
        let options = PerfEventOptions { force_ioctl, ..PerfEventOptions::default() };
        let link = subject.program().attach_perf_event_with(&event, &options);
        let Some(link) = permitted(link) else { return };
        assert_eq!(link.fd().is_some(), !force_ioctl && kernel_has((5, 15)));
        event.enable(false).unwrap();
        burn();
        let hits = subject.hits();
        assert!(hits > 1, "{hits}");
        drop(link);
        let hits = subject.hits();
        burn();
        assert_eq!(subject.hits(), hits, "after its link is dropped");
        fired(subject.program());
    }
}
