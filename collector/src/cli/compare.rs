//! `ebpf-otlp compare`: two profiles from files, without privileges.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::{error, fmt};

use collector::export::config::process_env;
use collector::model::FrameKind;
use collector::output::compare::{self, Change, Comparison, Named, Part};
use collector::output::file::OutputFile;
use collector::output::terminal::Style;
use collector::output::{Format, flamegraph, json, summary};
use collector::read::{MAX_BYTES, Recording, Source};
use serde::Serialize;

use super::args::Compare;
use super::summary_json::Lost;
use super::{CliResult, say};

/// Compares; true if every output was made.
pub fn run(options: &Compare) -> CliResult {
    let wanted = options.sample_type.as_deref();
    let (before, after) = (read(&options.before, wanted)?, read(&options.after, wanted)?);
    let [before_name, after_name] = names([&options.before.0, &options.after.0]);
    let comparison = Comparison::new(
        Named { name: &before_name, recording: &before },
        Named { name: &after_name, recording: &after },
    );
    for (path, format) in &options.outputs {
        let mut file = OutputFile::create(path)?;
        match write(&comparison, *format, &mut file) {
            Ok(()) => file.commit()?,
            Err(error) => return Err(file.write_error(error).into()),
        }
        say(format_args!("wrote {}: {}", path.display(), comparison.title()));
    }
    let mut out = io::stdout().lock();
    if options.json {
        json::write_line(&mut out, &report(&comparison, options.top))?;
    } else if options.outputs.is_empty() {
        let style = Style::detect(&io::stdout(), process_env);
        compare::write(&comparison, options.top, style, &mut out)?;
    }
    Ok(true)
}

fn write(comparison: &Comparison<'_>, format: Format, out: &mut OutputFile) -> io::Result<()> {
    match format {
        Format::Svg => flamegraph::write_difference(comparison, out),
        Format::Html => flamegraph::write_html_difference(comparison, out),
        Format::Folded => compare::write_folded(comparison, out),
        _ => Err(io::Error::other("the format holds one profile")),
    }
}

/// What the files are called in tables and pictures: by their paths only where their names are the same.
fn names(paths: [&Path; 2]) -> [String; 2] {
    let clean = |text: &OsStr| collector::output::names::clean(&text.to_string_lossy());
    let short = paths.map(|path| clean(path.file_name().unwrap_or(path.as_os_str())));
    let [before, after] = &short;
    if before == after { paths.map(|path| clean(path.as_os_str())) } else { short }
}

fn read((path, source): &(PathBuf, Source), wanted: Option<&str>) -> Result<Recording, CannotRead> {
    let cannot = |source: Box<dyn error::Error>| CannotRead { path: path.clone(), source };
    let mut bytes = Vec::new();
    // One more than is read, so that it is noticed.
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|error| cannot(error.into()))?;
    Recording::parse(&bytes, *source, wanted).map_err(|error| cannot(error.into()))
}

/// A file that cannot be compared.
#[derive(Debug)]
struct CannotRead {
    path: PathBuf,
    source: Box<dyn error::Error>,
}

impl fmt::Display for CannotRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot read {}", self.path.display())
    }
}

impl error::Error for CannotRead {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&*self.source)
    }
}

/// `--json`: one object, described in `docs/json.md`.
#[derive(Serialize)]
struct Report<'a> {
    before: Side<'a>,
    after: Side<'a>,
    alike: bool,
    functions: Vec<Function<'a>>,
}

#[derive(Serialize)]
struct Side<'a> {
    file: &'a str,
    sample_type: &'a str,
    unit: &'a str,
    other_sample_types: Vec<&'a str>,
    total: u64,
    cpu_seconds: Option<f64>,
    duration_seconds: Option<f64>,
    left_out: u64,
    cut_stacks: u64,
    lost: Lost,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    kind: Option<&'static str>,
    module: Option<&'a str>,
    before: Share,
    after: Share,
    own_change: f64,
    total_change: f64,
    own_may_be_chance: bool,
    total_may_be_chance: bool,
}

#[derive(Serialize)]
struct Share {
    own: u64,
    total: u64,
    own_share: f64,
    total_share: f64,
}

fn report<'a>(comparison: &'a Comparison<'a>, limit: usize) -> Report<'a> {
    Report {
        before: side(&comparison.before),
        after: side(&comparison.after),
        alike: comparison.is_alike(),
        functions: comparison.functions.iter().take(limit).map(function).collect(),
    }
}

fn side<'a>(of: &Named<'a>) -> Side<'a> {
    let Recording { profile, value, others, negative, cut } = of.recording;
    let total = summary::sample_count(profile);
    let known = |seconds: f64, is_known: bool| is_known.then_some(seconds);
    Side {
        file: of.name,
        sample_type: &value.kind,
        unit: &value.unit,
        other_sample_types: others.iter().map(|value| &*value.kind).collect(),
        total,
        cpu_seconds: known(summary::cpu_seconds(profile, total), profile.period_nanos > 0),
        duration_seconds: known(profile.duration_nanos as f64 / 1e9, profile.duration_nanos > 0),
        left_out: *negative,
        cut_stacks: *cut,
        lost: Lost::of(&profile.losses),
    }
}

fn function(change: &Change) -> Function<'_> {
    let share = |part: &Part| Share {
        own: part.own,
        total: part.total,
        own_share: part.own_share,
        total_share: part.total_share,
    };
    Function {
        name: &change.name,
        kind: change.kind.map(FrameKind::as_str),
        module: Some(&*change.module).filter(|module| !module.is_empty()),
        before: share(&change.before),
        after: share(&change.after),
        own_change: change.own(),
        total_change: change.total(),
        own_may_be_chance: change.own_may_be_chance,
        total_may_be_chance: change.total_may_be_chance,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_one_name_are_told_apart() {
        let of = |before: &str, after: &str| names([before, after].map(Path::new));
        assert_eq!(of("a/x.otlp", "b/y.otlp"), ["x.otlp", "y.otlp"]);
        assert_eq!(of("a/x.otlp", "b/x.otlp"), ["a/x.otlp", "b/x.otlp"]);
        assert_eq!(of("a/x\u{1b}.otlp", "y.otlp"), ["x?.otlp", "y.otlp"]);
    }
}
