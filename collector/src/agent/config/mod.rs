//! What the agent is told: defaults, then a TOML file, then the environment, then flags, each stronger than those before.
//!
//! Everything here is pure: texts come from the caller.

#[cfg(all(test, feature = "service"))]
mod document;
#[cfg(any(test, feature = "terminal"))]
mod example;
mod file;
mod keys;
mod toml;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::Filter;
use crate::key::{Key, Value, unknown};
use crate::sorted::SortedMap;
use crate::tracer::ladder::Forced;
use crate::tracer::{Info, Settings, TRACERS};

#[cfg(any(test, feature = "terminal"))]
pub use example::example;

/// Prefix of the environment's variables.
pub const VARIABLE_PREFIX: &str = "EBPF_OTLP_";
/// The variable that names the file, and is no key.
pub const FILE_VARIABLE: &str = "EBPF_OTLP_CONFIG";
/// Tables of the file, beside one a tracer.
const SECTIONS: &[(&str, &[Key<AgentConfig>])] = &[
    ("agent", keys::AGENT),
    ("filter", keys::FILTER),
    ("export", keys::EXPORT),
    #[cfg(feature = "debuginfod")]
    ("symbols", keys::SYMBOLS),
];

/// Of the tracer that not every build has.
const NO_OFF_CPU: &str = "this build has no off-CPU profiles (feature `unwind`)";

/// All of it.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentConfig {
    /// `[agent]`
    pub agent: AgentSettings,
    /// `[filter]`
    pub filter: Filter,
    /// `[export]`
    pub export: ExportSettings,
    /// `[symbols]`
    #[cfg(feature = "debuginfod")]
    pub symbols: SymbolSettings,
    /// `[tracer.NAME]`, by name.
    pub tracers: SortedMap<&'static str, TracerConfig>,
    /// What tracers have keys for.
    pub settings: Settings,
}

/// The agent itself.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentSettings {
    /// How long a window is; `None`: as suits what is made of it.
    pub interval: Option<Duration>,
    /// Bytes for everything: resident memory, BPF maps, rings.
    pub memory_budget: Option<u64>,
    /// Percent of one core that the agent and its hooks may take together; 0: no limit.
    pub cpu_limit: f64,
    /// Where health and metrics are served.
    pub listen: Option<SocketAddr>,
    /// The kernel's types: a file, or a folder of files of many kernels.
    pub btf: Option<PathBuf>,
    /// What becomes of privileges that only the start needs.
    pub privileges: Privileges,
}

/// What becomes of privileges that the agent does not need any more once everything is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privileges {
    /// They are given up.
    Drop,
    /// They stay.
    Keep,
}

/// Where data goes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExportSettings {
    /// Receivers, as `--endpoint` takes them.
    pub endpoints: Vec<String>,
    /// A file of OTLP JSON lines.
    pub output: Option<PathBuf>,
    /// Directory for what receivers do not take yet.
    pub spool: Option<PathBuf>,
    /// Bytes of the spool of each receiver.
    pub spool_size: Option<u64>,
    /// How long data may be in memory alone.
    pub spool_delay: Option<Duration>,
    /// Whether each process is a resource of its own.
    pub per_process: bool,
}

/// Where names come from beside this host.
#[cfg(feature = "debuginfod")]
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SymbolSettings {
    /// Debuginfod servers, as `--debuginfod` takes them.
    pub debuginfod: Vec<String>,
    /// Folder for what they send.
    pub debuginfod_cache: Option<PathBuf>,
    /// Bytes of that folder.
    pub debuginfod_cache_size: Option<u64>,
}

/// A tracer, whatever it traces.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TracerConfig {
    /// Whether it runs.
    pub enabled: bool,
    /// Whether the user said so, and not the defaults: then it is an error if it cannot.
    pub asked: bool,
    /// Rungs to use whatever the kernel has better.
    pub rungs: Forced,
}

/// What is wrong with a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `agent.toml:12`, a variable, a flag; empty where it is the whole.
    pub place: String,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() {
            f.write_str(&self.what)
        } else {
            write!(f, "{}: {}", self.place, self.what)
        }
    }
}

impl std::error::Error for Problem {}

/// A flag that sets a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// As the user writes it.
    pub name: &'static str,
    /// The key: `agent.interval`.
    pub key: String,
    /// Its value as text.
    pub text: String,
}

