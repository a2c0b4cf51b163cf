//! Command line to a [`Command`].

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use collector::config::{Config, Filter};
use collector::output::Format;
use lexopt::prelude::*;

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
}

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

#[derive(Debug, PartialEq)]
pub struct Load {
    pub objects: Vec<PathBuf>,
    pub json: bool,
    pub per_program: bool,
    pub attach: bool,
    /// With `attach`: `None` until interrupted.
    pub duration: Option<Duration>,
    pub pin: Option<PathBuf>,
    pub btf: Option<PathBuf>,
}

#[derive(Debug, PartialEq)]
pub struct Inspect {
    pub objects: Vec<PathBuf>,
    pub json: bool,
}

pub const HELP: &str = "\
ebpf-otlp: what a Linux machine does, seen through eBPF, as OpenTelemetry

Usage: ebpf-otlp COMMAND [OPTIONS]

  profile   sample where CPU time goes, kernel and user, by function name
  check     what this kernel and user allow, and what to do about what is missing
  load      load BPF objects with the project's own loader
  inspect   show what is in a BPF object, without privileges

  --help, --version; `ebpf-otlp COMMAND --help` lists a command's options
";

const HELP_PROFILE: &str = "\
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
                    .otlp OTLP request, .jsonl OTLP JSON
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

const HELP_CHECK: &str = "\
Usage: ebpf-otlp check [--json]

Says what this kernel, its BTF and this user's capabilities allow, and what to do about what is missing.
Exits 0 if `profile` can run, 1 if not.
";

const HELP_LOAD: &str = "\
Usage: ebpf-otlp load OBJECT... [OPTIONS]

Loads every program and map of each object into the kernel, and lets go of them again.

  --per-program     load each program alone, so that one failure does not hide another
  --attach          attach each program where its section says, and each struct_ops map, until interrupted
  --duration D      with --attach: how long, as 10s, 500ms, 2m
  --pin DIR         pin maps, programs and links in a BPF file system, as DIR/maps/NAME, DIR/programs/NAME,
                    DIR/links/NAME, where they stay; maps declared as pinned are reused if they are there
  --btf FILE        the kernel's types, for kernels that carry none: BTF, or an ELF file with it
  --json            one line of JSON an object
";

const HELP_INSPECT: &str = "\
Usage: ebpf-otlp inspect OBJECT... [--json]

Shows the programs of each object with the maps, functions and kernel types that they use, its maps and its BTF. Asks
no kernel and needs no privileges. Exits 1 if a part of an object makes no sense.

  --json            one line of JSON an object, with every relocation
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
        Some("check") => check(&mut parser),
        Some("profile") => profile(&mut parser),
        Some("load") => load(&mut parser),
        Some("inspect") => inspect(&mut parser),
        Some("help") => Ok(Command::Help(HELP)),
        _ => Err(format!("unknown command {command:?}: there are profile, check, load and inspect")),
    }
}

fn check(parser: &mut lexopt::Parser) -> Result<Command, String> {
    let mut json = false;
    while let Some(arg) = parser.next().map_err(text)? {
        match arg {
            Long("json") => json = true,
            Short('h') | Long("help") => return Ok(Command::Help(HELP_CHECK)),
            other => return Err(text(other.unexpected())),
        }
    }
    Ok(Command::Check { json })
}

fn load(parser: &mut lexopt::Parser) -> Result<Command, String> {
    let mut load = Load {
        objects: Vec::new(),
        json: false,
        per_program: false,
        attach: false,
        duration: None,
        pin: None,
        btf: None,
    };
    while let Some(arg) = parser.next().map_err(text)? {
        match arg {
            Long("json") => load.json = true,
            Long("per-program") => load.per_program = true,
            Long("attach") => load.attach = true,
            Long("duration") => load.duration = Some(duration("--duration", parser)?),
            Long("btf") => load.btf = Some(parser.value().map_err(text)?.into()),
            Long("pin") => load.pin = Some(parser.value().map_err(text)?.into()),
            Short('h') | Long("help") => return Ok(Command::Help(HELP_LOAD)),
            Value(path) => load.objects.push(path.into()),
            other => return Err(text(other.unexpected())),
        }
    }
    if load.objects.is_empty() {
        return Err("name at least one object to load".into());
    }
    if load.per_program && (load.attach || load.pin.is_some()) {
        return Err(
            "--per-program lets go of each program before the next: it goes with neither --attach nor --pin"
                .into(),
        );
    }
    if load.duration.is_some() && !load.attach {
        return Err("--duration says how long to stay attached: it needs --attach".into());
    }
    Ok(Command::Load(load))
}

fn inspect(parser: &mut lexopt::Parser) -> Result<Command, String> {
    let mut inspect = Inspect { objects: Vec::new(), json: false };
    while let Some(arg) = parser.next().map_err(text)? {
        match arg {
            Long("json") => inspect.json = true,
            Short('h') | Long("help") => return Ok(Command::Help(HELP_INSPECT)),
            Value(path) => inspect.objects.push(path.into()),
            other => return Err(text(other.unexpected())),
        }
    }
    if inspect.objects.is_empty() {
        return Err("name at least one object to inspect".into());
    }
    Ok(Command::Inspect(inspect))
}

fn profile(parser: &mut lexopt::Parser) -> Result<Command, String> {
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
            Short('h') | Long("help") => return Ok(Command::Help(HELP_PROFILE)),
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

/// `64M`, `1G`, `512K`, in powers of 1024; a bare number is bytes. At least 1 MiB.
fn size(option: &str, parser: &mut lexopt::Parser) -> Result<u64, String> {
    const LEAST: u64 = 1 << 20;
    let value = string(option, parser)?;
    let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let (count, unit) = value.split_at(digits);
    let bytes = match unit {
        "" => Some(1),
        "K" => Some(1 << 10),
        "M" => Some(1 << 20),
        "G" => Some(1 << 30),
        "T" => Some(1 << 40),
        _ => None,
    };
    bytes
        .and_then(|bytes: u64| count.parse::<u64>().ok()?.checked_mul(bytes))
        .filter(|bytes| *bytes >= LEAST)
        .ok_or_else(|| format!("{option} {value} is not a size of 1M or more: write it as 64M or 1G"))
}

/// `10s`, `500ms`, `2m`, `1h`; a bare number is seconds. At most a year, at least a millisecond.
fn duration(option: &str, parser: &mut lexopt::Parser) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);
    let value = string(option, parser)?;
    let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let (count, unit) = value.split_at(digits);
    let millis = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    count
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(millis))
        .map(Duration::from_millis)
        .filter(|d| !d.is_zero() && *d <= LONGEST)
        .ok_or_else(|| format!("{option} {value} is not a duration: write it as 10s, 500ms, 2m or 1h"))
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
