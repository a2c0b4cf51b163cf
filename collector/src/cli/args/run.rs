//! Options of `run`.

use std::path::PathBuf;
use std::time::Duration;

use collector::agent::config::Flag;
use collector::output::Format;
use lexopt::prelude::*;

use super::{Command, Table, duration, string, text};

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

const HELP: &str = "\
Usage: ebpf-otlp run [OPTIONS]

The agent: traces with everything that is enabled, and exports what it finds; without a receiver, prints a summary
every interval. SIGHUP reads the configuration again, SIGTERM sends what is left and ends.

  --set KEY=VALUE     a key of that file, as tracer.profile.frequency=49 (repeatable)
  --config FILE       a file of settings, which `ebpf-otlp config --example` explains
                      (or EBPF_OTLP_CONFIG)
  --duration D        how long, as 10s, 2m, 1h (default: until interrupted)
  --interval D        how long a window is (default 5s shown, 60s exported)
  --only NAME,...     only these tracers
  --endpoint URL      send to an OTLP receiver, as http://localhost:4318, or write
                      JSON lines, as file:///folder; repeatable
                      (or OTEL_EXPORTER_OTLP_ENDPOINT)
  --output FILE       write .jsonl, OTLP JSON lines, or .otlp, binary requests behind their
                      lengths (unlike that of `profile`), a file for each signal:
                      FILE.metrics.otlp and so on
  --spool DIR         keep on disk what a receiver does not take yet
  --spool-size SIZE   bytes on disk for each receiver, as 64M or 1G (default 256M)
  --spool-delay D     write what is not delivered after D (default 1s)
  --memory-budget N   memory for everything, as 32M (default), at least 4M
  --cpu-limit PERCENT of one core, for the agent and its hooks (default 1; 0: none)
  --listen ADDRESS    serve /healthz, /readyz and /metrics, as on 127.0.0.1:9464
  --per-process       each process is a resource of its own
  --pid N             only this process with all its threads (repeatable)
  --children          with --pid: also the processes that they start
  --comm NAME         only threads or processes of that name
  --cgroup PATH       only tasks in that cgroup and below (v2 or v1 directory)
";

/// Flags with a value, and their keys. Those of lists may be repeated.
const KEYS: [(&str, &str, &str); 12] = [
    ("interval", "--interval", "agent.interval"),
    ("memory-budget", "--memory-budget", "agent.memory_budget"),
    ("cpu-limit", "--cpu-limit", "agent.cpu_limit"),
    ("listen", "--listen", "agent.listen"),
    ("endpoint", "--endpoint", "export.endpoints"),
    ("output", "--output", "export.output"),
    ("spool", "--spool", "export.spool"),
    ("spool-size", "--spool-size", "export.spool_size"),
    ("spool-delay", "--spool-delay", "export.spool_delay"),
    ("pid", "--pid", "filter.pids"),
    ("comm", "--comm", "filter.comm"),
    ("cgroup", "--cgroup", "filter.cgroup"),
];
const LISTS: [&str; 2] = ["filter.pids", "export.endpoints"];

pub(super) fn parse(parser: &mut lexopt::Parser, table: Option<Table>) -> Result<Command, String> {
    let mut run = Run { table, ..Run::default() };
    while let Some(arg) = parser.next().map_err(text)? {
        match arg {
            Long("json") if run.table.is_some() => run.table.iter_mut().for_each(|table| table.json = true),
            Long("output") if run.table.is_some() => run.output(parser.value().map_err(text)?.into())?,
            Long("set") => {
                let pair = string("--set", parser)?;
                let (key, value) =
                    pair.split_once('=').ok_or_else(|| format!("--set {pair} is not KEY=VALUE"))?;
                run.set("--set", key, value.to_owned());
            }
            Long("config") if run.table.is_none() => run.config = Some(parser.value().map_err(text)?.into()),
            Long("duration") => run.duration = Some(duration("--duration", parser)?),
            Long("only") => {
                let names = string("--only", parser)?;
                run.only.extend(names.split(',').map(|name| name.trim().to_owned()));
            }
            Long("children") => run.set("--children", "filter.children", "true".to_owned()),
            Long("per-process") => run.set("--per-process", "export.per_process", "true".to_owned()),
            Long("help") | Short('h') => {
                return Ok(Command::Help(run.table.map_or(HELP, |table| table.help())));
            }
            Long(name) => {
                let Some((_, flag, key)) = KEYS.iter().find(|(known, _, _)| *known == name) else {
                    return Err(text(arg.unexpected()));
                };
                let value = string(flag, parser)?;
                run.set(flag, key, value);
            }
            other => return Err(text(other.unexpected())),
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
                let path = path.map_err(|path| format!("--output {path:?} is not valid UTF-8"))?;
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
