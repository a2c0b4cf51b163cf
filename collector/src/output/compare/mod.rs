//! Two profiles side by side: which functions take more of the time than before, and which less.
//!
//! Everything is compared by shares of each profile's total, so that runs of different length compare. Functions of one name
//! are one, whatever file they are in: two builds of a program are two files.

mod folded;
mod table;

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

pub use folded::write as write_folded;
pub use table::write;

use super::costs::{Cost, Costs};
use super::names::{Names, samples};
use super::tree::{Builder, Side, Tree};
use super::{activity::number, summary};
use crate::model::{FrameKind, Profile};
use crate::read::Recording;

/// What a recording is called, and what it holds.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    /// As the user calls it.
    pub name: &'a str,
    /// Its profile.
    pub recording: &'a Recording,
}

/// Samples of a function in one profile.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Part {
    /// Samples that ended in it.
    pub own: u64,
    /// Samples with it anywhere on the stack.
    pub total: u64,
    /// The share of all samples that ended in it.
    pub own_share: f64,
    /// The share of all samples with it anywhere on the stack.
    pub total_share: f64,
}

/// A function of one or both profiles.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// What it is called.
    pub name: Arc<str>,
    /// What code it is; `None` of samples without a stack.
    pub kind: Option<FrameKind>,
    /// Short name of its file.
    pub module: Arc<str>,
    /// Then.
    pub before: Part,
    /// Now.
    pub after: Part,
    /// Whether chance alone may make its own share differ as much.
    pub own_may_be_chance: bool,
    /// The same of its total.
    pub total_may_be_chance: bool,
}

impl Change {
    /// What came to its own share.
    pub fn own(&self) -> f64 {
        self.after.own_share - self.before.own_share
    }

    /// What came to its total.
    pub fn total(&self) -> f64 {
        self.after.total_share - self.before.total_share
    }
}

/// Two profiles, and every function of them.
#[derive(Debug, Clone)]
pub struct Comparison<'a> {
    /// Then.
    pub before: Named<'a>,
    /// Now.
    pub after: Named<'a>,
    /// Functions that samples ended in, the greatest change of that first.
    pub functions: Vec<Change>,
}

impl<'a> Comparison<'a> {
    /// Compares.
    pub fn new(before: Named<'a>, after: Named<'a>) -> Self {
        let costs = |of: &Profile| {
            let mut costs = Costs::by_name();
            costs.add(of, &Names::new(of));
            costs
        };
        let (then, now) = (costs(&before.recording.profile), costs(&after.recording.profile));
        let chance = Chance::of(&before, &after);
        let change = |name: &Arc<str>, of_before: Option<&Cost>, of_after: Option<&Cost>| {
            let any = of_after.or(of_before);
            let (before, after) = (part(of_before, then.total()), part(of_after, now.total()));
            Change {
                name: name.clone(),
                kind: any.and_then(|cost| cost.kind),
                module: any.map(|cost| cost.module.clone()).unwrap_or_default(),
                before,
                after,
                own_may_be_chance: chance.is_enough_for(before.own, after.own),
                total_may_be_chance: chance.is_enough_for(before.total, after.total),
            }
        };
        let of_now = now.iter().map(|(key, cost)| change(&key.name, then.get(key), Some(cost)));
        let gone = then.iter().filter(|(key, _)| now.get(key).is_none());
        let of_then = gone.map(|(key, cost)| change(&key.name, Some(cost), None));
        let mut functions: Vec<Change> = of_now.chain(of_then).collect();
        functions.retain(|change| change.before.own > 0 || change.after.own > 0);
        functions.sort_unstable_by(|a, b| {
            let size = |change: &Change| (change.own().abs(), change.total().abs(), change.after.own_share);
            size(b).partial_cmp(&size(a)).unwrap_or(Ordering::Equal).then_with(|| a.name.cmp(&b.name))
        });
        Self { before, after, functions }
    }

    /// Whether both count the same, so that their shares say something about each other.
    pub fn is_alike(&self) -> bool {
        let (before, after) = (&self.before.recording.value, &self.after.recording.value);
        let is_time = |of: &Named<'_>| of.recording.profile.period_nanos > 0;
        // Folded stacks do not say what of.
        let fits = |a: &str, b: &str| a == b || a.is_empty() || b.is_empty();
        let same = before.kind == after.kind && before.unit == after.unit && fits(&before.per, &after.per);
        let folded =
            |of: &Named<'_>| of.recording.value.kind == "samples" && of.recording.value.per.is_empty();
        let (b, a) = (&self.before, &self.after);
        same || (is_time(b) || folded(b)) && (is_time(a) || folded(a))
    }

