//! Command line to a [`Command`].

#[cfg(feature = "btf-generate")]
mod btf;
mod check;
#[cfg(feature = "compare")]
mod compare;
#[cfg(feature = "terminal")]
mod completions;
#[cfg(feature = "terminal")]
mod config;
pub mod definition;
pub mod help;
#[cfg(feature = "inspect")]
mod inspect;
#[cfg(feature = "load")]
mod load;
#[cfg(all(
    test,
    feature = "btf-generate",
    feature = "compare",
    feature = "inspect",
    feature = "load",
    feature = "terminal"
))]
mod man;
mod options;
#[cfg(feature = "terminal")]
mod profile;
mod run;
mod table;

use std::ffi::OsString;

use collector::key;
use lexopt::prelude::*;

#[cfg(feature = "btf-generate")]
pub use btf::{Action as BtfAction, Btf};
pub use check::Check;
#[cfg(feature = "compare")]
pub use compare::Compare;
#[cfg(feature = "terminal")]
pub use completions::Shell;
use definition::{COMMANDS, Definition, LACKING};
#[cfg(feature = "inspect")]
pub use inspect::Inspect;
#[cfg(feature = "load")]
pub use load::Load;
use options::{Options, Stop};
#[cfg(feature = "terminal")]
pub use profile::Profile;
pub use run::Run;
pub use table::Table;

/// What the user asked for.
#[derive(Debug, PartialEq)]
pub enum Command {
    Help(String),
    /// No command at all.
    Nothing,
    Version,
    Check(Check),
    #[cfg(feature = "terminal")]
    Profile(Box<Profile>),
    #[cfg(feature = "compare")]
    Compare(Compare),
    #[cfg(feature = "load")]
    Load(Load),
    #[cfg(feature = "inspect")]
    Inspect(Inspect),
    #[cfg(feature = "btf-generate")]
    Btf(Btf),
    Run(Box<Run>),
    /// `config --example`.
    #[cfg(feature = "terminal")]
    ConfigExample,
    #[cfg(feature = "terminal")]
    Completions(Shell),
}

/// Parses the command line.
///
/// # Errors
///
/// Says what is wrong, in one line.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut parser = lexopt::Parser::from_iter(args);
    let name = match parser.next().map_err(options::say)? {
        None => return Ok(Command::Nothing),
        Some(Short('h') | Long("help")) => return Ok(Command::Help(help::overview())),
        Some(Short('V') | Long("version")) => return Ok(Command::Version),
        Some(Value(name)) => name.to_string_lossy().into_owned(),
        Some(other) => return Err(options::say(other.unexpected())),
    };
    if name == "help" {
        return Ok(Command::Help(help::overview()));
    }
    let Some(definition) = Definition::of(&name) else {
        if let Some((name, feature)) = LACKING.iter().find(|(lacking, _)| *lacking == name) {
            return Err(format!("this build has no `{name}` (feature `{feature}`)"));
        }
        return Err(key::unknown("command", &name, COMMANDS.iter().map(|command| command.name)));
    };
    let options = &mut Options::new(&mut parser, definition);
    let command = match definition.name {
        "check" => check::parse(options),
        #[cfg(feature = "terminal")]
        "profile" => profile::parse(options),
        #[cfg(feature = "compare")]
        "compare" => compare::parse(options),
        #[cfg(feature = "load")]
        "load" => load::parse(options),
        #[cfg(feature = "inspect")]
        "inspect" => inspect::parse(options),
        #[cfg(feature = "btf-generate")]
        "btf" => btf::parse(options),
        #[cfg(feature = "terminal")]
        "config" => config::parse(options),
        #[cfg(feature = "terminal")]
        "completions" => completions::parse(options),
        name => run::parse(options, Table::of(name)),
    };
    match command {
        Err(Stop::Help) => Ok(Command::Help(help::of(definition))),
        Err(Stop::Wrong(what)) => Err(what),
        Ok(command) => Ok(command),
    }
}

#[cfg(all(
    test,
    feature = "btf-generate",
    feature = "compare",
    feature = "inspect",
    feature = "load",
    feature = "terminal"
))]
mod tests {
    use std::time::Duration;

    use collector::output::Format;
    use collector::read::Source;

