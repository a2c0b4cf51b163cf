//! A complete agent in one file: every tracer that is on by default, into OTLP requests, to a receiver or to standard output.
//!
//!     cargo run --example agent -- [URL]
//!
//! as root; ends after a minute. `ebpf-otlp run` is this with signals, reloading and a spool.

use std::error::Error;
use std::time::{Duration, Instant};

use collector::agent::Agent;
use collector::agent::config::AgentConfig;
use collector::export::config::{ExportConfig, process_env};
use collector::export::delivery::Limits;
use collector::export::{Exporter, Outlet, Signal, Sink};
use collector::pipeline::{Pipeline, Reading, Settings};

const INTERVAL: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    // Where it goes: the argument, or OTEL_EXPORTER_OTLP_*, or standard output.
    let urls: Vec<String> = std::env::args().skip(1).collect();
    let mut export = ExportConfig::resolve(&Signal::ALL, &urls, &process_env)?;
    if export.sinks.is_empty() {
        export.sinks.push(Sink::Console(Signal::ALL.to_vec()));
    }
    let outlets = export.sinks.iter().map(|sink| Outlet::to_sink(sink, Limits::default()));
    let exporter = Exporter::start(outlets.collect::<Result<Vec<_>, _>>()?)?;

    // What it becomes: series, spans, log records and profiles with names on them, in 4 MiB.
    let (settings, warnings) = Settings::read(&process_env, "example-agent", 1, 4 << 20);
    warnings.iter().for_each(|warning| eprintln!("{warning}"));
    let mut pipeline = Pipeline::new(settings, Reading::now())?;

    // Where it comes from. No file, no variables, no flags: the defaults.
    let config = AgentConfig::resolve(None, std::iter::empty(), &[])?;
    let mut agent = Agent::start(config, INTERVAL)?;

    let end = Instant::now() + Duration::from_secs(60);
    let mut window_end = Instant::now() + INTERVAL;
    while Instant::now() < end {
        agent.poll(window_end, &mut pipeline)?;
        agent.take_warnings().iter().chain(&agent.take_notes()).for_each(|note| eprintln!("{note}"));
        if Instant::now() >= window_end {
            window_end += INTERVAL;
            let report = agent.collect(&mut pipeline);
            eprintln!("tracing costs {:.2} % of a core", report.cost * 100.0);
            pipeline.flush(Reading::now(), &Signal::ALL, &mut |request| exporter.push(&request));
        }
    }
    drop(agent);
    for stats in exporter.shut_down(Duration::from_secs(5)) {
        eprintln!("{}: {} items", stats.name, stats.total(|signal| signal.delivered).items);
    }
    Ok(())
}
