//! What `run` prints at the end of every window: how much of everything there was, over the last windows too, and who it was.
//! Pure but for the order of the calls.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::time::Duration;

use super::activity::{self, number};
use super::names::Names;
use super::summary::{cpu_seconds, sample_count};
use super::table;
use super::terminal::{Paint, Style, cut_middle};
use crate::agent::Report;
use crate::model::{Profile, SampleType};
use crate::telemetry::{Column, Exponential, Instrument, Recorder, Show};
use crate::tracer::Info;

/// Windows that a sparkline shows.
const WINDOWS: usize = 24;
/// Rows of each table.
const ROWS: usize = 5;
/// Columns of what a sparkline is about.
const LABEL: usize = 42;
/// Heights of a sparkline.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The printer, with what it remembers of earlier windows.
#[derive(Debug)]
pub struct Live {
    host: String,
    history: BTreeMap<&'static str, VecDeque<f64>>,
    elapsed: Duration,
}

/// A number of the window, as it goes into a sparkline.
struct Trend {
    /// What it is of: a view's title, or `CPU`.
    title: &'static str,
    /// What is counted, beside that.
    what: String,
    value: f64,
    text: String,
}

impl Live {
    /// For the machine of this name.
    pub fn new(host: String) -> Self {
        Self { host, history: BTreeMap::new(), elapsed: Duration::ZERO }
    }

