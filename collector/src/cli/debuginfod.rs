//! Files for debuggers from debuginfod servers.

use std::path::PathBuf;

use collector::export::config::process_env;
use collector::symbolize::Debuginfod;
use collector::symbolize::debuginfod::{Settings, SettingsError};

/// Who asks these servers, if there are any.
pub fn open(
    servers: &[String],
    folder: Option<PathBuf>,
    capacity: Option<u64>,
) -> Result<Option<Debuginfod>, SettingsError> {
    let root = rustix::process::geteuid().is_root();
    Ok(Settings::resolve(servers, folder, capacity, root, &process_env)?.map(Debuginfod::new))
}

#[cfg(feature = "terminal")]
pub use shown::{tell, wait};

#[cfg(feature = "terminal")]
mod shown {
    use std::time::{Duration, Instant};

    use bpf_sys::signal::Signals;
    use collector::export::config::LogLevel;
    use collector::symbolize::Debuginfod;
    use collector::tracer::profile::Session;
    use collector::units::{show_duration, show_fixed};

    use crate::cli::{say, say_at, says};

    /// What is waited for without a word.
    const SOON: Duration = Duration::from_millis(300);

    /// Waits for what the names of a last window want, and then for what the files want that came, as long as a server may take to begin,
    /// or until a signal.
    pub fn wait(
        servers: &Debuginfod,
        session: &mut Session,
        signals: &Signals,
    ) -> collector::error::Result<()> {
        session.want_debug_files()?;
        let (start, limit) = (Instant::now(), servers.settings().timeout);
        let (mut told, mut interrupted) = (false, false);
        while servers.pending() > 0 && start.elapsed() < limit && !interrupted {
            let mut read = Ok(());
            servers.wait(start + limit, |pending| {
                if says(LogLevel::Info) && !told && start.elapsed() > SOON && pending > 0 {
                    told = true;
                    say(format_args!(
                        "waiting for {pending} files for debuggers, {} at most; interrupt to go on without",
                        show_duration(limit)
                    ));
                }
                // What the kernel reports of processes must find room meanwhile.
                read = session.poll(Instant::now()).map(drop);
                interrupted = signals.take().is_some();
                read.is_ok() && !interrupted
            });
            read?;
            session.want_debug_files()?;
        }
        Ok(())
    }

    /// Says what became of them.
    pub fn tell(servers: &Debuginfod) {
        let counts = servers.counts();
        let pending = servers.pending();
        if let Some(why) = servers.take_failure() {
            say_at(LogLevel::Warn, format_args!("debuginfod: {why}"));
        }
        if says(LogLevel::Info) {
            let late = if pending > 0 { format!(", {pending} too late") } else { String::new() };
            let dropped = match counts.dropped {
                0 => String::new(),
                count => format!(", {count} not asked for, too many were wanted"),
            };
            say(format_args!(
                "debuginfod: {} files fetched ({} MiB), {} not found, {} failed{dropped}{late}",
                counts.fetched,
                show_fixed(counts.bytes as f64 / f64::from(1 << 20), 1),
                counts.not_found,
                counts.failed
            ));
        }
    }
}