    /// `before.pb.gz compared with after.pb.gz`, as a title.
    pub fn title(&self) -> String {
        format!("{} compared with {}", self.after.name, self.before.name)
    }

    /// The tree of both.
    pub(super) fn tree(&self) -> Tree {
        let (before, after) = (&self.before.recording.profile, &self.after.recording.profile);
        let (then, now) = (Names::new(before), Names::new(after));
        let mut builder = Builder::default();
        builder.all_of_a_name = true;
        // A program's two builds may have two names.
        let mut names = [(before, &then), (after, &now)].map(|(profile, names)| {
            samples(profile).map(|sample| names.process(sample.process)).collect::<BTreeSet<_>>()
        });
        if names.iter().all(|names| names.len() == 1) {
            let [_, of_now] = &mut names;
            builder.process = of_now.pop_first();
        }
        builder.add(before, &then, Side::Before);
        builder.add(after, &now, Side::Now);
        builder.finish()
    }
}

fn part(cost: Option<&Cost>, all: u64) -> Part {
    let Some(Cost { own, total, .. }) = cost else { return Part::default() };
    let share = |samples: u64| summary::percent(samples, all) / 100.0;
    Part { own: *own, total: *total, own_share: share(*own), total_share: share(*total) }
}

/// How much may differ by chance, of samples that were taken independently of each other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chance {
    before: f64,
    after: f64,
    /// Of values that count no samples, nothing is known.
    is_known: bool,
}

impl Chance {
    /// Standard deviations that 1 of 20 pairs exceeds, at most, without any change.
    const LIMIT: f64 = 1.96;

    pub fn of(before: &Named<'_>, after: &Named<'_>) -> Self {
        let count = |of: &Named<'_>| summary::sample_count(&of.recording.profile) as f64;
        let counts_samples = |of: &Named<'_>| of.recording.value.kind == "samples";
        Self {
            before: count(before),
            after: count(after),
            is_known: counts_samples(before) && counts_samples(after),
        }
    }

    /// Whether two shares of one probability may well be so many samples each (the test of two proportions).
    pub fn is_enough_for(&self, before: u64, after: u64) -> bool {
        if !self.is_known || self.before == 0.0 || self.after == 0.0 {
            return false;
        }
        let (before, after) = (before as f64, after as f64);
        let pooled = (before + after) / (self.before + self.after);
        let deviation = (pooled * (1.0 - pooled) * (1.0 / self.before + 1.0 / self.after)).sqrt();
        let difference = (after / self.after - before / self.before).abs();
        // Counts are whole: the correction for continuity, without which a few samples would seem to say much.
        difference - 0.5 / self.after - 0.5 / self.before <= Self::LIMIT * deviation
    }
}

/// `148 samples, 1.48 s of CPU time in 1.6 s`.
pub fn amount(recording: &Recording) -> String {
    let profile = &recording.profile;
    let count = summary::sample_count(profile);
    let time = summary::cpu_seconds(profile, count);
    let value = &recording.value;
    let mut text = match (&*value.kind, &*value.unit) {
        ("samples", "count" | "") if profile.period_nanos > 0 => summary::samples_line(profile),
        ("samples", "count" | "") => format!("{count} {value}"),
        _ if profile.period_nanos > 0 => format!("{time:.2} s of {}", value.kind),
        (_, "bytes") => format!("{} of {}", number::bytes(count as f64), value.kind),
        (kind, _) => format!("{} {kind}", number::count(count as f64)),
    };
    if profile.duration_nanos > 0 {
        text += &format!(" in {:.1} s", profile.duration_nanos as f64 / 1e9);
    }
    text
}

/// What a recording lacks, if anything; a line each.
pub fn cautions(recording: &Recording) -> Vec<String> {
    let mut lines = Vec::new();
    let losses = &recording.profile.losses;
    if *losses != crate::model::Losses::default() {
        lines.push(summary::losses_line(&recording.profile));
    }
    if recording.negative > 0 {
        lines.push(format!("{} samples with negative values are left out", recording.negative));
    }
    if recording.cut > 0 {
        lines.push(format!("{} stacks are cut to 1024 frames", recording.cut));
    }
    lines
}

#[cfg(test)]
mod tests;
