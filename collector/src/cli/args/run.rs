//! Options of `run`.

use std::path::PathBuf;
use std::time::Duration;

use collector::agent::config::Flag;
use collector::key::Quoted;
use collector::output::Format;

use super::{Command, Options, Stop, Table};

/// What `run` was asked for beside the configuration's other layers.
#[derive(Debug, Default, PartialEq)]
pub struct Run {
    pub config: Option<PathBuf>,
    /// `None`: until a signal.
    pub duration: Option<Duration>,
    /// Tracers to have on, and no others.
    pub only: Vec<String>,
    /// Keys that flags set.
    pub flags: Vec<Flag>,
    /// What one of the other commands shows instead of summaries.
    pub table: Option<Table>,
}

/// Keys of lists: their flags add to what is there.
const LISTS: &[&str] = &[
    "filter.pids",
    "export.endpoints",
    #[cfg(feature = "debuginfod")]
    "symbols.debuginfod",
];

pub(super) fn parse(options: &mut Options<'_>, table: Option<Table>) -> Result<Command, Stop> {
    let mut run = Run { table, ..Run::default() };
    while let Some(given) = options.next()? {
        match given.name() {
            "--json" => run.table.iter_mut().for_each(|table| table.json = true),
            "--output" if run.table.is_some() => run.output(given.path())?,
            "--set" => {
                let pair = given.string()?;
                let (key, value) =
                    pair.split_once('=').ok_or_else(|| format!("--set {pair} is not KEY=VALUE"))?;
                run.set("--set", key, value.to_owned());
            }
            "--config" => run.config = Some(given.path()),
            "--duration" => run.duration = Some(given.duration()?),
            "--only" => {
                let names = given.string()?;
                run.only.extend(names.split(',').map(|name| name.trim().to_owned()));
            }
            name => match given.option.map(|option| option.key).filter(|key| !key.is_empty()) {
                Some(key) => run.set(name, key, given.string()?),
                None => return Err(given.unread()),
            },
        }
    }
    if let Some(table) = &run.table {
        if run.only.is_empty() {
            run.only = table.tracers(&run);
        }
        // Whoever asks now wants all of it, whatever it costs.
        if !run.flags.iter().any(|flag| flag.key == "agent.cpu_limit") {
            run.set("--cpu-limit", "agent.cpu_limit", "0".to_owned());
        }
    }
    Ok(Command::Run(Box::new(run)))
}

impl Run {
    /// What `run` writes too is of all signals; all others are of profiles.
    fn output(&mut self, path: PathBuf) -> Result<(), String> {
        let format = Format::from_path(&path).map_err(|e| e.to_string())?;
        match (format, &mut self.table) {
            (Format::OtlpJsonLines | Format::Otlp, _) => {
                let path = path.into_os_string().into_string();
                let path = path.map_err(|path| {
                    format!("--output {} is not valid UTF-8", Quoted(&path.to_string_lossy()))
                })?;
                self.set("--output", "export.output", path);
            }
            (_, Some(table)) => table.outputs.push((path, format)),
            (_, None) => {}
        }
        Ok(())
    }

    fn set(&mut self, name: &'static str, key: &str, text: String) {
        match self.flags.iter_mut().find(|flag| flag.key == key) {
            Some(flag) if LISTS.contains(&key) => {
                flag.text.push(',');
                flag.text.push_str(&text);
            }
            Some(flag) => flag.text = text,
            None => self.flags.push(Flag { name, key: key.to_owned(), text }),
        }
    }
}
