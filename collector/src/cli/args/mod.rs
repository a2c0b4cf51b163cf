//! Command line to a [`Command`].

mod check;
mod config;
mod inspect;
mod load;
mod profile;
mod run;
mod table;

use std::ffi::OsString;
use std::time::Duration;

use collector::units;
use lexopt::prelude::*;

pub use inspect::Inspect;
pub use load::Load;
pub use profile::Profile;
pub use run::Run;
pub use table::Table;

/// What the user asked for.
#[derive(Debug, PartialEq)]
pub enum Command {
    Help(&'static str),
    /// No command at all.
    Nothing,
    Version,
    Check {
        json: bool,
    },
    Profile(Box<Profile>),
    Load(Load),
    Inspect(Inspect),
    Run(Box<Run>),
    /// `config --example`.
    ConfigExample,
}

pub const HELP: &str = "\
ebpf-otlp: what a Linux machine does, seen through eBPF, as OpenTelemetry

Usage: ebpf-otlp COMMAND [OPTIONS]

  run       the agent: everything that is enabled, shown or exported, until a signal
  profile   sample where CPU time goes, kernel and user, by function name
  network   TCP connections, UDP traffic and DNS lookups, by process
  syscalls  system calls, their errors and latencies, by process
  memory    page faults, mappings, reclaim, OOM kills, a process' heap
  sched     who waits for a CPU, and how long
  disk      block requests and how long they take
  check     what this kernel and user allow, and what to do about what is missing
  load      load BPF objects with the project's own loader
  inspect   show what is in a BPF object, without privileges
  config    print a configuration file for `run` with every key and its default

  --help, --version; `ebpf-otlp COMMAND --help` lists a command's options
";

/// Parses the command line.
///
/// # Errors
///
/// Says what is wrong, in one line.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut parser = lexopt::Parser::from_iter(args);
    let command = match parser.next().map_err(text)? {
        None => return Ok(Command::Nothing),
        Some(Short('h') | Long("help")) => return Ok(Command::Help(HELP)),
        Some(Short('V') | Long("version")) => return Ok(Command::Version),
        Some(Value(command)) => command,
        Some(other) => return Err(text(other.unexpected())),
    };
    match command.to_str() {
        Some("run") => run::parse(&mut parser, None),
        Some("check") => check::parse(&mut parser),
        Some("profile") => profile::parse(&mut parser),
        Some("load") => load::parse(&mut parser),
        Some("inspect") => inspect::parse(&mut parser),
        Some("config") => config::parse(&mut parser),
        Some(command) if Table::of(command).is_some() => run::parse(&mut parser, Table::of(command)),
        Some("help") => Ok(Command::Help(HELP)),
        _ => Err(format!(
            "unknown command {command:?}: there are run, profile, network, syscalls, memory, sched, disk, check, load, \
             inspect and config"
        )),
    }
}

fn text(e: lexopt::Error) -> String {
    e.to_string()
}

fn string(option: &str, parser: &mut lexopt::Parser) -> Result<String, String> {
    parser.value().map_err(text)?.into_string().map_err(|v| format!("{option} {v:?} is not valid UTF-8"))
}

fn number(option: &str, parser: &mut lexopt::Parser) -> Result<u32, String> {
    let value = string(option, parser)?;
    value.parse().map_err(|_| format!("{option} {value} is not a whole number of 32 bits"))
}

/// As [`units::size`].
fn size(option: &str, parser: &mut lexopt::Parser) -> Result<u64, String> {
    units::size(&string(option, parser)?).map_err(|e| format!("{option} {e}"))
}