impl Default for AgentConfig {
    fn default() -> Self {
        let tracer = |info: &&'static Info| {
            (info.name, TracerConfig { enabled: info.on_by_default, ..TracerConfig::default() })
        };
        Self {
            agent: AgentSettings {
                interval: None,
                memory_budget: None,
                cpu_limit: 1.0,
                listen: None,
                btf: None,
                privileges: if cfg!(feature = "service") { Privileges::Drop } else { Privileges::Keep },
            },
            filter: Filter::default(),
            export: ExportSettings::default(),
            #[cfg(feature = "debuginfod")]
            symbols: SymbolSettings::default(),
            tracers: TRACERS.iter().map(tracer).collect(),
            settings: Settings::default(),
        }
    }
}

/// What a key's value comes as.
enum Given<'g> {
    Value(&'g Value),
    Text(&'g str),
}

impl Given<'_> {
    fn set<T>(&self, key: &Key<T>, target: &mut T) -> Result<(), String> {
        let set = match self {
            Self::Value(value) => (key.set)(target, value),
            Self::Text(text) => {
                let value = (key.get)(target).like(text);
                (key.set)(target, &value)
            }
        };
        set.map_err(|what| format!("{}: {what}", key.name))
    }
}

fn find<'k, T>(keys: &'k [Key<T>], name: &str) -> Option<&'k Key<T>> {
    keys.iter().find(|key| key.name == name)
}

impl AgentConfig {
    /// From all layers. `file` has its name and its text, `variables` are those of the environment, of which only ones with
    /// [`VARIABLE_PREFIX`] are looked at.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn resolve(
        file: Option<(&str, &str)>,
        variables: impl IntoIterator<Item = (String, String)>,
        flags: &[Flag],
    ) -> Result<Self, Problem> {
        let mut config = Self::default();
        if let Some((name, text)) = file {
            file::apply(&mut config, name, text)?;
        }
        let mut variables: Vec<_> =
            variables.into_iter().filter(|(name, _)| name.starts_with(VARIABLE_PREFIX)).collect();
        // The environment has no order of its own.
        variables.sort_unstable();
        for (name, text) in variables.iter().filter(|(name, _)| name != FILE_VARIABLE) {
            if !text.trim().is_empty() {
                config.apply_variable(name, text)?;
            }
        }
        for flag in flags {
            let (section, key) = flag.key.rsplit_once('.').unwrap_or(("", &flag.key));
            config
                .assign(section, key, &Given::Text(&flag.text))
                .map_err(|what| Problem { place: flag.name.to_owned(), what })?;
        }
        config.validate()?;
        Ok(config)
    }

    /// Checks what no key can check alone, without asking the system.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), Problem> {
        let wrong = |what: String| Err(Problem { place: String::new(), what });
        if let Err(error) = self.filter.validate() {
            return wrong(format!("[filter]: {error}"));
        }
        let export = &self.export;
        if export.spool.is_none() && (export.spool_size.is_some() || export.spool_delay.is_some()) {
            return wrong("[export]: spool_size and spool_delay need a spool".to_owned());
        }
        if self.enabled().next().is_none() {
            return wrong("no tracer is enabled: there is nothing to do".to_owned());
        }
        Ok(())
    }

    /// Tracers that are to run, in the order in which they are shown.
    pub fn enabled(&self) -> impl Iterator<Item = (&'static Info, &TracerConfig)> {
        let tracer = |info: &&'static Info| Some((*info, self.tracers.get(info.name)?));
        TRACERS.iter().filter_map(tracer).filter(|(_, tracer)| tracer.enabled)
    }

    /// Enables the tracers of these names, or of the commands that they belong to, and disables all others.
    ///
    /// # Errors
    ///
    /// There is no such tracer.
    pub fn enable_only(&mut self, names: &[String]) -> Result<(), Problem> {
        for name in names {
            if TRACERS.iter().all(|info| info.command != name) {
                find_tracer(name).map_err(|what| Problem { place: "--only".to_owned(), what })?;
            }
        }
        // `memory` is a tracer, and a command that has another beside it: it means the tracer.
        let is_tracer = |name: &String| TRACERS.iter().any(|info| info.name == name);
        for info in TRACERS {
            let means = |name: &String| name == info.name || (name == info.command && !is_tracer(name));
            let wanted = names.iter().any(means);
            let tracer = self.tracers.entry(info.name).or_default();
            (tracer.enabled, tracer.asked) = (wanted, wanted);
        }
        Ok(())
    }

    fn apply_variable(&mut self, name: &str, text: &str) -> Result<(), Problem> {
        let problem = |what| Problem { place: name.to_owned(), what };
        let paths = paths();
        let Some((section, key)) = paths.iter().find(|(section, key)| variable(section, key) == name) else {
            if cfg!(not(feature = "unwind")) && name.starts_with("EBPF_OTLP_TRACER_OFF_CPU_") {
                return Err(problem(NO_OFF_CPU.to_owned()));
            }
            let known: Vec<String> = paths.iter().map(|(section, key)| variable(section, key)).collect();
            return Err(problem(unknown("variable", name, known.iter().map(String::as_str))));
        };
        self.assign(section, key, &Given::Text(text)).map_err(problem)
    }

    /// Sets one key of a section: `agent`, `tracer.profile`.
    fn assign(&mut self, section: &str, key: &str, given: &Given<'_>) -> Result<(), String> {
        let unknown_key = |names: &[&str]| unknown("key", key, names.iter().copied());
        if let Some((_, keys)) = SECTIONS.iter().find(|(name, _)| *name == section) {
            let Some(found) = find(keys, key) else {
                return Err(unknown_key(&keys.iter().map(|key| key.name).collect::<Vec<_>>()));
            };
            return given.set(found, self);
        }
        let info = find_tracer(section.strip_prefix("tracer.").unwrap_or(section))?;
        if let Some(found) = find(info.keys, key) {
            return given.set(found, &mut self.settings);
        }
        let Some(found) = find(keys::TRACER, key) else {
            let common = keys::TRACER.iter().map(|key| key.name);
            return Err(unknown_key(&common.chain(info.keys.iter().map(|key| key.name)).collect::<Vec<_>>()));
        };
        let tracer = self.tracers.entry(info.name).or_default();
        given.set(found, tracer)?;
        tracer.asked |= found.name == "enabled" && tracer.enabled;
        check_rungs(info, &tracer.rungs)
    }
}

