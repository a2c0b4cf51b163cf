//! `ebpf-otlp run`.

use std::fs;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use collector::agent::config::{AgentConfig, FILE_VARIABLE, Problem};
use collector::agent::{Agent, FIRST_FOREIGN_TOKEN};
use collector::export::config::process_env;
use collector::output::live::Live;
use collector::output::terminal::Style;
use collector::telemetry::Recorder;
use collector::tracer::{Info, TRACERS};
use mio::{Interest, Token};
use signal_hook::consts::SIGHUP;
use signal_hook_mio::v1_0::Signals;

use super::args::Run as Options;
use super::profile::host_name;
use super::{CliResult, SIGNALS_THAT_END, say};

const SIGNAL_TOKEN: Token = Token(FIRST_FOREIGN_TOKEN);
/// How long a window is that is shown.
const SHOWN_INTERVAL: Duration = Duration::from_secs(5);

/// Traces until the end of the duration or a signal; true if all that was asked for happened.
pub fn run(options: &Options) -> CliResult {
    let config = read_config(options)?;
    // Before anything is attached, so that no signal finds the default action any more.
    let mut signals = Signals::new(SIGNALS_THAT_END)?;
    signal_hook::flag::register(libc::SIGXFSZ, Arc::default())?;
    let interval = config.agent.interval.unwrap_or(SHOWN_INTERVAL);
    let mut agent = Agent::start(config, interval)?;
    agent.registry().register(&mut signals, SIGNAL_TOKEN, Interest::READABLE)?;
    let mut shown = Shown::new();
    let result = trace(options, &mut agent, &mut signals, &mut shown);
    tell(&mut agent);
    result?;
    Ok(!agent.failures().iter().any(|failure| failure.counts))
}

/// All layers, as they are now.
fn read_config(options: &Options) -> Result<AgentConfig, Box<dyn std::error::Error>> {
    let path = options.config.clone().or_else(|| process_env(FILE_VARIABLE).map(Into::into));
    let file = path
        .map(|path| {
            let name = path.display().to_string();
            match fs::read_to_string(&path) {
                Ok(text) => Ok((name, text)),
                Err(error) => Err(Problem { place: name, what: error.to_string() }),
            }
        })
        .transpose()?;
    let file = file.as_ref().map(|(name, text)| (name.as_str(), text.as_str()));
    let variables = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
    let mut config = AgentConfig::resolve(file, variables, &options.flags)?;
    if !options.only.is_empty() {
        config.enable_only(&options.only)?;
    }
    Ok(config)
}

fn tell(agent: &mut Agent) {
    agent.take_notes().iter().for_each(|note| say(format_args!("ebpf-otlp: {note}")));
}

fn trace(
    options: &Options,
    agent: &mut Agent,
    signals: &mut Signals,
    shown: &mut Shown,
) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let end = options.duration.map(|duration| start + duration);
    let interval = |agent: &Agent| agent.config().agent.interval.unwrap_or(SHOWN_INTERVAL);
    let mut window_end = start + interval(agent);
    loop {
        tell(agent);
        let until = end.map_or(window_end, |end| end.min(window_end));
        let ready = agent.poll(until, &mut shown.recorder)?;
        let mut ended = agent.is_idle() || end.is_some_and(|end| Instant::now() >= end);
        if ready.contains(&SIGNAL_TOKEN) {
            for signal in signals.pending() {
                match signal {
                    SIGHUP => reload(options, agent, shown),
                    _ => ended = true,
                }
            }
        }
        if ended {
            agent.detach();
        }
        if ended || Instant::now() >= window_end {
            shown.end_window(agent)?;
            // After a long stop, windows do not pile up.
            window_end = (window_end + interval(agent)).max(Instant::now());
        }
        if ended {
            return Ok(());
        }
    }
}

/// Reads the configuration again; what is wrong with it leaves the old one.
fn reload(options: &Options, agent: &mut Agent, shown: &mut Shown) {
    match read_config(options) {
        Ok(config) => {
            agent.reload(config, &mut shown.recorder);
            say("ebpf-otlp: read the configuration again");
        }
        Err(error) => say(format_args!("ebpf-otlp: going on with the old configuration: {error}")),
    }
}

/// Windows on the terminal.
struct Shown {
    recorder: Recorder,
    live: Live,
    host: String,
}

impl Shown {
    fn new() -> Self {
        Self { recorder: Recorder::default(), live: Live::default(), host: host_name() }
    }

    fn end_window(&mut self, agent: &mut Agent) -> io::Result<()> {
        let report = agent.collect(&mut self.recorder);
        let recorder = std::mem::take(&mut self.recorder);
        let running: Vec<&'static Info> = TRACERS
            .iter()
            .copied()
            .filter(|info| report.tracers.iter().any(|tracer| tracer.name == info.name))
            .collect();
        let style = Style::detect(&io::stdout(), process_env);
        // One write a window, whatever the terminal is.
        let mut text = Vec::new();
        self.live.write(&report, &recorder, &running, &self.host, style, &mut text)?;
        io::stdout().lock().write_all(&text)
    }
}
