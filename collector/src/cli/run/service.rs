//! What a service manager and a careful administrator expect of the agent; nothing of it without the feature `service`.

use bpf_loader::text::join;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use collector::agent::Agent;
use collector::agent::config::{AgentConfig, Privileges as Wanted};
use collector::agent::notify::Notifier;
use collector::agent::privileges::Privileges;
use collector::export::Signal;
use collector::export::config::{ExportConfig, LogLevel, Sink, process_env};

use super::super::say_at;

const BUILT_IN: bool = cfg!(feature = "service");

/// The agent as a service.
#[derive(Debug, Default)]
pub struct Service {
    notifier: Option<Notifier>,
    privileges: Option<Privileges>,
    /// Whether it was said that the service manager does not listen.
    said: bool,
}

impl Service {
    /// Looks at what there is to give up, and who wants to hear of it.
    pub fn open(config: &AgentConfig) -> Self {
        let mut service = Self::default();
        if BUILT_IN {
            match Notifier::from_env(&process_env) {
                Ok(notifier) => service.notifier = notifier,
                Err(error) => say_at(LogLevel::Warn, format_args!("NOTIFY_SOCKET: {error}")),
            }
            if config.agent.privileges == Wanted::Drop {
                match Privileges::look(writes(config).iter().map(PathBuf::as_path)) {
                    Ok(privileges) => service.privileges = Some(privileges),
                    Err(error) => say_at(LogLevel::Warn, format_args!("privileges are kept: {error}")),
                }
            }
        }
        service
    }

    /// Does what starts threads, which shall have no more privileges than the agent later.
    pub fn confined<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        match self.privileges.as_ref().filter(|_| BUILT_IN) {
            Some(privileges) => privileges.confined(work)?,
            None => work(),
        }
    }

    /// Everything is attached.
    ///
    /// # Errors
    ///
    /// Privileges cannot be given up.
    pub fn started(&mut self, agent: &Agent) -> io::Result<()> {
        if BUILT_IN {
            if let Some(privileges) = &self.privileges {
                privileges.give_up()?;
                say_at(LogLevel::Info, privileges.told());
            }
            self.ready(agent);
        }
        Ok(())
    }

    /// The loop turns; when it must at the latest, again.
    pub fn alive(&mut self) -> Option<Instant> {
        self.tell(|notifier| notifier.alive(Instant::now()));
        self.notifier.as_ref().filter(|_| BUILT_IN)?.deadline()
    }

    /// A window has ended.
    pub fn status(&mut self, agent: &Agent) {
        self.tell(|notifier| notifier.status(&status(agent)));
    }

    pub fn reloading(&mut self) {
        self.tell(|notifier| notifier.reloading());
    }

    /// It runs, with the configuration that there is now.
    pub fn ready(&mut self, agent: &Agent) {
        self.tell(|notifier| notifier.ready(&status(agent)));
    }

    pub fn stopping(&mut self) {
        self.tell(|notifier| notifier.stopping());
    }

    fn tell(&mut self, tell: impl FnOnce(&mut Notifier) -> io::Result<()>) {
        let Some(notifier) = self.notifier.as_mut().filter(|_| BUILT_IN) else { return };
        match tell(notifier) {
            // It has not read what it was told before.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if !self.said => {
                self.said = true;
                say_at(
                    LogLevel::Warn,
                    format_args!("NOTIFY_SOCKET: the service manager does not listen: {error}"),
                );
            }
            _ => {}
        }
    }
}

/// Where the agent creates files while it runs.
fn writes(config: &AgentConfig) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = config.export.output.iter().cloned().collect();
    // Where that is wrong, what opens it says so.
    let export = ExportConfig::resolve(&Signal::ALL, &config.export.endpoints, &process_env);
    for sink in export.map(|export| export.sinks).unwrap_or_default() {
        if let Sink::File(settings) = sink {
            files.extend(settings.files.into_iter().map(|(_, file)| file));
        }
    }
    // A file that is written anew is renamed in its folder.
    let folder = |file: &Path| match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
        _ => PathBuf::from("."),
    };
    config.export.spool.iter().cloned().chain(files.iter().map(|file| folder(file))).collect()
}

fn status(agent: &Agent) -> String {
    let names = |names: Vec<&str>| if names.is_empty() { "nothing".to_owned() } else { join(&names, ", ") };
    let failed: Vec<&str> = agent.failures().iter().map(|failure| failure.name).collect();
    let mut status = format!("traces {}", names(agent.running().collect()));
    if !failed.is_empty() {
        status.push_str(&format!("; cannot trace {}", names(failed)));
    }
    status
}
