//! Prints every TCP connection of this machine when it ends.
//!
//!     cargo run --example network -- [SECONDS]
//!
//! as root.

use std::cell::RefCell;
use std::error::Error;
use std::rc::Rc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use bpf_loader::target::RunningTarget;
use collector::config::Filter;
use collector::event_buffer::{EventBuffer, EventFilter, EventKind};
use collector::model::Profile;
use collector::telemetry::{LogRecord, Point, Sink, Span};
use collector::tracer::ladder::Forced;
use collector::tracer::{Settings, Start, tcp};

/// Prints spans.
struct Printer;

impl Sink for Printer {
    fn span(&mut self, span: Span<'_>) {
        let nanos = span.boot_nanos.1.saturating_sub(span.boot_nanos.0);
        print!("{:?} {:?} {:.3} ms", span.kind, span.owner, nanos as f64 / 1e6);
        span.attributes.iter().for_each(|(key, value)| print!(" {key}={value:?}"));
        println!("{}", span.error.map(|error| format!(" failed: {error}")).unwrap_or_default());
    }

    fn point(&mut self, _: Point<'_>) {}
    fn log(&mut self, _: LogRecord<'_>) {}
    fn profile(&mut self, _: Profile) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let seconds = std::env::args().nth(1).map_or(Ok(10), |s| s.parse())?;
    let mut tracer = (tcp::INFO.start)(&Start {
        filter: &Filter::default(),
        settings: &Settings::default(),
        memory: 4 << 20,
        forced: &Forced::default(),
        target: &RunningTarget::new(),
    })?;
    // What is in use, and why not something better.
    for ladder in tracer.rungs() {
        println!("{}: {:?}; refused: {:?}", ladder.what, ladder.rung, ladder.refused);
    }
    // Between the tracer and the printer, a buffer that holds no more than this and lets only spans pass.
    let mut buffer = EventBuffer::new(10_000);
    let spans = EventFilter { kinds: vec![EventKind::Span], ..EventFilter::default() };
    buffer.add_sink(spans, Box::new(Rc::new(RefCell::new(Printer))));
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        sleep(Duration::from_millis(200));
        tracer.drain(&mut buffer)?;
        buffer.flush();
    }
    println!("{:?}; {} dropped between", tracer.stats()?, buffer.dropped());
    Ok(())
}
