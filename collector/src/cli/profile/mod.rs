//! `ebpf-otlp profile`.

mod collected;

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use bpf_loader::target::RunningTarget;
use bpf_sys::signal::{self, Signals};
use collector::convert::profiles::{DEFAULT_MAX_REQUEST, ProfilesEncoder};
use collector::export::config::{AgentResource, LogLevel, SharedAttributes, process_env};
use collector::export::{ExportConfig, Signal};
use collector::kernel_types::KernelTypes;
use collector::model::Profile;
use collector::output::file::OutputFile;
use collector::output::progress::Progress;
use collector::output::terminal::{Style, terminal_width};
use collector::output::timeline::Timeline;
use collector::output::{Format, OutputError, flamegraph, folded, summary, table};
use collector::symbolize::Debuginfod;
use collector::tracer::profile::{Counters, FIRST_FOREIGN_TOKEN, Session};
use mio::Token;

use self::collected::{Collected, TopView};
use super::args::Profile as Options;
use super::features::Missing;
use super::send::{Spool, random_id};
use super::send_profiles::ProfileSender;
use super::summary_json;
use super::{
    CliResult, SIGNALS_THAT_END, host_name, is_broken_pipe, one_line, say, say_at, says, watch_signals,
};

/// Bytes of maps for waits: threads are as many as processes like.
#[cfg(feature = "unwind")]
const OFF_CPU_BYTES: usize = 16 << 20;
const SIGNAL_TOKEN: Token = Token(FIRST_FOREIGN_TOKEN);
/// Windows for what shows time.
const SECOND: Duration = Duration::from_secs(1);
/// How often the progress line is drawn again.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// Samples until the end of the duration or a signal; true if every output was made.
pub fn run(options: &Options) -> CliResult {
    if options.spool.is_some() && !cfg!(feature = "spool") {
        return Err(Missing { what: "the queue on disk of --spool", feature: "spool" }.into());
    }
    let export = ExportConfig::resolve(&[Signal::Profiles], &options.endpoints, &process_env)?;
    let (_, level_warnings) = LogLevel::from_env(&process_env);
    let (resource, resource_warnings) = AgentResource::from_env(&process_env, "ebpf-otlp", random_id());
    for warning in [&export.warnings, &level_warnings, &resource_warnings].into_iter().flatten() {
        say_at(LogLevel::Warn, warning);
    }
    // Before anything is sampled: what cannot be written is known now.
    let files = options.outputs.iter().map(|(path, format)| Ok((path, *format, OutputFile::create(path)?)));
    let files = files.collect::<Result<Vec<_>, collector::output::OutputError>>()?;
    // Before the session, so that no signal finds the default action any more. Once sampling is over, a signal ends the
    // program: the receiver may keep it waiting.
    super::allow_open_files();
    let signals = Signals::catch(&SIGNALS_THAT_END)?;
    // A file at the limit of sizes is an error like any other, and ends nothing.
    signal::ignore(signal::Signal::XFSZ)?;
    #[cfg(feature = "debuginfod")]
    let servers = super::debuginfod::open(&options.debuginfod, None, None)?;
    #[cfg(not(feature = "debuginfod"))]
    let servers = None;
    let target = KernelTypes::find(options.btf.as_deref())?.target();
    let mut session = start(options, &target)?;
    session.fetch_debug_files_with(servers.as_ref())?;
    // The kernel's types take some memory.
    drop(target);
    for refused in session.refused_stacks() {
        let way = session.stacks().as_str();
        say_at(
            LogLevel::Warn,
            format_args!("stacks of processes by {way}; not by {}: {}", refused.rung, refused.reason),
        );
    }
    watch_signals(session.registry(), &signals, SIGNAL_TOKEN)?;

    let exports = !export.sinks.is_empty();
    let spool = options.spool.as_deref().map(|dir| Spool {
        dir,
        max_bytes: options.spool_size,
        delay: options.spool_delay,
    });
    if spool.is_some() && !exports {
        say_at(LogLevel::Warn, "ignoring --spool: nothing is exported");
    }
    let sender = || ProfileSender::start(&export.sinks, spool, resource.shared().clone());
    let sender = exports.then(sender).transpose()?;
    let keep = !files.is_empty() || sender.is_none() || options.json;
    let host = host_name();
    let pages = files.iter().any(|(_, format, _)| *format == Format::Html);
    let top = options.top.then(|| TopView::new(host.clone()));
    let mut collected = Collected::new(sender, keep, pages.then(Timeline::default), top);
    let mut problems = Problems::default();
    problems.note(sample(options, &mut session, &signals, servers.as_ref(), &mut collected));
    signals.end_process_at(&SIGNALS_THAT_END, 1);
    let counters = session.counters().unwrap_or_default();
    let overhead = session.overhead();
    // Detach before the slow part.
    drop(session);

    // Whatever fails, the rest is still written and sent.
    let (whole, sender, timeline) = collected.finish();
    let show_table = files.is_empty() && sender.is_none() && !options.json;
    for (path, format, file) in files {
        let written = match &timeline {
            Some(timeline) if format == Format::Html => write_page(&whole, &host, timeline, file),
            _ => write_file(&whole, &host, resource.shared(), format, file),
        };
        match written {
            Ok(()) => say(format_args!(
                "wrote {}: {}; {}",
                path.display(),
                summary::samples_line(&whole),
                summary::losses_line(&whole)
            )),
            Err(e) => problems.note::<()>(Err(e.into())),
        }
    }
    if let Some(walks) = counters.walks.filter(|walks| walks.total() > 0 && says(LogLevel::Info)) {
        say(summary::walks_line(&walks));
    }
    #[cfg(feature = "debuginfod")]
    servers.iter().for_each(super::debuginfod::tell);
    if counters.late_names > 0 {
        let late = counters.late_names;
        say_at(
            LogLevel::Warn,
            format_args!("{late} addresses have no names: looking for them took too long"),
        );
    }
    if counters.children_lost > 0 {
        let lost = counters.children_lost;
        say_at(
            LogLevel::Warn,
            format_args!("{lost} child processes could not be followed: too many at once"),
        );
    }
    let sent = sender.map(ProfileSender::finish);
    if let Some(sent) = &sent {
        sent.errors().iter().for_each(|error| say_at(LogLevel::Error, error));
        sent.summaries().iter().filter(|_| says(LogLevel::Info)).for_each(say);
        problems.any |= !sent.is_complete();
    }
    let mut out = io::stdout().lock();
    if options.json {
        let sent = sent.as_ref().map(|sent| &*sent.destinations).unwrap_or_default();
        problems.note(summary_json::write(&whole, &counters, &overhead, sent, &mut out).map_err(Into::into));
    } else if show_table {
        let style = Style::detect(&io::stdout(), process_env);
        problems
            .note(table::write(&whole, &host, table::Limits::default(), style, &mut out).map_err(Into::into));
    }
    Ok(!problems.any)
}

