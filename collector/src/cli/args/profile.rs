//! Options of `profile`.

use std::path::PathBuf;
use std::time::Duration;

use collector::config::{Config, Filter};
use collector::output::Format;
use lexopt::prelude::*;

use super::{Command, duration, number, size, string, text};

#[derive(Debug, PartialEq)]
pub struct Profile {
    pub config: Config,
    /// `None`: until interrupted.
    pub duration: Option<Duration>,
    pub outputs: Vec<(PathBuf, Format)>,
    pub endpoints: Vec<String>,
    /// Directory for what receivers do not take yet.
    pub spool: Option<PathBuf>,
    /// Bytes of the spool of each receiver.
    pub spool_size: Option<u64>,
    /// How long data may be in memory alone.
    pub spool_delay: Option<Duration>,
    pub json: bool,
}

const HELP: &str = "\
Usage: ebpf-otlp profile [OPTIONS]

Samples the stacks of all CPUs. Without --output or --endpoint, prints the hottest functions and stacks.

  --duration D      how long, as 10s, 500ms, 2m (default: until interrupted)
  --frequency N     samples a second on each CPU, 1 to 1000 (default 99)
  --interval D      with --endpoint: export a profile this often (default 60s)
  --pid N           only this process with all its threads (repeatable)
  --children        with --pid: also the processes that they start
  --comm NAME       only threads or processes of that name
  --cgroup PATH     only tasks in that cgroup and below (v2 or v1 directory)
  --output FILE     write a file (repeatable); its ending picks the format:
                    .svg flame graph, .folded stacks, .pb.gz pprof,
                    .otlp a single OTLP request without a length
                    (unlike that of `run`), .jsonl OTLP JSON
  --endpoint URL    send to an OTLP receiver, as http://localhost:4318, or write
                    JSON lines, as file:///folder; repeatable
                    (or OTEL_EXPORTER_OTLP_ENDPOINT)
  --spool DIR       keep on disk what a receiver does not take yet, and send it
                    as soon as it does, if need be in the next run
  --spool-size SIZE bytes on disk for each receiver, as 64M or 1G (default 256M)
  --spool-delay D   write what is not delivered after D: what a power cut costs at
                    most, besides the current --interval (default 1s)
  --json            print a summary as JSON instead of the table
";

pub(super) fn parse(parser: &mut lexopt::Parser) -> Result<Command, String> {
    let mut config = Config::default();
    let mut filter = Filter::default();
    let mut profile = Profile {
        config: config.clone(),
        duration: None,
        outputs: Vec::new(),
        endpoints: Vec::new(),
        spool: None,
        spool_size: None,
        spool_delay: None,
        json: false,
    };
    while let Some(arg) = parser.next().map_err(text)? {
        match arg {
            Long("duration") => profile.duration = Some(duration("--duration", parser)?),
            Long("interval") => config.window = duration("--interval", parser)?,
            Long("frequency") => config.frequency = number("--frequency", parser)?,
            Long("pid") => filter.pids.push(number("--pid", parser)?),
            Long("children") => filter.children = true,
            Long("comm") => filter.comm = Some(string("--comm", parser)?),
            Long("cgroup") => filter.cgroup = Some(parser.value().map_err(text)?.into()),
            Long("output") => {
                let path = PathBuf::from(parser.value().map_err(text)?);
                let format = Format::from_path(&path).map_err(|e| e.to_string())?;
                profile.outputs.push((path, format));
            }
            Long("endpoint") => profile.endpoints.push(string("--endpoint", parser)?),
            Long("spool") => profile.spool = Some(parser.value().map_err(text)?.into()),
            Long("spool-size") => profile.spool_size = Some(size("--spool-size", parser)?),
            Long("spool-delay") => profile.spool_delay = Some(duration("--spool-delay", parser)?),
            Long("json") => profile.json = true,
            Short('h') | Long("help") => return Ok(Command::Help(HELP)),
            other => return Err(text(other.unexpected())),
        }
    }
    if profile.spool_size.is_some() && profile.spool.is_none() {
        return Err("--spool-size says how much a spool may hold: it needs --spool".into());
    }
    if profile.spool_delay.is_some() && profile.spool.is_none() {
        return Err("--spool-delay says when to write to a spool: it needs --spool".into());
    }
    filter.pids.sort_unstable();
    filter.pids.dedup();
    config.filter = filter;
    config.validate().map_err(|e| e.to_string())?;
    profile.config = config;
    Ok(Command::Profile(Box::new(profile)))
}
