//! `ebpf-otlp run`.

mod found;
mod service;
#[cfg(feature = "terminal")]
mod tables;
#[cfg(feature = "terminal")]
mod tables_json;
mod windows;

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use bpf_sys::signal::{Signal, Signals, ignore};
use collector::agent::config::{AgentConfig, FILE_VARIABLE, Problem};
use collector::agent::{Agent, FIRST_FOREIGN_TOKEN};
use collector::export::config::{LogLevel, process_env};
use mio::Token;

use self::service::Service;
use self::windows::Windows;
use super::args::Run as Options;
use super::{CliResult, SIGNALS_THAT_END, say, say_at, says, watch_signals};

const SIGNAL_TOKEN: Token = Token(FIRST_FOREIGN_TOKEN);
/// Most bytes of a configuration file: the path may name anything.
const MAX_CONFIG: u64 = 1 << 20;
/// From the end of the last window to the end, at most: service managers kill what takes longer.
const LAST: Duration = Duration::from_millis(4500);

/// Traces until the end of the duration or a signal; true if all that was asked for happened.
pub fn run(options: &Options) -> CliResult {
    bpf_sys::memory::keep_heap_small();
    super::allow_open_files();
    #[cfg_attr(not(feature = "debuginfod"), expect(unused_mut, reason = "nobody fetches files"))]
    let mut config = read_config(options)?;
    #[cfg(feature = "debuginfod")]
    {
        let symbols = config.symbols.clone();
        config.settings.debuginfod = super::debuginfod::open(
            &symbols.debuginfod,
            symbols.debuginfod_cache,
            symbols.debuginfod_cache_size,
        )?;
    }
    // Before anything is attached, so that no signal finds the default action any more.
    let signals = Signals::catch(&SIGNALS_THAT_END)?;
    // A file at the limit of sizes is an error like any other, and ends nothing.
    ignore(Signal::XFSZ)?;
    // While tracers start, which may take long, a signal ends the program at once: nothing was traced, and what is in the
    // kernel goes with the process. SIGHUP waits where it does not mean the end.
    let at_once = if options.table.is_some() { &SIGNALS_THAT_END[..] } else { &[Signal::INT, Signal::TERM] };
    signals.end_process_at(at_once, 0);
    // The other commands write files when they end, and are nobody's service.
    let mut service = if options.table.is_none() { Service::open(&config) } else { Service::default() };
    let mut windows = Windows::open(&config, options.table.as_ref(), &service)?;
    let interval = windows.interval(&config);
    let mut agent = Agent::start(config, interval)?;
    signals.end_process_at(&[], 0);
    windows.serve(&mut agent);
    watch_signals(agent.registry(), &signals, SIGNAL_TOKEN)?;
    service.started(&agent)?;
    let traced = trace(options, &mut agent, &signals, &mut windows, &mut service);
    service.stopping();
    tell(&mut agent);
    let ended = traced?;
    let mut well = !agent.failures().iter().any(|failure| failure.counts);
    drop(agent);
    let (shown, sent) = windows.finish(LAST.saturating_sub(ended.elapsed()))?;
    well &= shown;
    if let Some(sent) = sent {
        sent.errors().iter().for_each(|error| say_at(LogLevel::Error, error));
        sent.summaries().iter().filter(|_| says(LogLevel::Info)).for_each(say);
        well &= sent.is_complete();
    }
    Ok(well)
}

/// All layers, as they are now.
fn read_config(options: &Options) -> Result<AgentConfig, Box<dyn std::error::Error>> {
    // The file is the agent's; the other commands are not it.
    let from_environment = || process_env(FILE_VARIABLE).filter(|_| options.table.is_none()).map(Into::into);
    let path = options.config.clone().or_else(from_environment);
    let read = |path: std::path::PathBuf| {
        let name = path.display().to_string();
        match read_text(&path) {
            Ok(text) => Ok((name, text)),
            Err(error) => Err(Problem { place: name, what: error.to_string() }),
        }
    };
    let file = path.map(read).transpose()?;
    let file = file.as_ref().map(|(name, text)| (name.as_str(), text.as_str()));
    let variables = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
    let mut config = AgentConfig::resolve(file, variables, &options.flags)?;
    if !options.only.is_empty() {
        config.enable_only(&options.only)?;
    }
    Ok(config)
}