/// Begins to sample CPU time, or waits.
fn start(options: &Options, target: &RunningTarget) -> Result<Session, Box<dyn std::error::Error>> {
    let config = options.config.clone();
    let Some(least) = options.off_cpu else {
        return Ok(Session::start_within(config, usize::MAX, target)?);
    };
    #[cfg(feature = "unwind")]
    return Ok(Session::start_off_cpu(config, least, OFF_CPU_BYTES, target)?);
    #[cfg(not(feature = "unwind"))]
    {
        let _ = least;
        Err(Missing { what: "off-CPU profiles", feature: "unwind" }.into())
    }
}

/// What went wrong so far; reported as it happens.
#[derive(Default)]
struct Problems {
    any: bool,
}

impl Problems {
    fn note<T>(&mut self, result: Result<T, Box<dyn std::error::Error>>) {
        let Err(error) = result else { return };
        // Whoever read our output has enough of it, which is no failure.
        if !is_broken_pipe(&*error) {
            say_at(LogLevel::Error, one_line(&*error));
            self.any = true;
        }
    }
}

/// Says what goes wrong with sending: the end, which tells all, may be far.
fn tell(collected: &mut Collected, display: &mut Display) {
    for line in collected.sender.iter_mut().flat_map(ProfileSender::news) {
        display.erase();
        collected.top.iter_mut().for_each(TopView::keep);
        say_at(LogLevel::Error, line);
    }
}

