//! The system call tracer as one tracer among others.

use std::borrow::Cow;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use bpf_programs::events::syscalls::{SLOW_CALL as SLOW_CALL_KIND, SlowCall, What};
use otlp_encode::Value;

use super::calls::call_name;
use super::define::{CALLS, DURATION, ERROR_TYPE, ERRORS, INFO, NAME, SLOW_CALL};
use super::program::Program;
use crate::config::Filter;
use crate::error::{Error, Result};
use crate::names::{SyscallAbi, errno_name};
use crate::telemetry::{Owner, Point, PointValue, Sink, Span, SpanKind};
use crate::tracer::ladder::Chosen;
use crate::tracer::{Info, Overhead, Start, Stats, Tracer, cause};

/// Calls to find out what the programs cost.
const CALIBRATION: u32 = 2000;

pub(super) fn start(start: &Start<'_>) -> Result<Box<dyn Tracer>> {
    let bare = time_of_a_call();
    let mut program = Program::load(start)?;
    let nanos_per_hit = (time_of_a_call() - bare).max(0.0);
    // Those calls were ours.
    program.maps.counts.take()?;
    Ok(Box::new(SyscallTracer { program, nanos_per_hit, counted: 0 }))
}

/// Nanoseconds of a system call that does nothing: the best of a few goes.
fn time_of_a_call() -> f64 {
    let goes = (0..5).map(|_| {
        let began = Instant::now();
        (0..CALIBRATION).for_each(|_| _ = rustix::process::getppid());
        began.elapsed().as_secs_f64() * 1e9 / f64::from(CALIBRATION)
    });
    goes.fold(f64::INFINITY, f64::min)
}

#[derive(Debug)]
struct SyscallTracer {
    program: Program,
    nanos_per_hit: f64,
    /// Calls handed over.
    counted: u64,
}

/// Name of an error, or its number.
fn error_name(number: u16) -> Cow<'static, str> {
    errno_name(number).map_or_else(|| number.to_string().into(), Cow::Borrowed)
}

impl SyscallTracer {
    fn tell_slow_call(abi: SyscallAbi, tgid: u32, boot_ns: u64, call: &SlowCall, sink: &mut dyn Sink) {
        let what = What::unpack(call.what);
        let name = call_name(abi, what);
        let error = (what.error != 0).then(|| error_name(what.error));
        sink.span(Span {
            span: &SLOW_CALL,
            kind: SpanKind::Internal,
            owner: Owner::Process { pid: tgid, comm: call.comm },
            boot_nanos: (boot_ns.saturating_sub(call.duration_ns), boot_ns),
            attributes: &[(NAME, Value::Str(&name))],
            error: error.as_deref(),
        });
    }
}

fn number(n: u64) -> PointValue<'static> {
    PointValue::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

impl Tracer for SyscallTracer {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn rungs(&self) -> &[Chosen] {
        self.program.programs.chosen()
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.program.maps.ring.descriptor()]
    }

    fn drain(&mut self, sink: &mut dyn Sink) -> Result<()> {
        let abi = self.program.abi;
        self.program.maps.ring.drain(|head, record| {
            let call = SlowCall::decode(record).filter(|_| head.kind == SLOW_CALL_KIND);
            if let Some(call) = call {
                Self::tell_slow_call(abi, head.tgid, head.boot_ns, &call, sink);
            }
        })
    }

    fn collect(&mut self, sink: &mut dyn Sink) -> Result<()> {
        self.program.programs.forget_ended()?;
        let collected = self.program.maps.counts.take()?;
        self.counted += collected.total();
        for ((tgid, what), call) in &collected.calls {
            let comm = collected.names.get(tgid).copied().unwrap_or_default();
            let owner = Owner::Process { pid: *tgid, comm };
            let name = call_name(self.program.abi, *what);
            let attributes = [(NAME, Value::Str(&name))];
            let point = |metric, value| Point { metric, owner, attributes: &attributes, value };
            sink.point(point(&CALLS, number(call.calls)));
            if call.durations.count() > 0 {
                sink.point(point(&DURATION, PointValue::Histogram(&call.durations)));
            }
            for (error, count) in &call.errors {
                let error = error_name(*error);
                let attributes = [(NAME, Value::Str(&name)), (ERROR_TYPE, Value::Str(&error))];
                let (metric, value) = (&ERRORS, number(*count));
                sink.point(Point { metric, owner, attributes: &attributes, value });
            }
        }
        Ok(())
    }

    fn pause(&mut self) -> Result<()> {
        self.program.programs.pause();
        Ok(())
    }

    fn resume(&mut self) -> Result<()> {
        self.program.resume()
    }

    fn is_running(&self) -> bool {
        self.program.programs.is_running()
    }

    fn set_filter(&mut self, filter: &Filter) -> Result<()> {
        self.program.programs.set_filter(filter)
    }

    fn set_sampling(&mut self, one_in: u32) -> Result<u32> {
        let one_in = one_in.max(1);
        self.program.maps.one_in.set(&one_in).map_err(Error::kernel)?;
        Ok(one_in)
    }

    fn stats(&mut self) -> Result<Stats> {
        let state = self.program.state();
        let (produced, ring_full) = self.program.maps.ring.produced_and_dropped()?;
        let (used, entries) = self.program.maps.counts.fill();
        Ok(Stats {
            hits: self.counted + state.table_full,
            produced,
            received: self.program.maps.ring.received(),
            dropped: vec![
                (cause::RING_FULL, ring_full),
                (cause::TABLE_FULL, state.table_full),
                (cause::TOO_MANY_AT_ONCE, state.starts_full),
                (cause::BEGIN_NOT_SEEN, state.no_start),
                self.program.programs.missed()?,
                self.program.programs.children_lost(),
            ],
            ring_high_water: self.program.maps.ring.high_water(),
            map_fill: vec![("counts", used, entries)],
        })
    }

    fn overhead(&self) -> Result<Overhead> {
        let calls = self.program.state().runs;
        // A call runs two programs, and what it costs is known for both.
        Ok(Overhead { nanos_per_hit: self.nanos_per_hit, ..self.program.programs.overhead(calls, 0.0)? })
    }

    fn map_bytes(&self) -> u64 {
        self.program.programs.map_bytes() + self.program.maps.counts.map_bytes()
    }
}
