//! What the tracers of one kind found, as tables: `network`, `syscalls`, `memory`, `sched`, `disk`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use collector::agent::{Agent, Report};
use collector::export::config::{SharedAttributes, process_env};
use collector::model::Profile;
use collector::output::activity::{self, Context};
use collector::output::file::OutputFile;
use collector::output::names::clean;
use collector::output::terminal::Style;
use collector::output::{Format, OutputError};
use collector::telemetry::Recorder;
use collector::tracer::{Stats, TRACERS};

use super::super::args::Table;
use super::super::profile::write_file;
use super::super::{host_name, say};
use super::found::{Found, process_name};
use super::tables_json;

/// Rows of a table, and events after it.
const ROWS: usize = 20;
/// Most spans, and log records, that are kept until they are shown.
const MAX_EVENTS: usize = 100_000;
/// How often the kernel's tables are taken out while nobody asked to see them.
pub const COLLECT_EVERY: Duration = Duration::from_secs(5);

/// Everything that was found since it was shown last.
pub struct Tables {
    command: &'static str,
    json: bool,
    /// Whether every window is shown, and not all of them at the end.
    each_window: bool,
    pub found: Found,
    seconds: f64,
    /// Of the whole run, by what they count.
    profiles: BTreeMap<(&'static str, &'static str), Profile>,
    files: Vec<(PathBuf, Format, OutputFile)>,
    last: Report,
    /// Events that had to make room.
    left_out: usize,
}

impl Tables {
    /// Opens the files.
    pub fn open(table: &Table, each_window: bool) -> Result<Self, OutputError> {
        let file =
            |(path, format): &(PathBuf, Format)| Ok((path.clone(), *format, OutputFile::create(path)?));
        Ok(Self {
            command: table.command,
            json: table.json,
            each_window,
            found: Found::default(),
            seconds: 0.0,
            profiles: BTreeMap::new(),
            files: table.outputs.iter().map(file).collect::<Result<_, _>>()?,
            last: Report::default(),
            left_out: 0,
        })
    }

    pub fn end(&mut self, agent: &mut Agent) -> io::Result<()> {
        self.last = self.found.collect(agent);
        self.seconds += self.last.window.as_secs_f64();
        for profile in std::mem::take(&mut self.found.recorder.profiles) {
            let empty = || Profile {
                sample_type: profile.sample_type,
                period_nanos: profile.period_nanos,
                ..Profile::default()
            };
            self.profiles.entry(profile.sample_type.value).or_insert_with(empty).absorb(profile);
        }
        self.bound_events();
        if !self.each_window {
            return Ok(());
        }
        self.show()?;
        self.found.recorder = Recorder::default();
        self.seconds = 0.0;
        Ok(())
    }

    /// Runs may be long: what nobody will see goes at once, and the oldest of the rest when there is too much.
    fn bound_events(&mut self) {
        self.found.recorder.lifecycle.clear();
        if !self.json {
            self.found.recorder.spans.clear();
        }
        for events in [&mut self.found.recorder.spans, &mut self.found.recorder.logs] {
            let surplus = events.len().saturating_sub(MAX_EVENTS);
            events.drain(..surplus);
            self.left_out += surplus;
        }
    }

    /// Shows what is left, and writes the files; whether all of that worked.
    pub fn finish(mut self) -> io::Result<bool> {
        if !self.each_window {
            self.show()?;
        }
        let mut well = true;
        for (path, format, file) in std::mem::take(&mut self.files) {
            well &= self.write(&path, format, file);
        }
        Ok(well)
    }

    fn show(&self) -> io::Result<()> {
        let mut text = Vec::new();
        if self.json {
            tables_json::write(self.command, &self.found.recorder, self.seconds, &self.last, &mut text)?;
        } else {
            self.write_tables(&mut text)?;
        }
        // One write a window, whatever the terminal is.
        io::stdout().lock().write_all(&text)
    }

    fn write_tables(&self, out: &mut Vec<u8>) -> io::Result<()> {
        let style = Style::detect(&io::stdout(), process_env);
        let name = |pid: u32| process_name(&self.found.recorder, pid);
        let context = Context { seconds: self.seconds, limit: ROWS, style, process_name: &name };
        writeln!(out, "{} of {}, {:.1} s", self.command, host_name(), self.seconds)?;
        for tracer in &self.last.tracers {
            let Some(info) = TRACERS.iter().find(|info| info.name == tracer.name) else { continue };
            for view in info.views {
                activity::write(view, &self.found.recorder, &context, out)?;
            }
        }
        let events = &self.found.recorder.logs;
        if !events.is_empty() {
            writeln!(out, "\nEvents")?;
        }
        for event in events.iter().skip(events.len().saturating_sub(ROWS)) {
            writeln!(out, "  {}", clean(event.text.as_deref().unwrap_or(event.name)))?;
        }
        if events.len() > ROWS {
            writeln!(out, "(the last {ROWS} of {})", events.len())?;
        }
        let lost = |(name, stats): (&str, &Stats)| {
            let causes = stats.dropped.iter().filter(|(_, n)| *n > 0);
            causes.map(|(cause, n)| format!("{name}: {n} {cause}")).collect::<Vec<_>>()
        };
        let running = self.last.tracers.iter().map(|tracer| (tracer.name, &tracer.stats));
        let ended = self.last.ended.iter().map(|(name, stats)| (*name, stats));
        let mut lost: Vec<String> = running.chain(ended).flat_map(lost).collect();
        if self.left_out > 0 {
            lost.push(format!("{} events of before, which were not kept", self.left_out));
        }
        writeln!(out, "\nlost: {}", if lost.is_empty() { "nothing".to_owned() } else { lost.join("; ") })
    }

    /// Writes the first profile to a file; whether that worked.
    fn write(&self, path: &std::path::Path, format: Format, file: OutputFile) -> bool {
        let Some(profile) = self.profiles.values().next() else {
            say(format_args!("ebpf-otlp: {}: nothing was sampled", path.display()));
            return false;
        };
        match write_file(profile, &host_name(), &SharedAttributes::default(), format, file) {
            Ok(()) => {
                let (kind, unit) = profile.sample_type.value;
                say(format_args!("wrote {}: {kind} in {unit}", path.display()));
                true
            }
            Err(error) => {
                say(format_args!("ebpf-otlp: {error}"));
                false
            }
        }
    }
}