fn sample(
    options: &Options,
    session: &mut Session,
    signals: &Signals,
    servers: Option<&Debuginfod>,
    collected: &mut Collected,
) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let end = options.duration.map(|d| start + d);
    let mut window_end = collected.sender.is_some().then(|| start + options.config.window);
    let mut second = collected.is_by_second().then(|| start + SECOND);
    let mut display = if collected.top.is_some() { Display::none() } else { Display::new(options.duration) };
    loop {
        let next = [end, window_end, second, display.next(start)].into_iter().flatten().min();
        let foreign =
            session.poll(next.unwrap_or(start + Duration::from_secs(3600).max(start.elapsed() * 2)))?;
        session.named().into_iter().try_for_each(|window| collected.take(window))?;
        let interrupted = foreign.contains(&SIGNAL_TOKEN) && signals.take().is_some();
        let now = Instant::now();
        if interrupted || session.is_exhausted() || end.is_some_and(|end| now >= end) {
            display.erase();
            // Naming is no part of what was asked for.
            session.pause()?;
            #[cfg(feature = "debuginfod")]
            // Who ends it with a signal does not want to wait.
            if let Some(servers) = servers.filter(|_| !interrupted) {
                super::debuginfod::wait(servers, session, signals)?;
            }
            #[cfg(not(feature = "debuginfod"))]
            let _ = servers;
            session.end_window()?;
            let shown = session.settle(None)?.into_iter().try_for_each(|window| collected.take(window));
            collected.send();
            return Ok(shown?);
        }
        if let Some(at) = second.filter(|&at| now >= at) {
            session.end_window()?;
            second = Some((at + SECOND).max(Instant::now()));
        }
        if let Some(at) = window_end.filter(|&at| now >= at) {
            tell(collected, &mut display);
            if second.is_none() {
                session.end_window()?;
            }
            // What has no names yet goes with the next ones.
            collected.send();
            window_end = Some((at + options.config.window).max(Instant::now()));
        }
        display.draw(start.elapsed(), session)?;
    }
}

/// The progress line, where standard error is a terminal.
struct Display {
    progress: Option<Progress>,
    drawn: u32,
}

impl Display {
    fn none() -> Self {
        Self { progress: None, drawn: 0 }
    }

    fn new(total: Option<Duration>) -> Self {
        let stderr = io::stderr();
        let width = terminal_width(&stderr).filter(|_| stderr.is_terminal());
        Self { progress: width.map(|width| Progress::new(total, width)), drawn: 0 }
    }

    fn next(&self, start: Instant) -> Option<Instant> {
        self.progress.as_ref().map(|_| start + PROGRESS_INTERVAL * (self.drawn + 1))
    }

    fn draw(&mut self, elapsed: Duration, session: &mut Session) -> collector::error::Result<()> {
        let Some(progress) = &mut self.progress else { return Ok(()) };
        let due = PROGRESS_INTERVAL * (self.drawn + 1);
        if elapsed < due {
            return Ok(());
        }
        self.drawn = (elapsed.as_millis() / PROGRESS_INTERVAL.as_millis()) as u32;
        let Counters { samples, losses, .. } = session.counters()?;
        if let Some(text) = progress.update(elapsed, samples, losses.skipped + losses.table_full) {
            // A terminal that is gone is no reason to stop sampling.
            let _ = io::stderr().write_all(text.as_bytes());
        }
        Ok(())
    }

    fn erase(&mut self) {
        if let Some(text) = self.progress.as_mut().and_then(Progress::finish) {
            let _ = io::stderr().write_all(text.as_bytes());
        }
    }
}