    use super::options::UNREAD;
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
    #[cfg(feature = "debuginfod")]
    fn servers_of_files_for_debuggers_are_named() {
        let p = profile_line("profile --debuginfod http://a --debuginfod env");
        assert_eq!(p.debuginfod, ["http://a", "env"]);
        assert!(profile_line("profile").debuginfod.is_empty());
        let line = "run --debuginfod http://a --debuginfod env";
        let Ok(Command::Run(run)) = parse_line(line) else { panic!("{:?}", parse_line(line)) };
        let [flag] = &run.flags[..] else { panic!("{:?}", run.flags) };
        assert_eq!((&*flag.key, &*flag.text), ("symbols.debuginfod", "http://a,env"));
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
    fn btf_makes_one_file_of_others() {
        let btf = |line: &str| match parse_line(line) {
            Ok(Command::Btf(btf)) => btf,
            other => panic!("{other:?}"),
        };
        let generate = btf("btf generate vmlinux --output a.btf");
        assert_eq!(
            generate,
            Btf { action: BtfAction::Generate { vmlinux: "vmlinux".into() }, output: "a.btf".into() }
        );
        let minimize = btf("btf minimize a.o b.o --output=a.btf --btf b.btf");
        let objects = vec!["a.o".into(), "b.o".into()];
        assert_eq!(minimize.action, BtfAction::Minimize { objects, btf: Some("b.btf".into()) });
        let own = btf("btf minimize --output a.btf").action;
        assert_eq!(own, BtfAction::Minimize { objects: Vec::new(), btf: None });
    }

    #[test]
    fn compare_tells_files_by_their_endings() {
        let line = "compare old.pb.gz new.otlp --output d.svg --top 5 --sample-type cpu --json";
        let Ok(Command::Compare(compare)) = parse_line(line) else { panic!("{:?}", parse_line(line)) };
        assert_eq!(compare.before, ("old.pb.gz".into(), Source::Pprof));
        assert_eq!(compare.after, ("new.otlp".into(), Source::Otlp));
        assert_eq!(compare.outputs, [("d.svg".into(), Format::Svg)]);
        assert_eq!((compare.top, compare.sample_type.as_deref(), compare.json), (5, Some("cpu"), true));
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
            ("profile --top --json", "use one of them"),
            ("frobnicate", "there is no command"),
            ("compare", "name two files"),
            ("compare a.otlp", "name two files"),
            ("compare a.otlp b.otlp c.otlp", "name two files"),
            ("compare a.otlp b.svg", "b.svg is from its ending: .pb.gz, .pprof"),
            (
                "compare a.otlp b.otlp --output c.otlp",
                "cannot hold two profiles: use .svg or .html or .folded",
            ),
            ("compare a.otlp b.otlp --top x", "--top x"),
            ("load", "at least one object"),
            ("btf", "generate or minimize"),
            ("btf make", "generate or minimize"),
            ("btf generate --output x", "one file"),
            ("btf generate a b --output x", "one file"),
            ("btf generate a --btf b --output x", "`btf minimize`"),
            ("btf minimize a", "--output"),
        ] {
            let e = parse_line(line).unwrap_err();
            assert!(e.contains(part), "{line}: {e}");
        }
    }

    #[test]
    fn what_is_defined_is_read() {
        for command in &COMMANDS {
            let names: Vec<_> = command.options.iter().map(|option| option.name).collect();
            for option in command.options {
                let value = if option.value.is_empty() { "" } else { "5" };
                let line = format!("{} {} {value}", command.name, option.name);
                let error = parse_line(&line).err().unwrap_or_default();
                assert!(!error.contains(UNREAD), "{line}: {error}");
                assert!(
                    names.iter().filter(|name| **name == option.name).count() == 1,
                    "{line} is there twice"
                );
            }
            let help = parse_line(&format!("{} --help", command.name)).unwrap();
            let Command::Help(help) = help else { panic!("{help:?}") };
            assert!(names.iter().all(|name| help.contains(name)), "{help}");
            assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
        }
        assert!(help::overview().lines().all(|line| line.chars().count() <= 80));
    }

    /// An arm of a match for an option that no command has would be dead.
    #[test]
    fn what_is_read_is_defined() {
        let table =
            COMMANDS.iter().map(|command| command.name).find(|name| Table::of(name).is_some()).unwrap();
        for (commands, source) in [
            (&["btf"] as &[&str], include_str!("btf.rs")),
            (&["check"], include_str!("check.rs")),
            (&["compare"], include_str!("compare.rs")),
            (&["config"], include_str!("config.rs")),
            (&["inspect"], include_str!("inspect.rs")),
            (&["load"], include_str!("load.rs")),
            (&["profile"], include_str!("profile.rs")),
            (&["run", table], include_str!("run.rs")),
        ] {
            let mut arms = 0;
            let quoted = source
                .lines()
                .filter(|line| line.contains("=>"))
                .filter_map(|line| line.trim().strip_prefix('"'));
            for name in quoted.filter_map(|line| line.split('"').next()).filter(|name| !name.is_empty()) {
                arms += 1;
                let defined = |command: &&str| {
                    Definition::of(command).unwrap().options.iter().any(|option| option.name == name)
                };
                assert!(commands.iter().any(defined), "{commands:?} read {name}, which they do not define");
            }
            assert!(arms > 0, "{commands:?}");
        }
    }

    #[test]
    fn slips_are_told_from_strangers() {
        for (line, part) in [
            ("profile --durtion 3s", "did you mean \"--duration\"?"),
            ("check --josn", "did you mean \"--json\"?"),
            ("check --json=yes", "json"),
            ("profil", "did you mean \"profile\"?"),
            ("run -x", "-x"),
            ("completions", "bash, zsh or fish"),
            ("completions csh", "did you mean \"zsh\"?"),
            ("completions bash zsh", "one shell"),
        ] {
            let e = parse_line(line).unwrap_err();
            assert!(e.contains(part), "{line}: {e}");
        }
        assert_eq!(parse_line("completions fish"), Ok(Command::Completions(Shell::Fish)));
    }
}