fn find_tracer(name: &str) -> Result<&'static Info, String> {
    let found = TRACERS.iter().find(|info| info.name == name);
    found.copied().ok_or_else(|| {
        if cfg!(not(feature = "unwind")) && name == "off_cpu" {
            return NO_OFF_CPU.to_owned();
        }
        unknown("tracer", name, TRACERS.iter().map(|info| info.name))
    })
}

/// That the rungs that are forced exist.
fn check_rungs(info: &Info, forced: &Forced) -> Result<(), String> {
    for (what, rung) in &forced.0 {
        let ladder = info.ladders.iter().find(|ladder| ladder.what == what);
        let ladders = info.ladders.iter().map(|ladder| ladder.what);
        let ladder = ladder.ok_or_else(|| format!("rungs: {}", unknown("ladder", what, ladders)))?;
        if !rung.is_empty() && !ladder.rungs.iter().any(|known| known.name == rung) {
            let rungs = ladder.rungs.iter().map(|rung| rung.name);
            return Err(format!("rungs: {what}: {}", unknown("rung", rung, rungs)));
        }
    }
    Ok(())
}

/// Every key with its section.
fn paths() -> Vec<(String, &'static str)> {
    let mut paths = Vec::new();
    let mut add = |section: &str, keys: &mut dyn Iterator<Item = &'static str>| {
        paths.extend(keys.map(|key| (section.to_owned(), key)));
    };
    for (section, keys) in SECTIONS {
        add(section, &mut keys.iter().map(|key| key.name));
    }
    for info in TRACERS {
        let section = format!("tracer.{}", info.name);
        add(&section, &mut keys::TRACER.iter().map(|key| key.name));
        add(&section, &mut info.keys.iter().map(|key| key.name));
    }
    paths
}

/// The variable of a key: `EBPF_OTLP_INTERVAL` of `[agent]`, `EBPF_OTLP_TRACER_PROFILE_FREQUENCY`.
fn variable(section: &str, key: &str) -> String {
    let path = if section == "agent" { key.to_owned() } else { format!("{section}_{key}") };
    VARIABLE_PREFIX.to_owned() + &path.replace(['.', '-'], "_").to_ascii_uppercase()
}

#[cfg(test)]
mod tests;
