//! The commands. Each returns whether all that was asked for happened; an error ends the command.

pub mod args;
#[cfg(feature = "btf-generate")]
pub mod btf;
pub mod check;
#[cfg(feature = "json")]
mod check_json;
#[cfg(feature = "compare")]
pub mod compare;
#[cfg(feature = "terminal")]
pub mod completions;
#[cfg(feature = "debuginfod")]
mod debuginfod;
pub mod features;
#[cfg(feature = "inspect")]
pub mod inspect;
#[cfg(feature = "load")]
pub mod load;
#[cfg(feature = "terminal")]
pub mod profile;
pub mod run;
mod send;
#[cfg(feature = "terminal")]
mod send_profiles;
#[cfg(feature = "terminal")]
mod summary_json;

use std::error::Error;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::LazyLock;

use bpf_sys::signal::{Signal, Signals};
use collector::export::config::{LogLevel, process_env};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Signals by which people and service managers end a command.
pub const SIGNALS_THAT_END: [Signal; 3] = [Signal::INT, Signal::TERM, Signal::HUP];

/// Wakes a poll when signals wait.
pub fn watch_signals(registry: &Registry, signals: &Signals, token: Token) -> io::Result<()> {
    registry.register(&mut SourceFd(&signals.as_fd().as_raw_fd()), token, Interest::READABLE)
}

/// Has as many files open as the hard limit allows (getrlimit(2)): rings are one a CPU, and files are open while names are looked
/// for in them.
pub fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    // What it is now serves most machines.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// What this machine is called.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// What a command returns.
pub type CliResult = Result<bool, Box<dyn Error>>;

/// Prints text as it is.
pub fn print(text: &str) -> CliResult {
    io::stdout().write_all(text.as_bytes())?;
    Ok(true)
}

/// Prints a line to standard error. A terminal that is gone is no reason to stop, or to panic as `eprintln!` does.
pub fn say(line: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Whether `OTEL_LOG_LEVEL` asks for so much.
pub fn says(level: LogLevel) -> bool {
    static LEVEL: LazyLock<LogLevel> = LazyLock::new(|| LogLevel::from_env(&process_env).0);
    *LEVEL >= level
}

/// Prints a line to standard error where `OTEL_LOG_LEVEL` asks for so much.
pub fn say_at(level: LogLevel, line: impl std::fmt::Display) {
    if says(level) {
        say(format_args!("ebpf-otlp: {line}"));
    }
}

/// An error with what caused it, each part once.
pub fn one_line(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Whether writing failed because the reader of a pipe is gone.
pub fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// The error of a library, which may be in the box that its results have it in.
fn find<'e, T: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e T> {
    error.downcast_ref().or_else(|| error.downcast_ref::<Box<T>>().map(|error| &**error))
}

#[cfg(feature = "debuginfod")]
fn is_of_servers(error: &(dyn Error + 'static)) -> bool {
    error.is::<collector::symbolize::debuginfod::SettingsError>()
}

#[cfg(not(feature = "debuginfod"))]
fn is_of_servers(_: &(dyn Error + 'static)) -> bool {
    false
}

/// Whether the user asked for something that cannot be, rather than something having failed.
pub fn is_usage(error: &(dyn Error + 'static)) -> bool {
    use collector::export::ExportError;
    matches!(
        find(error),
        Some(
            ExportError::Endpoint { .. }
                | ExportError::Protocol { .. }
                | ExportError::Json { .. }
                | ExportError::ClientCertificate { .. }
                | ExportError::Metadata { .. }
        )
    ) || matches!(find(error), Some(collector::error::Error::Config(_)))
        || error.is::<collector::agent::config::Problem>()
        || is_of_servers(error)
        || error.is::<features::Missing>()
}
