//! What `otlp-generate` is asked for.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use collector::export::Signal;
use lexopt::prelude::*;

/// How to call it.
pub const USAGE: &str = "\
otlp-generate [OPTION...]

Exports requests with numbered items as the agent would, by OTEL_EXPORTER_OTLP_* and these options:

  --endpoint URL      where to, more than once for several destinations (default: as the variables say)
  --signal NAME       metrics, traces, logs or profiles; may be repeated (default: all)
  --count N           requests of each signal (default 1)
  --items N           items in each (default 100)
  --rate N            requests of each signal a second (default: as many as go)
  --duration SECONDS  the end, whatever the count says
  --first N           the number of each signal's first item (default 0)
  --queue BYTES       bound of each destination's queue in memory
  --retry MS          delay after the first failure; later ones are at most ten times as long
  --spool DIR         keep on disk what is not delivered
  --spool-bytes N     bound of the spool
  --at-risk MS        how long a request may be in memory alone (default 0: it is spooled at once)
  --flush SECONDS     how long to wait at the end for deliveries (default 5)
  --kept              print `kept SIGNAL N` as soon as N items are delivered, given up or on disk

At the end it prints what became of everything, one line of JSON.
";

/// What it is asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Base URLs.
    pub endpoints: Vec<String>,
    /// What to send.
    pub signals: Vec<Signal>,
    /// Requests of each signal.
    pub count: u64,
    /// Items in each.
    pub items: u64,
    /// Time between two requests of a signal.
    pub pause: Duration,
    /// The end.
    pub duration: Option<Duration>,
    /// Number of the first item.
    pub first: u64,
    /// Bound of a queue in memory.
    pub queue: Option<usize>,
    /// Delay after the first failure.
    pub retry: Option<Duration>,
    /// Folder of the spool.
    pub spool: Option<PathBuf>,
    /// Bound of the spool.
    pub spool_bytes: Option<u64>,
    /// How long a request may be in memory alone.
    pub at_risk: Duration,
    /// How long to wait at the end.
    pub flush: Duration,
    /// Whether to print what is safe.
    pub kept: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            signals: Vec::new(),
            count: 1,
            items: 100,
            pause: Duration::ZERO,
            duration: None,
            first: 0,
            queue: None,
            retry: None,
            spool: None,
            spool_bytes: None,
            at_risk: Duration::ZERO,
            flush: Duration::from_secs(5),
            kept: false,
        }
    }
}

impl Options {
    /// Reads arguments, without the program's name.
    ///
    /// # Errors
    ///
    /// Wrong usage.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, lexopt::Error> {
        let mut options = Self::default();
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next()? {
            match argument {
                Long("endpoint") => options.endpoints.push(parser.value()?.string()?),
                Long("signal") => options.signals.push(parser.value()?.parse_with(signal)?),
                Long("count") => options.count = parser.value()?.parse()?,
                Long("items") => options.items = parser.value()?.parse()?,
                Long("rate") => options.pause = parser.value()?.parse_with(pause)?,
                Long("duration") => options.duration = Some(parser.value()?.parse_with(seconds)?),
                Long("first") => options.first = parser.value()?.parse()?,
                Long("queue") => options.queue = Some(parser.value()?.parse()?),
                Long("retry") => options.retry = Some(parser.value()?.parse_with(milliseconds)?),
                Long("spool") => options.spool = Some(parser.value()?.into()),
                Long("spool-bytes") => options.spool_bytes = Some(parser.value()?.parse()?),
                Long("at-risk") => options.at_risk = parser.value()?.parse_with(milliseconds)?,
                Long("flush") => options.flush = parser.value()?.parse_with(seconds)?,
                Long("kept") => options.kept = true,
                other => return Err(other.unexpected()),
            }
        }
        if options.signals.is_empty() {
            options.signals = Signal::ALL.to_vec();
        }
        Ok(options)
    }
}

fn signal(name: &str) -> Result<Signal, &'static str> {
    Signal::ALL.into_iter().find(|signal| signal.noun() == name).ok_or("no such signal")
}

fn pause(rate: &str) -> Result<Duration, &'static str> {
    let rate: f64 = rate.parse().map_err(|_| "no number")?;
    Duration::try_from_secs_f64(1.0 / rate).map_err(|_| "no rate")
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    Duration::try_from_secs_f64(text.parse().map_err(|_| "no number")?).map_err(|_| "no time")
}

fn milliseconds(text: &str) -> Result<Duration, &'static str> {
    text.parse().map(Duration::from_millis).map_err(|_| "no number")
}