fn write_page(
    profile: &Profile,
    host: &str,
    timeline: &Timeline,
    mut file: OutputFile,
) -> Result<(), OutputError> {
    match flamegraph::write_over_time(profile, host, timeline, &mut file) {
        Ok(()) => file.commit(),
        Err(e) => Err(file.write_error(e)),
    }
}

pub fn write_file(
    profile: &Profile,
    host: &str,
    attributes: &SharedAttributes,
    format: Format,
    mut file: OutputFile,
) -> Result<(), OutputError> {
    match write_format(profile, host, attributes, format, &mut file) {
        Ok(()) => file.commit(),
        Err(e) => Err(file.write_error(e)),
    }
}

fn write_format(
    profile: &Profile,
    host: &str,
    attributes: &SharedAttributes,
    format: Format,
    out: &mut OutputFile,
) -> io::Result<()> {
    match format {
        Format::Svg if cfg!(feature = "pictures") => flamegraph::write(profile, host, out),
        Format::Html if cfg!(feature = "pictures") => flamegraph::write_html(profile, host, out),
        Format::Folded if cfg!(feature = "pictures") => folded::write(profile, out),
        #[cfg(feature = "pictures")]
        Format::Pprof => collector::convert::pprof::write(profile, out).map_err(|e| match e {
            collector::convert::Error::Write(e) => e,
            other => io::Error::other(other),
        }),
        Format::Otlp => write_one_request(profile, attributes, usize::MAX, out),
        Format::OtlpJsonLines => write_requests(profile, attributes, DEFAULT_MAX_REQUEST, |request| {
            let mut line = String::new();
            let descriptor = otlp_encode::profiles::ExportProfilesServiceRequest::descriptor();
            otlp_encode::json::transcode(descriptor, request, &mut line).map_err(io::Error::other)?;
            line.push('\n');
            out.write_all(line.as_bytes())
        }),
        _ => Err(io::Error::other("this build has no such files (feature `pictures`)")),
    }
}

/// Two requests one after the other would read as one, with indices into the wrong tables: a file holds one.
fn write_one_request(
    profile: &Profile,
    attributes: &SharedAttributes,
    limit: usize,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut requests = 0;
    write_requests(profile, attributes, limit, |request| {
        requests += 1;
        if requests > 1 {
            return Err(io::Error::other(
                "the profile takes more than one request of 64 MiB, and .otlp holds one: use .jsonl",
            ));
        }
        out.write_all(request)
    })
}

fn write_requests(
    profile: &Profile,
    attributes: &SharedAttributes,
    limit: usize,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let id = random_id();
    let mut result = Ok(());
    let mut encoder = ProfilesEncoder::new(id as u64, limit).with_attributes(attributes.clone());
    let encoded = encoder.encode(profile, id.to_be_bytes(), |request, _| {
        if result.is_ok() {
            result = each(request);
        }
    });
    encoded.map_err(io::Error::other)?;
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use collector::model::{Process, ProcessIdx, Sample, StackIdx, Thread, ThreadIdx};

    #[test]
    fn a_file_never_holds_two_requests() {
        let sample = Sample { process: ProcessIdx(0), thread: ThreadIdx(0), stack: StackIdx(0), count: 1 };
        let mut profile = Profile {
            processes: vec![Process { pid: 7, ..Process::default() }],
            threads: vec![Thread::new(7, "main")],
            stacks: vec![Vec::new()],
            samples: vec![sample],
            ..Profile::default()
        };
        // A request has one sample at least, whatever the limit is.
        let write = |profile: &Profile, limit| {
            write_one_request(profile, &SharedAttributes::default(), limit, &mut io::sink())
        };
        assert!(write(&profile, 1).is_ok());
        profile.samples.push(sample);
        assert!(write(&profile, usize::MAX).is_ok());
        assert!(write(&profile, 1).unwrap_err().to_string().ends_with("use .jsonl"));
    }
}