/// As [`units::duration`].
fn duration(option: &str, parser: &mut lexopt::Parser) -> Result<Duration, String> {
    units::duration(&string(option, parser)?).map_err(|e| format!("{option} {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Command, String> {
        parse(std::iter::once("ebpf-otlp").chain(line.split_whitespace()).map(OsString::from))
    }

    fn profile_line(line: &str) -> Profile {
        match parse_line(line) {
            Ok(Command::Profile(p)) => *p,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn profile_takes_its_options() {
        let p = profile_line(
            "profile --duration 10s --frequency 19 --pid 7 --pid 3 --pid 7 --children --output a.svg --output=b.folded",
        );
        assert_eq!(p.duration, Some(Duration::from_secs(10)));
        assert_eq!(p.config.frequency, 19);
        assert_eq!(p.config.filter.pids, [3, 7]);
        assert!(p.config.filter.children);
        assert_eq!(p.outputs.len(), 2);
        assert_eq!(profile_line("profile").config.frequency, 99);
        let p = profile_line(
            "profile --endpoint http://a --endpoint http://b --spool d --spool-size 64M --spool-delay 5s",
        );
        assert_eq!(p.endpoints, ["http://a", "http://b"]);
        assert_eq!((p.spool, p.spool_size), (Some("d".into()), Some(64 << 20)));
        assert_eq!(p.spool_delay, Some(Duration::from_secs(5)));
    }

    #[test]
    fn run_sets_keys() {
        let line = "run --config a.toml --duration 15s --only tcp,udp --pid 3 --pid 7 --children --cpu-limit 2 --cpu-limit 3";
        let Ok(Command::Run(run)) = parse_line(line) else { panic!("{:?}", parse_line(line)) };
        assert_eq!((run.config, run.duration), (Some("a.toml".into()), Some(Duration::from_secs(15))));
        assert_eq!(run.only, ["tcp", "udp"]);
        let flags: Vec<_> = run.flags.iter().map(|flag| (flag.name, &*flag.key, &*flag.text)).collect();
        let expected = [
            ("--pid", "filter.pids", "3,7"),
            ("--children", "filter.children", "true"),
            ("--cpu-limit", "agent.cpu_limit", "3"),
        ];
        assert_eq!(flags, expected);
        assert_eq!(parse_line("config --example"), Ok(Command::ConfigExample));
        assert!(parse_line("config").unwrap_err().contains("--example"));
        assert!(parse_line("run --no-such 3").unwrap_err().contains("no-such"));
    }

    #[test]
    fn durations_have_units() {
        let of = |d: &str| profile_line(&format!("profile --duration {d}")).duration.unwrap();
        assert_eq!(of("500ms"), Duration::from_millis(500));
        assert_eq!(of("2m"), Duration::from_secs(120));
        assert_eq!(of("1h"), Duration::from_secs(3600));
        assert_eq!(of("3"), Duration::from_secs(3));
        for bad in ["0s", "", "s", "1d", "-1s", "1.5s", "99999999999h"] {
            let e = parse_line(&format!("profile --duration={bad}")).unwrap_err();
            assert!(e.contains("--duration"), "{bad}: {e}");
        }
    }

    #[test]
    fn wrong_usage_says_what_is_wrong() {
        for (line, part) in [
            ("profile --frequency 0", "frequency 0 Hz is out of range"),
            ("profile --frequency 1001", "must be 1 to 1000"),
            ("profile --frequency x", "--frequency x is not a whole number"),
            ("profile --no-such", "no-such"),
            ("profile --output x.png", ".svg"),
            ("profile --children", "add a pid"),
            ("profile --spool-size 1G", "needs --spool"),
            ("profile --spool-delay 1s", "needs --spool"),
            ("profile --spool d --spool-size 1X", "--spool-size 1X"),
            ("profile --spool d --spool-size 1K", "1M or more"),
            ("profile --spool d --spool-size 99999999999T", "1M or more"),
            ("profile extra", "extra"),
            ("frobnicate", "unknown command"),
            ("load", "at least one object"),
        ] {
            let e = parse_line(line).unwrap_err();
            assert!(e.contains(part), "{line}: {e}");
        }
    }
}
