//! What a process' threads did in a window.

use bpf_programs::events::sched::Sums;
use otlp_encode::Value;

use super::{CONTEXT_SWITCHES, OFF_CPU_TIME, RUN_QUEUE_DURATION};
use crate::telemetry::{Exponential, Metric, Owner, Point, PointValue, Sink};

/// Sums over all CPUs.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ProcessSums {
    waits: Exponential,
    voluntary: u64,
    involuntary: u64,
    preempted_ns: u64,
    sleeping_ns: u64,
    blocked_ns: u64,
    comm: [u8; 16],
}

impl ProcessSums {
    /// Adds those of a CPU.
    pub fn add(&mut self, of_cpu: &Sums) {
        self.waits.zero += u64::from(of_cpu.zero);
        self.waits.sum_nanos += of_cpu.run_queue_ns;
        of_cpu.slots().zip(0..).for_each(|(count, slot)| self.waits.add_slot(slot, count.into()));
        self.voluntary += u64::from(of_cpu.voluntary);
        self.involuntary += u64::from(of_cpu.involuntary);
        self.preempted_ns += of_cpu.preempted_ns;
        self.sleeping_ns += of_cpu.sleeping_ns;
        self.blocked_ns += of_cpu.blocked_ns;
        if self.comm == [0; 16] {
            self.comm = of_cpu.comm;
        }
    }

    /// Hands over what there is.
    pub fn tell(&self, pid: u32, sink: &mut dyn Sink) {
        let owner = Owner::Process { pid, comm: self.comm };
        if self.waits.count() > 0 {
            let (metric, value) = (&RUN_QUEUE_DURATION, PointValue::Histogram(&self.waits));
            sink.point(Point { metric, owner, attributes: &[], value });
        }
        let mut point = |metric: &'static Metric, key: &'static str, what: &str, value| {
            sink.point(Point { metric, owner, attributes: &[(key, Value::Str(what))], value });
        };
        for (what, count) in [("voluntary", self.voluntary), ("involuntary", self.involuntary)] {
            if count > 0 {
                let value = PointValue::Int(i64::try_from(count).unwrap_or(i64::MAX));
                point(&CONTEXT_SWITCHES, "process.context_switch.type", what, value);
            }
        }
        let times =
            [("preempted", self.preempted_ns), ("sleeping", self.sleeping_ns), ("blocked", self.blocked_ns)];
        for (what, nanos) in times {
            if nanos > 0 {
                let value = PointValue::Double(nanos as f64 / 1e9);
                point(&OFF_CPU_TIME, "ebpf.sched.offcpu.reason", what, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Recorder;

    fn of_cpu(slot: usize, comm: &[u8; 16]) -> Sums {
        let mut slots = [0; 176];
        slots[slot * 4..slot * 4 + 4].copy_from_slice(&3u32.to_ne_bytes());
        Sums {
            slots,
            zero: 1,
            voluntary: 5,
            involuntary: 0,
            run_queue_ns: 1_000_000,
            preempted_ns: 0,
            sleeping_ns: 500_000_000,
            blocked_ns: 0,
            comm: *comm,
        }
    }

    #[test]
    fn cpus_are_added_up_and_what_is_nothing_is_not_told() {
        let mut sums = ProcessSums::default();
        sums.add(&of_cpu(10, &[0; 16]));
        sums.add(&of_cpu(12, b"name\0\0\0\0\0\0\0\0\0\0\0\0"));
        assert_eq!(&sums.comm[..4], b"name");
        let mut recorder = Recorder::default();
        sums.tell(7, &mut recorder);
        let waits = recorder.histogram(RUN_QUEUE_DURATION.name, 7, &[]);
        assert_eq!((waits.count(), waits.zero, waits.sum_nanos, waits.offset()), (8, 2, 2_000_000, -20));
        assert_eq!(recorder.number(CONTEXT_SWITCHES.name, 7, &[]), 10.0);
        assert_eq!(recorder.number(OFF_CPU_TIME.name, 7, &[("ebpf.sched.offcpu.reason", "sleeping")]), 1.0);
        assert_eq!(recorder.numbers.len(), 2);
    }
}
