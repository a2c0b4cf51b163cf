//! `profile --json`: one object, described in `docs/json.md`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Write};

use collector::export::stats::{DropReason, Stats};
#[cfg(feature = "unwind")]
use collector::model::ThreadIdx;
use collector::model::{FrameKind, Losses, Profile, SampleType};
use collector::output::{json, summary};
use collector::tracer;
use collector::tracer::profile::{Counters, Overhead};
use serde::Serialize;

/// Functions listed.
const MAX_FUNCTIONS: usize = 50;

#[derive(Serialize)]
struct Summary<'a> {
    sample_type: &'a str,
    unit: &'a str,
    start_unix_nanos: u64,
    duration_seconds: f64,
    frequency: f64,
    samples: u64,
    busy_seconds: f64,
    expected_periods: u64,
    program_runs: u64,
    idle_runs: u64,
    idle_slept_periods: u64,
    filtered_runs: u64,
    short_waits: u64,
    recursion_misses: u64,
    late_names: u64,
    children_lost: u64,
    lost: Lost,
    walks: Option<Walks>,
    processes: usize,
    threads: usize,
    in_spans: u64,
    stacks: usize,
    overhead: Cost,
    functions: Vec<Function<'a>>,
    wakers: Vec<Waker<'a>>,
    exports: Vec<Export<'a>>,
}

/// What became of profiles at one destination: one a process and request.
#[derive(Serialize)]
struct Export<'a> {
    destination: &'a str,
    recovered: u64,
    delivered: u64,
    rejected: u64,
    dropped: BTreeMap<&'static str, u64>,
    in_spool: u64,
    ambiguous: u64,
    delivered_requests: u64,
    retries: u64,
    possible_duplicates: u64,
    error: Option<&'a str>,
    message: Option<&'a str>,
    spool_error: Option<&'a str>,
}

#[derive(Serialize)]
pub(super) struct Lost {
    skipped: u64,
    table_full: u64,
    no_stack: u64,
    sideband: u64,
}

impl Lost {
    pub(super) fn of(losses: &Losses) -> Self {
        let Losses { skipped, table_full, no_stack, sideband } = *losses;
        Self { skipped, table_full, no_stack, sideband }
    }
}

#[derive(Serialize)]
struct Walks {
    whole: u64,
    no_table: u64,
    bad_cfa: u64,
    depth: u64,
    not_mapped: u64,
    slice: u64,
    lost: u64,
    by_kernel: u64,
    in_user_space: u64,
    later: u64,
    #[cfg(feature = "python")]
    python_unread: u64,
    pages: u64,
    evicted_pages: u64,
}

impl From<tracer::profile::Walks> for Walks {
    fn from(walks: tracer::profile::Walks) -> Self {
        Self {
            whole: walks.whole,
            no_table: walks.no_table,
            bad_cfa: walks.bad_cfa,
            depth: walks.depth,
            not_mapped: walks.not_mapped,
            slice: walks.slice,
            lost: walks.lost,
            by_kernel: walks.by_kernel,
            in_user_space: walks.in_user_space,
            later: walks.later,
            #[cfg(feature = "python")]
            python_unread: walks.python_unread,
            pages: walks.pages,
            evicted_pages: walks.evicted_pages,
        }
    }
}

#[derive(Serialize)]
struct Cost {
    cpu_share: f64,
    resident_bytes: u64,
    map_bytes: u64,
    event_latency_seconds: f64,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    kind: &'static str,
    /// Samples in which it was the leaf.
    own: u64,
    /// Samples in which it was anywhere on the stack.
    total: u64,
}

/// Who ends waits.
#[derive(Serialize)]
struct Waker<'a> {
    name: &'a str,
    total: u64,
}