/// A text that a person wrote.
fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = fs::File::open(path)?.take(MAX_CONFIG + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_CONFIG {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "it has more than 1 MiB, which is no configuration",
        ));
    }
    Ok(text)
}

fn tell(agent: &mut Agent) {
    agent.take_warnings().iter().for_each(|warning| say_at(LogLevel::Warn, warning));
    agent.take_notes().iter().for_each(|note| say_at(LogLevel::Info, note));
}

/// Until the end; when the last window had ended.
fn trace(
    options: &Options,
    agent: &mut Agent,
    signals: &Signals,
    windows: &mut Windows,
    service: &mut Service,
) -> Result<Instant, Box<dyn std::error::Error>> {
    let start = Instant::now();
    let end = options.duration.map(|duration| start + duration);
    let mut window_end = start + windows.interval(agent.config());
    loop {
        tell(agent);
        let until = [end, service.alive()].into_iter().flatten().fold(window_end, Instant::min);
        let ready = agent.poll(until, windows.sink())?;
        let now = Instant::now();
        let mut ended = agent.is_idle() || end.is_some_and(|end| now >= end);
        if ready.contains(&SIGNAL_TOKEN) {
            while let Some(signal) = signals.take() {
                match signal {
                    // The other commands have no file to read again, and end with their terminal.
                    Signal::HUP if options.table.is_none() => {
                        service.reloading();
                        reload(options, agent, windows);
                        service.ready(agent);
                        window_end = window_end.min(Instant::now() + windows.interval(agent.config()));
                    }
                    _ => ended = true,
                }
            }
        }
        if ended {
            // Another signal ends the program: the receiver may keep it waiting.
            signals.end_process_at(&SIGNALS_THAT_END, 1);
            // Nothing is slowed down any more, whatever the rest takes.
            agent.detach();
        }
        if ended || now >= window_end {
            windows.end(agent, ended)?;
            service.status(agent);
            // After a long stop, windows do not pile up.
            window_end = (window_end + windows.interval(agent.config())).max(Instant::now());
        }
        if ended {
            return Ok(Instant::now());
        }
        windows.go_on();
    }
}

fn going_on(error: &dyn std::fmt::Display) {
    say_at(LogLevel::Error, format_args!("going on with the old configuration: {error}"));
}

/// Who fetches files for debuggers stays.
#[cfg(feature = "debuginfod")]
fn keep_servers(mut config: AgentConfig, old: &AgentConfig) -> AgentConfig {
    if config.symbols != old.symbols {
        say_at(LogLevel::Warn, "changes of [symbols] wait for the next start");
    }
    config.symbols = old.symbols.clone();
    config.settings.debuginfod = old.settings.debuginfod.clone();
    config
}

/// Reads the configuration again; what is wrong with it leaves the old one.
fn reload(options: &Options, agent: &mut Agent, windows: &mut Windows) {
    match read_config(options) {
        Ok(config) => {
            #[cfg(feature = "debuginfod")]
            let config = keep_servers(config, agent.config());
            if config.export != agent.config().export {
                say_at(LogLevel::Warn, "changes of [export] wait for the next start");
            }
            if config.agent.privileges != agent.config().agent.privileges {
                say_at(LogLevel::Warn, "a change of privileges waits for the next start");
            }
            match agent.reload(config, windows.sink()) {
                Ok(()) => {
                    windows.serve(agent);
                    say_at(LogLevel::Info, "read the configuration again");
                }
                Err(error) => going_on(&error),
            }
        }
        Err(error) => going_on(&error),
    }
}
