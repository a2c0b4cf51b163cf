//! The lines that every picture and report begins with.

use std::fmt::Write;

use super::names::samples;
use crate::model::{Losses, Profile, SampleType};
use crate::tracer::profile::Walks;

const NANOS_PER_SECOND: f64 = 1e9;

/// Whether it is of time that threads waited.
pub(super) fn is_off_cpu(profile: &Profile) -> bool {
    // Others are not made without the feature.
    cfg!(feature = "unwind") && profile.sample_type == SampleType::OFF_CPU
}

/// `CPU profile of HOST, 10.0 s at 99 Hz`, or `off-CPU profile of HOST, 10.0 s`.
pub fn title(profile: &Profile, host: &str) -> String {
    let seconds = profile.duration_nanos as f64 / NANOS_PER_SECOND;
    if is_off_cpu(profile) {
        return format!("off-CPU profile of {host}, {seconds:.1} s");
    }
    let mut title = format!("CPU profile of {host}, {seconds:.1} s");
    if profile.period_nanos > 0 {
        let hertz = NANOS_PER_SECOND / profile.period_nanos as f64;
        // Only text is made here: writing to a String does not fail.
        let _ = write!(title, " at {hertz:.0} Hz");
    }
    title
}

/// `1980 samples, 20.00 s of CPU time`, or `20.00 s off the CPU`.
pub fn samples_line(profile: &Profile) -> String {
    let count = sample_count(profile);
    if is_off_cpu(profile) {
        return format!("{:.2} s off the CPU", cpu_seconds(profile, count));
    }
    format!("{count} samples, {:.2} s of CPU time", cpu_seconds(profile, count))
}

/// `lost: 0 of 1980 busy periods`, with the reasons where something was lost: of the samples taken and the periods lost,
/// which are the whole machine's, whatever a filter kept out.
pub fn losses_line(profile: &Profile) -> String {
    if is_off_cpu(profile) {
        let Losses { table_full, no_stack, .. } = profile.losses;
        return format!("lost: {table_full} waits that found no room, and the stacks of {no_stack}");
    }
    losses_among(sample_count(profile), &profile.losses)
}

/// As [`losses_line`], beside so many samples.
pub(super) fn losses_among(samples: u64, losses: &Losses) -> String {
    let lost = losses.skipped.saturating_add(losses.table_full);
    let expected = samples.saturating_add(lost);
    let mut line = format!("lost: {lost} of {expected} busy periods");
    if lost > 0 {
        let _ = write!(line, " ({:.1}%)", percent(lost, expected));
    }
    let reasons = [
        (losses.skipped, "skipped by the kernel"),
        (losses.table_full, "found the sample table full"),
        (losses.no_stack, "samples without a stack"),
        (losses.sideband, "sideband records lost (names may be missing)"),
    ];
    for (position, (count, reason)) in reasons.iter().filter(|(count, _)| *count > 0).enumerate() {
        let _ = write!(line, "{} {count} {reason}", if position == 0 { ":" } else { "," });
    }
    line
}

/// `stacks of processes: 99.6% of 1980 whole; 0.3% without a table, 0.1% deeper than 127 frames`.
pub fn walks_line(walks: &Walks) -> String {
    let total = walks.total();
    let mut line = format!("stacks of processes: {:.1}% of {total} whole", percent(walks.whole, total));
    let others = [
        (walks.no_table, "without a table"),
        (walks.bad_cfa, "by a wrong table"),
        (walks.depth, "deeper than 127 frames"),
        (walks.not_mapped, "to where no code is"),
        (walks.slice, "larger than what was copied"),
        (walks.lost, "found no room to be finished"),
        (walks.by_kernel, "by frame pointers"),
    ];
    for (position, (count, what)) in others.iter().filter(|(count, _)| *count > 0).enumerate() {
        let separator = if position == 0 { ';' } else { ',' };
        let _ = write!(line, "{separator} {:.1}% {what}", percent(*count, total));
    }
    line
}

/// Periods that became samples.
pub fn sample_count(profile: &Profile) -> u64 {
    samples(profile).fold(0, |sum, sample| sum.saturating_add(sample.count))
}

/// What a column of counts is headed by, which are numbers that [`column_count`] makes.
pub(super) fn count_heading(profile: &Profile) -> &'static str {
    if is_off_cpu(profile) { "     MS" } else { "SAMPLES" }
}

/// What a column of times is headed by.
pub(super) fn time_heading(profile: &Profile) -> &'static str {
    if is_off_cpu(profile) { " OFF CPU" } else { "CPU TIME" }
}

/// A count in a column: of samples, or of milliseconds off the CPU.
pub(super) fn column_count(profile: &Profile, count: u64) -> u64 {
    if is_off_cpu(profile) { count / 1_000_000 } else { count }
}

/// The CPU time that `count` samples stand for.
pub fn cpu_seconds(profile: &Profile, count: u64) -> f64 {
    count as f64 * profile.period_nanos as f64 / NANOS_PER_SECOND
}

/// `part` of `whole`, in percent; 0 of nothing.
pub fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::fixture::Fixture;

    #[test]
    fn says_where_when_and_how_much() {
        let mut fixture = Fixture::default();
        let process = fixture.process(1, "a", "/bin/a");
        fixture.sample(process, "main", 1980);
        let mut profile = fixture.finish();
        assert_eq!(title(&profile, "web-1"), "CPU profile of web-1, 10.0 s at 99 Hz");
        assert_eq!(samples_line(&profile), "1980 samples, 20.00 s of CPU time");
        assert_eq!(losses_line(&profile), "lost: 0 of 1980 busy periods");
        profile.losses = Losses { skipped: 15, table_full: 5, no_stack: 3, sideband: 2 };
        assert_eq!(
            losses_line(&profile),
            "lost: 20 of 2000 busy periods (1.0%): 15 skipped by the kernel, 5 found the sample table full, \
             3 samples without a stack, 2 sideband records lost (names may be missing)"
        );
    }

    #[test]
    #[cfg(feature = "unwind")]
    fn waits_are_times() {
        let mut fixture = Fixture::default();
        let process = fixture.process(1, "a", "/bin/a");
        fixture.sample(process, "main", 2_500_000_000);
        let losses = Losses { table_full: 2, no_stack: 1, ..Losses::default() };
        let sample_type = SampleType::OFF_CPU;
        let profile = Profile { sample_type, period_nanos: 1, losses, ..fixture.finish() };
        assert_eq!(title(&profile, "web-1"), "off-CPU profile of web-1, 10.0 s");
        assert_eq!(samples_line(&profile), "2.50 s off the CPU");
        assert_eq!(losses_line(&profile), "lost: 2 waits that found no room, and the stacks of 1");
    }

    #[test]
    fn nothing_is_not_divided_by() {
        assert_eq!(title(&Profile::default(), "h"), "CPU profile of h, 0.0 s");
        assert_eq!(losses_line(&Profile::default()), "lost: 0 of 0 busy periods");
        assert_eq!(percent(0, 0), 0.0);
    }
}
