//! The generator and the exporter in one loop.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use collector::export::config::{Sink, process_env};
use collector::export::delivery::Limits;
use collector::export::pipeline::{Exporter, Outlet};
use collector::export::retry::RetryPolicy;
use collector::export::spool::{Spool, SpoolConfig};
use collector::export::stats::{Amount, DropReason, SignalStats, Stats};
use collector::export::{ExportConfig, Signal};
use serde_json::{Map, Value, json};

use super::{Generator, Options};

/// Generates and exports what `options` ask for; returns what became of it, by destination.
///
/// # Errors
///
/// Wrong usage, or a spool that cannot be opened.
pub fn run(options: &Options, out: &mut impl Write) -> Result<Vec<Stats>, Box<dyn std::error::Error>> {
    let exporter = Exporter::start(outlets(options)?)?;
    let mut generator = Generator::default();
    let mut kept = vec![0; options.signals.len()];
    let start = Instant::now();
    for round in 0..options.count {
        let due = start + options.pause.saturating_mul(u32::try_from(round).unwrap_or(u32::MAX));
        if options.duration.is_some_and(|duration| due.max(Instant::now()) - start >= duration) {
            break;
        }
        loop {
            if options.kept {
                tell_kept(&options.signals, &exporter.stats(), &mut kept, out)?;
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(Duration::from_millis(5)));
        }
        let first = options.first + round * options.items;
        for signal in &options.signals {
            exporter.push(&generator.request(*signal, first..first + options.items));
        }
    }
    let stats = exporter.shut_down(options.flush);
    if options.kept {
        tell_kept(&options.signals, &stats, &mut kept, out)?;
    }
    Ok(stats)
}

fn outlets(options: &Options) -> Result<Vec<Outlet>, Box<dyn std::error::Error>> {
    let config = ExportConfig::resolve(&Signal::ALL, &options.endpoints, &process_env)?;
    config.warnings.iter().for_each(|warning| eprintln!("{warning}"));
    let mut limits = Limits { max_time_at_risk: options.at_risk, ..Limits::default() };
    limits.queue_bytes = options.queue.unwrap_or(limits.queue_bytes);
    if let Some(first_delay) = options.retry {
        limits.retry = RetryPolicy { first_delay, max_delay: first_delay * 10 };
    }
    let mut outlets = Vec::new();
    for (number, sink) in config.sinks.iter().enumerate() {
        let Sink::Otlp(destination) = sink else { return Err("only receivers are supported".into()) };
        let mut outlet = Outlet::to(destination, limits)?;
        if let Some(folder) = &options.spool {
            let mut config = SpoolConfig::new(folder.join(number.to_string()));
            config.max_bytes = options.spool_bytes.unwrap_or(config.max_bytes);
            let (spool, recovered) = Spool::open(&config)?;
            outlet.spool = Some((Arc::new(spool), recovered.held));
        }
        outlets.push(outlet);
    }
    if outlets.is_empty() { Err("no endpoint".into()) } else { Ok(outlets) }
}

/// Requests are taken in order, so that those that are not in memory alone any more are the first ones.
fn tell_kept(
    signals: &[Signal],
    stats: &[Stats],
    kept: &mut [u64],
    out: &mut impl Write,
) -> std::io::Result<()> {
    for (signal, kept) in signals.iter().zip(kept) {
        let safe = |stats: &Stats| {
            let stats = stats.signals.get(*signal);
            stats.accepted.items - stats.in_memory.items
        };
        let now = stats.iter().map(safe).min().unwrap_or(0);
        if now > *kept {
            *kept = now;
            writeln!(out, "kept {} {now}", signal.noun())?;
            out.flush()?;
        }
    }
    Ok(())
}

/// What became of everything, by destination and signal.
pub fn to_json(stats: &[Stats]) -> Value {
    stats.iter().map(destination).collect()
}

fn destination(stats: &Stats) -> Value {
    let used = stats.signals.iter().filter(|(_, stats)| **stats != SignalStats::default());
    let signals: Map<_, _> =
        used.map(|(signal, stats)| (signal.noun().to_owned(), signal_json(stats))).collect();
    json!({
        "name": stats.name,
        "signals": signals,
        "last_error": stats.last_error,
        "last_message": stats.last_message,
        "spool_error": stats.spool_error,
        "panics": stats.panics,
    })
}

fn signal_json(stats: &SignalStats) -> Value {
    let amount =
        |amount: Amount| json!({ "requests": amount.requests, "items": amount.items, "bytes": amount.bytes });
    let dropped: Map<_, _> = DropReason::ALL
        .into_iter()
        .filter(|reason| stats.dropped.get(*reason) != Amount::default())
        .map(|reason| (reason.name().to_owned(), amount(stats.dropped.get(reason))))
        .collect();
    json!({
        "accepted": amount(stats.accepted),
        "recovered": amount(stats.recovered),
        "delivered": amount(stats.delivered),
        "rejected": amount(stats.rejected),
        "dropped": dropped,
        "retries": stats.retries,
        "ambiguous": amount(stats.ambiguous),
        "in_memory": amount(stats.in_memory),
        "in_spool": amount(stats.in_spool),
    })
}