    /// Writes what was found in a window that has ended; `process_name` knows what to call processes.
    ///
    /// # Errors
    ///
    /// What `out` says.
    pub fn write(
        &mut self,
        report: &Report,
        recorder: &Recorder,
        tracers: &[&'static Info],
        process_name: &dyn Fn(u32) -> String,
        style: Style,
        out: &mut impl Write,
    ) -> io::Result<()> {
        self.elapsed += report.window;
        let seconds = report.window.as_secs_f64().max(1e-9);
        let head = format!(
            "{} after {} s: tracing costs {:.2} % of a core, {} of memory",
            self.host,
            self.elapsed.as_secs_f64().round(),
            report.cost * 100.0,
            number::bytes(report.memory() as f64)
        );
        writeln!(out, "{}", style.paint(Paint::Bold, cut_middle(&head, style.width)))?;
        let trends = trends(recorder, tracers, seconds);
        for trend in &trends {
            let line = self.line(trend, style);
            writeln!(out, "{line}")?;
        }
        for line in cautions(report) {
            writeln!(out, "{}", style.paint(Paint::Red, cut_middle(&line, style.width)))?;
        }
        for sample_type in [SampleType::CPU, SampleType::OFF_CPU] {
            // A window has several where the frequency was changed in it.
            let mut all = Profile::default();
            let profiles = recorder.profiles.iter().filter(|profile| profile.sample_type == sample_type);
            profiles.for_each(|profile| all.absorb(profile.clone()));
            if sample_count(&all) > 0 {
                table::processes(&all, &Names::of_processes(&all), ROWS, style, out)?;
            }
        }
        let context = activity::Context { seconds, limit: ROWS, style, process_name };
        for view in tracers.iter().flat_map(|info| info.views) {
            // Tables of nothing would hide the others.
            if trends.iter().any(|trend| trend.title == view.title && trend.value != 0.0) {
                activity::write(view, recorder, &context, out)?;
            }
        }
        writeln!(out)
    }

    fn line(&mut self, trend: &Trend, style: Style) -> String {
        let history = self.history.entry(trend.title).or_default();
        history.push_back(trend.value);
        if history.len() > WINDOWS {
            history.pop_front();
        }
        let label = label(trend);
        let label = cut_middle(&label, LABEL);
        let line = format!("{label:<LABEL$} {:>11}  {}", trend.text, sparkline(history));
        line.chars().take(style.width).collect()
    }
}

/// `Memory: minor`. How a table is divided is no part of what is in it.
fn label(trend: &Trend) -> String {
    let subject = trend.title.split(" by ").next().unwrap_or_default().trim_end_matches(',');
    let what = trend.what.to_lowercase();
    if subject.to_lowercase().contains(&what) { subject.to_owned() } else { format!("{subject}: {what}") }
}

/// One bar a window, as high as its share of the highest.
fn sparkline(values: &VecDeque<f64>) -> String {
    let highest = values.iter().copied().fold(0.0, f64::max);
    let bar = |value: &f64| {
        let share = if highest > 0.0 { value / highest } else { 0.0 };
        let height = (share * (BARS.len() - 1) as f64).round() as usize;
        BARS.get(height).or(BARS.last()).copied().unwrap_or(' ')
    };
    values.iter().map(bar).collect()
}

fn trends(recorder: &Recorder, tracers: &[&'static Info], seconds: f64) -> Vec<Trend> {
    let cpu = recorder.profiles.iter().filter(|profile| profile.sample_type == SampleType::CPU);
    let cores: f64 = cpu.map(|profile| cpu_seconds(profile, sample_count(profile))).sum::<f64>() / seconds;
    let mut trends = Vec::new();
    if tracers.iter().any(|info| info.telemetry.profiles.iter().any(|p| p.sample_type == SampleType::CPU)) {
        trends.push(Trend {
            title: "CPU",
            what: String::new(),
            value: cores,
            text: format!("{cores:.2} cores"),
        });
    }
    for view in tracers.iter().flat_map(|info| info.views) {
        let Some(column) = view.columns.first() else { continue };
        let (value, text) = total(column, recorder, seconds);
        // Rates are rates here whatever the table has.
        let what = column.heading.trim_end_matches("/S").to_owned();
        trends.push(Trend { title: view.title, what, value, text });
    }
    trends
}

/// The sum of a column over all its rows: a second, where it counts.
fn total(column: &Column, recorder: &Recorder, seconds: f64) -> (f64, String) {
    let numbers: f64 = recorder
        .numbers
        .iter()
        .filter(|(series, _)| column.takes(series))
        .map(|(_, n)| *n)
        .fold(0.0, |sum, n| sum + n);
    let histograms = || recorder.histograms.iter().filter(|(series, _)| column.takes(series)).map(|(_, h)| h);
    let rate = match column.metric.instrument {
        Instrument::UpDownCounter | Instrument::Gauge => {
            let text = match column.show {
                Show::Bytes | Show::ByteRate => number::bytes(numbers),
                _ => number::count(numbers),
            };
            return (numbers, text);
        }
        Instrument::Histogram if matches!(column.show, Show::Time) => {
            let rate = histograms().map(Exponential::sum_seconds).fold(0.0, |sum, n| sum + n) / seconds;
            return (
                rate,
                if rate > 0.0 { format!("{}/s", number::seconds(rate)) } else { "0/s".to_owned() },
            );
        }
        Instrument::Histogram => histograms().map(|h| h.count()).sum::<u64>() as f64 / seconds,
        Instrument::Counter => numbers / seconds,
    };
    let text = match column.show {
        Show::Bytes | Show::ByteRate => number::bytes(rate),
        // Small rates are no whole numbers.
        _ => number::count(if rate < 10.0 { (rate * 100.0).round() / 100.0 } else { rate.round() }),
    };
    (rate, format!("{text}/s"))
}

/// What the numbers of this window do not tell.
fn cautions(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    for tracer in &report.tracers {
        if tracer.coverage < 1.0 {
            lines.push(format!("{}: attached {:.1} % of the time", tracer.name, tracer.coverage * 100.0));
        }
        let dropped = tracer.stats.dropped.iter().filter(|(_, n)| *n > 0);
        let causes: Vec<String> = dropped.map(|(cause, n)| format!("{n} {cause}")).collect();
        if !causes.is_empty() {
            lines.push(format!("{}: missing since the start: {}", tracer.name, causes.join(", ")));
        }
    }
    lines.extend(report.failures.iter().map(|failure| format!("{}: {}", failure.name, failure.error)));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::TracerReport;
    use crate::telemetry::{Definitions, Metric, Owner, Point, PointValue, Sink, Subject, View};
    use crate::tracer::{Overhead, Stats};

    static CALLS: Metric = Metric {
        name: "test.calls",
        unit: "{call}",
        description: "Calls",
        instrument: Instrument::Counter,
        subject: Subject::Process,
        attributes: &[],
        source: "",
    };
    static VIEW: View = View {
        title: "CALLS",
        rows: "processes",
        by_process: true,
        by: &[],
        columns: &[Column { heading: "CALLS", metric: &CALLS, only: &[], show: Show::Rate }],
    };
    static INFO: Info = Info {
        name: "test",
        command: "test",
        about: "",
        telemetry: Definitions::NONE,
        views: &[&VIEW],
        ladders: &[],
        on_by_default: true,
        keys: &[],
        start: |_| Err(Box::new(crate::error::Error::Stopped)),
    };

    fn report(coverage: f64, dropped: u64) -> Report {
        let tracer = TracerReport {
            name: "test",
            coverage,
            one_in: 1,
            rungs: Vec::new(),
            stats: Stats { dropped: vec![("ring full", dropped)], ..Stats::default() },
            overhead: Overhead::default(),
            map_bytes: 0,
            cost: 0.0,
        };
        Report { window: Duration::from_secs(2), tracers: vec![tracer], cost: 0.0012, ..Report::default() }
    }

    fn show(live: &mut Live, report: &Report, calls: i64, style: Style) -> String {
        let mut recorder = Recorder::default();
        let owner = Owner::Process { pid: 7, comm: [0; 16] };
        if calls > 0 {
            recorder.point(Point { metric: &CALLS, owner, attributes: &[], value: PointValue::Int(calls) });
        }
        let mut out = Vec::new();
        let name = |pid: u32| format!("name{pid}\x1b[31mevil");
        live.write(report, &recorder, &[&INFO], &name, style, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn windows_make_sparklines() {
        let mut live = Live::new("host".to_owned());
        let style = Style::default();
        let quiet = show(&mut live, &report(1.0, 0), 0, style);
        assert!(quiet.contains("host after 2 s: tracing costs 0.12 % of a core"), "{quiet}");
        assert!(!quiet.contains("PROCESS"), "no table of nothing: {quiet}");
        show(&mut live, &report(1.0, 0), 100, style);
        let busy = show(&mut live, &report(1.0, 0), 200, style);
        assert!(busy.contains("100/s  ▁▅█\n"), "{busy}");
        assert!(busy.contains("host after 6 s") && busy.contains("       7 name7"), "{busy}");
        assert!(!busy.contains('\x1b'), "{busy:?}");
    }

    #[test]
    fn labels_say_what_is_counted() {
        let label = |title, what: &str| {
            label(&Trend { title, what: what.to_owned(), value: 0.0, text: String::new() })
        };
        assert_eq!(
            label("TCP connections that ended, by process and role", "ENDED"),
            "TCP connections that ended"
        );
        assert_eq!(label("Memory by process", "MINOR"), "Memory: minor");
        assert_eq!(label("Disks", "REQUEST"), "Disks: request");
        assert_eq!(label("CPU", ""), "CPU");
        for info in crate::tracer::TRACERS {
            for view in info.views {
                let what = view.columns[0].heading.trim_end_matches("/S");
                assert!(label(view.title, what).chars().count() <= LABEL, "{}", view.title);
            }
        }
    }

    #[test]
    fn nothing_missing_is_hidden_and_no_line_is_too_long() {
        for width in [40, 80, 200] {
            let mut live = Live::new("host".to_owned());
            for _ in 0..100 {
                let text = show(&mut live, &report(0.25, 12), 5, Style { width, color: false });
                assert!(text.contains("test: attached 25.0 %") && text.contains("12 ring full"), "{text}");
                assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
            }
            assert!(live.history.values().all(|values| values.len() <= WINDOWS));
        }
    }
}