/// Writes the summary of a profile.
///
/// # Errors
///
/// What `out` says.
pub fn write(
    profile: &Profile,
    counters: &Counters,
    overhead: &Overhead,
    sent: &[Stats],
    out: &mut impl Write,
) -> io::Result<()> {
    let samples = summary::sample_count(profile);
    let (sample_type, unit) = profile.sample_type.value;
    let is_cpu = profile.sample_type == SampleType::CPU && profile.period_nanos > 0;
    let summary = Summary {
        sample_type,
        unit,
        start_unix_nanos: profile.start_unix_nanos,
        duration_seconds: profile.duration_nanos as f64 / 1e9,
        frequency: if is_cpu { 1e9 / profile.period_nanos as f64 } else { 0.0 },
        samples,
        busy_seconds: summary::cpu_seconds(profile, samples),
        expected_periods: counters.expected_periods,
        program_runs: counters.runs,
        idle_runs: counters.idle,
        idle_slept_periods: counters.idle_slept,
        filtered_runs: counters.filtered,
        short_waits: counters.too_short,
        recursion_misses: counters.recursion_misses,
        late_names: counters.late_names,
        children_lost: counters.children_lost,
        lost: Lost::of(&profile.losses),
        walks: counters.walks.map(Walks::from),
        processes: profile.processes.len(),
        threads: profile.threads.iter().map(|thread| thread.tid).collect::<HashSet<_>>().len(),
        in_spans: in_spans(profile),
        stacks: profile.stacks.len(),
        overhead: Cost {
            cpu_share: overhead.cpu_share,
            resident_bytes: overhead.resident_bytes,
            map_bytes: overhead.map_bytes,
            event_latency_seconds: overhead.event_latency.as_secs_f64(),
        },
        functions: functions(profile),
        wakers: wakers(profile),
        exports: sent.iter().map(export).collect(),
    };
    json::write_line(out, &summary)
}

fn export(stats: &Stats) -> Export<'_> {
    let dropped = |reason: DropReason| stats.total(|signal| signal.dropped.get(reason)).items;
    Export {
        destination: &stats.name,
        recovered: stats.total(|signal| signal.recovered).items,
        delivered: stats.total(|signal| signal.delivered).items,
        rejected: stats.total(|signal| signal.rejected).items,
        dropped: DropReason::ALL.into_iter().map(|reason| (reason.name(), dropped(reason))).collect(),
        in_spool: stats.total(|signal| signal.in_spool).items,
        ambiguous: stats.total(|signal| signal.ambiguous).items,
        delivered_requests: stats.total(|signal| signal.delivered).requests,
        retries: stats.signals.iter().map(|(_, signal)| signal.retries).sum(),
        possible_duplicates: stats.possible_duplicates,
        error: stats.last_error.as_deref(),
        message: stats.last_message.as_deref(),
        spool_error: stats.spool_error.as_deref(),
    }
}

/// Samples whose thread said which span it works for.
#[cfg(feature = "unwind")]
fn in_spans(profile: &Profile) -> u64 {
    let of_span = |thread: ThreadIdx| {
        profile.threads.get(thread.0 as usize).is_some_and(|thread| thread.span.is_some())
    };
    profile.samples.iter().filter(|sample| of_span(sample.thread)).map(|sample| sample.count).sum()
}

#[cfg(not(feature = "unwind"))]
fn in_spans(_profile: &Profile) -> u64 {
    0
}

/// Who has ended most time of waits.
#[cfg(feature = "unwind")]
fn wakers(profile: &Profile) -> Vec<Waker<'_>> {
    let mut found: HashMap<&str, u64> = HashMap::new();
    for sample in &profile.samples {
        let thread = profile.threads.get(sample.thread.0 as usize);
        if let Some(waker) = thread.and_then(|thread| thread.woken_by.as_deref()) {
            *found.entry(waker).or_default() += sample.count;
        }
    }
    let mut wakers: Vec<_> = found.into_iter().map(|(name, total)| Waker { name, total }).collect();
    wakers.sort_by(|a, b| (b.total, a.name).cmp(&(a.total, b.name)));
    wakers.truncate(MAX_FUNCTIONS);
    wakers
}

#[cfg(not(feature = "unwind"))]
fn wakers(_profile: &Profile) -> Vec<Waker<'_>> {
    Vec::new()
}

/// The functions with most samples of their own, then with most in all.
fn functions(profile: &Profile) -> Vec<Function<'_>> {
    let mut found: HashMap<(&str, FrameKind), Function<'_>> = HashMap::new();
    for sample in &profile.samples {
        let stack = profile.stacks.get(sample.stack.0 as usize).map(Vec::as_slice).unwrap_or_default();
        let frames = stack.iter().filter_map(|f| profile.frames.get(f.0 as usize));
        let lines =
            frames.flat_map(|frame| frame.lines.iter().map(move |line| (&*line.function, frame.kind)));
        // Recursion counts once.
        let mut seen = Vec::new();
        for (depth, key) in lines.enumerate() {
            let entry =
                found.entry(key).or_insert(Function { name: key.0, kind: key.1.as_str(), own: 0, total: 0 });
            entry.own += if depth == 0 { sample.count } else { 0 };
            if !seen.contains(&key) {
                entry.total += sample.count;
                seen.push(key);
            }
        }
    }
    let mut functions: Vec<_> = found.into_values().collect();
    functions.sort_by(|a, b| (b.own, b.total, a.name).cmp(&(a.own, a.total, b.name)));
    functions.truncate(MAX_FUNCTIONS);
    functions
}
