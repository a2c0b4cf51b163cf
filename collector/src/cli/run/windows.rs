//! What becomes of windows: they are shown, or exported.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use collector::agent::config::{AgentConfig, Problem};
use collector::agent::{Agent, Budget};
use collector::built_in::ShownBuiltIn;
use collector::export::config::{ExportConfig, LogLevel, process_env};
use collector::export::delivery::Limits;
use collector::export::file::{ConsoleExporter, DelimitedExporter};
use collector::export::transport::Transport;
use collector::export::{Exporter, Outlet, Signal};
use collector::output::live::Live;
use collector::output::terminal::Style;
use collector::pipeline::{Pipeline, Reading, Settings};
use collector::telemetry::Sink;
use collector::tracer::{Info, TRACERS};

use super::super::args::Table;
use super::super::features::Missing;
use super::super::send::{Sender, Sent, Spool, random_id};
use super::super::{host_name, say_at};
use super::found::{Found, Telling, memory, process_name};
use super::service::Service;
#[cfg(feature = "terminal")]
use super::tables::{COLLECT_EVERY, Tables};

/// How long the last window may look for names, as what is sent may take longer after that.
const NAMES: Duration = Duration::from_secs(5);
/// How long a window is that is shown.
const SHOWN_INTERVAL: Duration = Duration::from_secs(5);

/// Where windows go.
pub enum Windows {
    Shown(Box<Shown>, ShownBuiltIn),
    #[cfg(feature = "terminal")]
    Tables(Box<Tables>),
    Exported(Box<Exported>),
}

/// Windows on the terminal.
pub struct Shown {
    found: Found,
    live: Live,
}

/// Windows to receivers and files.
pub struct Exported {
    telling: Telling,
    sender: Sender,
    interval: Duration,
    /// What was said to be lost.
    said: Vec<(Signal, &'static str)>,
}

impl Windows {
    /// Opens everything that windows go to, before anything is traced.
    pub fn open(
        config: &AgentConfig,
        table: Option<&Table>,
        service: &Service,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let mut export = ExportConfig::resolve(&Signal::ALL, &config.export.endpoints, &process_env)?;
        let mut warnings = std::mem::take(&mut export.warnings);
        warnings.extend(LogLevel::from_env(&process_env).1);
        let is_shown = export.sinks.is_empty() && config.export.output.is_none();
        if is_shown {
            warn(&warnings);
            if config.export.spool.is_some() {
                say_at(LogLevel::Warn, "ignoring the spool: nothing is exported");
            }
            #[cfg(feature = "terminal")]
            if let Some(table) = table {
                let tables = Tables::open(table, config.agent.interval.is_some())?;
                return Ok(Self::Tables(Box::new(tables)));
            }
            let has_port = cfg!(feature = "listen") && config.agent.listen.is_some();
            let built_in = ShownBuiltIn::get().filter(|_| cfg!(feature = "terminal") || has_port);
            let Some(built_in) = built_in else {
                let what = if cfg!(feature = "listen") {
                    "table for a run without a receiver: give it --endpoint, --output or --listen"
                } else {
                    "table for a run without a receiver: give it --endpoint or --output"
                };
                return Err(Missing { what, feature: "terminal" }.into());
            };
            let live = Live::new(host_name());
            return Ok(Self::Shown(Box::new(Shown { found: Found::default(), live }), built_in));
        }
        if table.is_some_and(|table| table.json || !table.outputs.is_empty()) {
            let what =
                "files of profiles, as --json, show what is not exported: leave out the receiver, or them";
            return Err(Problem { place: "--output".to_owned(), what: what.to_owned() }.into());
        }
        let budget = Budget::now(config.agent.memory_budget);
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let (memory, _) = memory(&budget, config);
        let (mut settings, more) = Settings::read(&process_env, "ebpf-otlp", random_id(), memory);
        warnings.extend(more);
        warn(&warnings);
        settings.per_process |= config.export.per_process || !config.filter.pids.is_empty();
        settings.sdk.metrics.interval = config.agent.interval.unwrap_or(settings.sdk.metrics.interval);
        let interval = settings.sdk.metrics.interval;
        let outlets = export.sinks.len() + usize::from(config.export.output.is_some());
        let limits = Limits {
            queue_bytes: bytes(budget.queues / outlets.max(1) as u64).max(1 << 20),
            ..Limits::default()
        };
        let output = config.export.output.as_deref().map(|path| outlet(path, limits)).transpose()?;
        let spool = config.export.spool.as_deref().map(|dir| Spool {
            dir,
            max_bytes: config.export.spool_size,
            delay: config.export.spool_delay,
        });
        let output = output.into_iter().collect();
        let start = |outlets| service.confined(|| Exporter::start(outlets));
        let sender = Sender::start(&export.sinks, spool, limits, output, start)?;
        let telling = Telling::new(Pipeline::new(settings, Reading::now())?);
        Ok(Self::Exported(Box::new(Exported { telling, sender, interval, said: Vec::new() })))
    }

    /// Takes what the configuration says of the port, and gives it a page.
    pub fn serve(&mut self, agent: &mut Agent) {
        match self {
            Self::Shown(shown, _) => shown.found.serve(agent),
            #[cfg(feature = "terminal")]
            Self::Tables(tables) => tables.found.serve(agent),
            Self::Exported(exported) => exported.telling.serve(agent),
        }
        match self {
            Self::Shown(shown, _) => shown.found.begin(agent),
            #[cfg(feature = "terminal")]
            Self::Tables(tables) => tables.found.begin(agent),
            Self::Exported(exported) => exported.telling.begin(agent),
        }
    }

