//! The commands that show what the tracers of one kind find.

use std::path::PathBuf;

use collector::output::Format;
use collector::tracer::TRACERS;

use super::Run;

/// What is shown instead of `run`'s summaries.
#[derive(Debug, PartialEq)]
pub struct Table {
    /// The command.
    pub command: &'static str,
    /// As JSON.
    pub json: bool,
    /// Files of profiles.
    pub outputs: Vec<(PathBuf, Format)>,
}

macro_rules! help {
    ($command:literal, $about:literal) => {
        concat!(
            "Usage: ebpf-otlp ",
            $command,
            " [OPTIONS]\n\n",
            $about,
            "\n",
            "\
Prints tables at the end, or every --interval; with --endpoint, a .jsonl or an .otlp file, exports instead.

  --duration D        how long, as 10s, 2m, 1h (default: until interrupted)
  --interval D        show a window this often, instead of all at the end
  --only NAME,...     only these of the command's tracers
  --set KEY=VALUE     a key of `ebpf-otlp config --example`, as tracer.syscalls.calls=read,write
                      (repeatable)
  --json              print JSON, a line each time
  --output FILE       write a file: .jsonl and .otlp as `run` does; of profiles .svg, .folded,
                      .pb.gz
  --endpoint URL      send to an OTLP receiver, as `run` does (or OTEL_EXPORTER_OTLP_ENDPOINT)
  --pid N             only this process with all its threads (repeatable)
  --children          with --pid: also the processes that they start
  --comm NAME         only threads or processes of that name
  --cgroup PATH       only tasks in that cgroup and below (v2 or v1 directory)
"
        )
    };
}

/// The commands, and their help.
pub const COMMANDS: [(&str, &str); 5] = [
    ("network", help!("network", "Shows TCP connections, UDP traffic and DNS lookups, by process.")),
    ("syscalls", help!("syscalls", "Shows system calls, their errors and how long they take, by process.")),
    (
        "memory",
        help!(
            "memory",
            "Shows page faults, mappings, stalls in reclaim and OOM kills, by process; with --pid also the heap."
        ),
    ),
    ("sched", help!("sched", "Shows how long threads wait for a CPU, by process.")),
    ("disk", help!("disk", "Shows block requests, how long they take and their bytes, by device.")),
];

impl Table {
    /// For a command; `None` if there is none of that name.
    pub(super) fn of(command: &str) -> Option<Self> {
        let (command, _) = COMMANDS.iter().find(|(name, _)| *name == command)?;
        Some(Self { command, json: false, outputs: Vec::new() })
    }

    pub(super) fn help(&self) -> &'static str {
        COMMANDS.iter().find(|(name, _)| *name == self.command).map_or("", |(_, help)| help)
    }

    /// Tracers of the command that are on unless others are named. The heap is that of given processes.
    pub(super) fn tracers(&self, run: &Run) -> Vec<String> {
        let has_pids = run.flags.iter().any(|flag| flag.key == "filter.pids");
        let wanted = |info: &&collector::tracer::Info| {
            info.command == self.command && (info.on_by_default || (info.name == "heap" && has_pids))
        };
        TRACERS.iter().copied().filter(wanted).map(|info| info.name.to_owned()).collect()
    }
}
