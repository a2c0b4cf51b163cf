//! `ebpf-otlp load`: any BPF object, with the project's own loader.

mod keep;
mod report;

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use bpf_loader::kernel::RunningKernel;
use bpf_loader::load::{LoadOptions, Loaded, Pinning};
use bpf_loader::object::ObjectSpec;
use bpf_loader::object_file::{read_btf, read_object};
use bpf_loader::target::RunningTarget;
use bpf_sys::signal::Signals;
use collector::kernel_types::KernelTypes;
use collector::output::json;
use mio::{Events, Poll, Token};

use self::keep::Links;
use self::report::{ObjectReport, write_text};
use super::args::Load;
use super::{CliResult, SIGNALS_THAT_END, watch_signals};

/// Nothing is pinned.
const UNPINNED: LoadOptions<'static> = LoadOptions { pinning: Pinning::Ignored, reuse: Vec::new() };

/// Loads each object; true if all of all of them loaded, and was attached and pinned as far as that was asked for.
pub fn run(options: &Load) -> CliResult {
    // Before anything is attached: what is no BPF link must be undone.
    let signals = Signals::catch(if options.attach { &SIGNALS_THAT_END } else { &[] })?;
    // As root of a container, perhaps with a token.
    let kernel = RunningKernel::delegated(None)?;
    let mut loader = Loader { target: kernel.target(), kernel, options };
    if let Some(path) = &options.btf {
        // Of whatever kernel: who loads objects may try them with others' types.
        loader.target =
            loader.target.with_btf(read_btf(path).map_err(|e| format!("--btf {}: {e}", path.display()))?);
    } else if let KernelTypes::File(path) = KernelTypes::find(None)? {
        loader.target = loader.target.with_btf_file(&path);
    }
    let mut out = io::stdout().lock();
    let mut all = true;
    let mut links = Links::new();
    for path in &options.objects {
        let mut report = ObjectReport { object: path.display().to_string(), ..ObjectReport::default() };
        links.extend(loader.load(path, &mut report));
        report.judge();
        all &= report.ok;
        if let Some(failure) = report.failure() {
            eprintln!("ebpf-otlp: {failure}");
        }
        if options.json {
            json::write_line(&mut out, &report)?;
        } else {
            write_text(&report, &mut out)?;
        }
    }
    out.flush()?;
    // Pinned attachments need nobody to hold them.
    if options.attach && options.pin.is_none() && !links.is_empty() {
        if options.duration.is_none() {
            eprintln!("attached until interrupted");
        }
        wait(&signals, options.duration)?;
    }
    drop(links);
    Ok(all)
}

/// Until a signal, or the end of the duration.
fn wait(signals: &Signals, duration: Option<Duration>) -> io::Result<()> {
    let mut poll = Poll::new()?;
    watch_signals(poll.registry(), signals, Token(0))?;
    let end = duration.map(|d| Instant::now() + d);
    let mut events = Events::with_capacity(1);
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        match poll.poll(&mut events, left) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => other?,
        }
        if signals.take().is_some() || end.is_some_and(|end| Instant::now() >= end) {
            return Ok(());
        }
    }
}

/// What serves all objects.
struct Loader<'o> {
    kernel: RunningKernel,
    target: RunningTarget,
    options: &'o Load,
}

impl Loader<'_> {
    /// The attachments that must be kept.
    fn load(&self, path: &Path, report: &mut ObjectReport) -> Links {
        let mut links = Links::new();
        if let Err(error) = self.load_parts(path, report, &mut links) {
            report.error = Some(error.to_string());
        }
        links
    }

    fn load_parts(
        &self,
        path: &Path,
        report: &mut ObjectReport,
        links: &mut Links,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let bytes = read_object(path)?;
        let start = Instant::now();
        let spec = ObjectSpec::parse(&bytes)?;
        report.parse_us = start.elapsed().as_micros() as u64;
        report.describe_broken(&spec);
        let start = Instant::now();
        if self.options.per_program {
            let result = self.load_each(&spec, report);
            report.load_us = start.elapsed().as_micros() as u64;
            return Ok(result?);
        }
        let loaded = self.load_all(&spec);
        report.load_us = start.elapsed().as_micros() as u64;
        let loaded = loaded?;
        report.describe(&spec, &loaded);
        report.describe_left_out(&spec);
        let object = loaded.into_partial_object();
        if self.options.attach {
            *links = keep::attach(&object, report);
        }
        if let Some(directory) = &self.options.pin {
            keep::pin(&object, links, directory, report);
        }
        Ok(())
    }

    fn load_all(&self, spec: &ObjectSpec<'_>) -> bpf_loader::Result<Loaded> {
        let maps = self.options.pin.as_deref().map(keep::maps_directory);
        let pinning = maps.as_deref().map_or(UNPINNED.pinning, Pinning::Directory);
        spec.plan(&self.target)?.load_with(&self.kernel, &LoadOptions { pinning, ..UNPINNED })
    }

    /// Each program with maps of its own, let go before the next: the maps of one must not help another, nor be in its way,
    /// as arenas at a fixed address would.
    fn load_each(&self, spec: &ObjectSpec<'_>, report: &mut ObjectReport) -> bpf_loader::Result<()> {
        // Maps first, since not every map has a program that is loaded.
        let maps = spec.plan_programs(&self.target, |_| false)?;
        report.describe(spec, &maps.load_with(&self.kernel, &UNPINNED)?);
        drop(maps);
        for program in &spec.programs {
            let plan = spec.plan_programs(&self.target, |p| p.name == program.name)?;
            report.describe(spec, &plan.load_with(&self.kernel, &UNPINNED)?);
        }
        Ok(())
    }
}