    /// Where tracers put what they find.
    pub fn sink(&mut self) -> &mut dyn Sink {
        match self {
            Self::Shown(shown, _) => &mut shown.found,
            #[cfg(feature = "terminal")]
            Self::Tables(tables) => &mut tables.found,
            Self::Exported(exported) => &mut exported.telling.pipeline,
        }
    }

    /// How long a window is.
    pub fn interval(&self, config: &AgentConfig) -> Duration {
        config.agent.interval.unwrap_or(match self {
            Self::Shown(..) => SHOWN_INTERVAL,
            #[cfg(feature = "terminal")]
            Self::Tables(_) => COLLECT_EVERY,
            Self::Exported(exported) => exported.interval,
        })
    }

    /// Ends a window; after the last one there is no other for what is late.
    pub fn end(&mut self, agent: &mut Agent, is_last: bool) -> io::Result<()> {
        match self {
            Self::Shown(shown, _) => shown.end(agent),
            #[cfg(feature = "terminal")]
            Self::Tables(tables) => tables.end(agent),
            Self::Exported(exported) => {
                exported.end(agent, is_last);
                Ok(())
            }
        }
    }

    /// Spans and log records do not wait for the window's end.
    pub fn go_on(&mut self) {
        let Self::Exported(exported) = self else { return };
        let now = Reading::now();
        let mut due = exported.telling.pipeline.due(now.boot_nanos);
        due.retain(|signal| matches!(signal, Signal::Traces | Signal::Logs));
        if !due.is_empty() {
            exported.flush(now, &due);
        }
    }

    /// Shows or sends what is left, for at most so long: whether all was shown or became requests, and what was sent.
    pub fn finish(self, flush_for: Duration) -> io::Result<(bool, Option<Sent>)> {
        match self {
            Self::Shown(..) => Ok((true, None)),
            #[cfg(feature = "terminal")]
            Self::Tables(tables) => Ok((tables.finish()?, None)),
            Self::Exported(exported) => {
                let stats = exported.telling.pipeline.stats();
                let lost = stats.lost();
                lost.iter().for_each(|lost| say_at(LogLevel::Warn, lost_line(*lost)));
                if stats.series.folded > 0 {
                    say_at(
                        LogLevel::Warn,
                        format_args!(
                            "{} data points found no room for series of their own, and are in those with \
                         otel.metric.overflow",
                            stats.series.folded
                        ),
                    );
                }
                Ok((lost.is_empty(), Some(exported.sender.finish_within(flush_for))))
            }
        }
    }
}

/// What found no room before it was part of a request.
fn lost_line((signal, cause, count): (Signal, &str, u64)) -> String {
    let noun = signal.item_noun();
    let noun = if count == 1 { noun.trim_end_matches('s') } else { noun };
    format!("lost {count} {noun}: {cause}")
}

fn warn(warnings: &[String]) {
    warnings.iter().for_each(|warning| say_at(LogLevel::Warn, warning));
}

/// A file of JSON lines, or a file of binary requests for each signal. Telemetry names what runs on a host: for its owner alone.
fn outlet(path: &Path, limits: Limits) -> io::Result<Outlet> {
    let transport: Box<dyn Transport + Send> = if is_binary(path) {
        Box::new(DelimitedExporter::create(path, &Signal::ALL)?)
    } else {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        Box::new(ConsoleExporter::new(file.map_err(named)?).ok_or(io::ErrorKind::Unsupported)?)
    };
    let (name, signals) = (path.display().to_string(), Signal::ALL.to_vec());
    Ok(Outlet { name, signals, timeout: None, limits, transport, spool: None })
}

fn is_binary(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "otlp")
}

impl Exported {
    fn end(&mut self, agent: &mut Agent, is_last: bool) {
        // What waits now has had its time.
        self.sender.news().iter().for_each(|line| say_at(LogLevel::Error, line));
        let mut report = agent.collect(&mut self.telling.pipeline);
        if is_last {
            agent.settle(Some(Instant::now() + NAMES), &mut report, &mut self.telling.pipeline);
        }
        // What goes on is told once, and once more at the end.
        for lost in self.telling.pipeline.stats().lost() {
            if !self.said.contains(&(lost.0, lost.1)) {
                self.said.push((lost.0, lost.1));
                say_at(LogLevel::Warn, lost_line(lost));
            }
        }
        let exports = self.sender.stats();
        self.telling.tell(&report, &exports);
        self.flush(Reading::now(), &Signal::ALL);
        agent.set_metrics(self.telling.pipeline.page());
    }

    fn flush(&mut self, now: Reading, due: &[Signal]) {
        let sender = &self.sender;
        self.telling.pipeline.flush(now, due, &mut |request| sender.push(&request));
    }
}

impl Shown {
    fn end(&mut self, agent: &mut Agent) -> io::Result<()> {
        let report = self.found.collect(agent);
        let recorder = std::mem::take(&mut self.found.recorder);
        if !cfg!(feature = "terminal") {
            return Ok(());
        }
        let running: Vec<&'static Info> = TRACERS
            .iter()
            .copied()
            .filter(|info| report.tracers.iter().any(|tracer| tracer.name == info.name))
            .collect();
        let style = Style::detect(&io::stdout(), process_env);
        // One write a window, whatever the terminal is.
        let mut text = Vec::new();
        let name = |pid: u32| process_name(&recorder, pid);
        self.live.write(&report, &recorder, &running, &name, style, &mut text)?;
        io::stdout().lock().write_all(&text)
    }
}
