//! The report on a heap: which stacks hold most.

use std::collections::HashMap;
use std::io::{self, Write};

use super::names::{NO_STACK, Names, samples};
use super::summary::percent;
use super::terminal::{Paint, Style, cut_middle};
use crate::model::{ProcessIdx, Profile, StackIdx};

/// Columns before the stack.
const FIXED: usize = 31;
/// Callers of a stack that are shown.
const MAX_CALLS: usize = 32;

/// Writes the stacks that hold most, of a profile in bytes and the profile of the same window in numbers of allocations.
///
/// No line is longer than the style's width, and what was lost is always said.
///
/// # Errors
///
/// What `out` says.
pub fn write(
    bytes: &Profile,
    counts: &Profile,
    limit: usize,
    style: Style,
    out: &mut impl Write,
) -> io::Result<()> {
    let names = Names::new(bytes);
    let mut rows: Vec<(u64, ProcessIdx, StackIdx)> =
        samples(bytes).map(|sample| (sample.count, sample.process, sample.stack)).collect();
    rows.sort_unstable_by_key(|(held, process, stack)| (std::cmp::Reverse(*held), *process, *stack));
    let counts = by_calls(counts);
    let total = rows.iter().fold(0u64, |sum, (held, ..)| sum.saturating_add(*held));
    let number: u64 = counts.values().fold(0, |sum, count| sum.saturating_add(*count));
    let title = format!("{} not freed, in {number} allocations", size(total));
    writeln!(out, "{}", style.paint(Paint::Bold, cut_middle(&title, style.width)))?;
    let lost = bytes.losses.table_full;
    if lost > 0 {
        let text = cut_middle(&format!("lost: {lost} allocations found the table full"), style.width);
        writeln!(out, "{}", style.paint(Paint::Red, text))?;
    } else {
        writeln!(out, "lost: 0 allocations")?;
    }
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{}", style.paint(Paint::Bold, " SHARE       BYTES ALLOCATIONS  STACK"))?;
    for (held, process, stack) in rows.iter().take(limit) {
        let calls: Vec<String> =
            names.leaf_first(*stack).take(MAX_CALLS).map(|call| call.name.to_string()).collect();
        let count = counts.get(&(bytes_pid(bytes, *process), calls.clone()));
        let count = count.map_or_else(|| "-".to_owned(), u64::to_string);
        let room = style.width.saturating_sub(FIXED);
        let mut calls = calls.iter();
        let first = calls.next().map_or(NO_STACK, String::as_str);
        let share = percent(*held, total);
        writeln!(out, "{share:>5.1}% {:>11} {count:>11}  {}", size(*held), cut_middle(first, room))?;
        for call in calls {
            let (indent, room) = (FIXED + 2, style.width.saturating_sub(FIXED + 2));
            writeln!(out, "{:indent$}{}", "", cut_middle(call, room))?;
        }
    }
    let hidden = rows.len().saturating_sub(limit);
    if hidden == 0 { Ok(()) } else { writeln!(out, "(and {hidden} more stacks)") }
}

fn bytes_pid(profile: &Profile, process: ProcessIdx) -> u32 {
    profile.processes.get(process.0 as usize).map_or(0, |process| process.pid)
}

/// Values by process and names: two profiles number their stacks each in its own way.
fn by_calls(profile: &Profile) -> HashMap<(u32, Vec<String>), u64> {
    let names = Names::new(profile);
    let mut values = HashMap::new();
    for sample in samples(profile) {
        let calls =
            names.leaf_first(sample.stack).take(MAX_CALLS).map(|call| call.name.to_string()).collect();
        *values.entry((bytes_pid(profile, sample.process), calls)).or_insert(0) += sample.count;
    }
    values
}

/// `1.5 MiB`
fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    while value >= 1023.95 {
        let Some(next) = units.next() else { break };
        value /= 1024.0;
        unit = Some(next);
    }
    format!("{value:.1} {}", unit.unwrap_or(&"B"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::fixture::Fixture;

    fn profiles() -> (Profile, Profile) {
        let make = |values: [u64; 2]| {
            let mut fixture = Fixture::default();
            let process = fixture.process(7, "app", "/bin/app");
            // In another order than that of their sizes.
            fixture.sample(process, "main;small;c:malloc", values[0]);
            fixture.sample(process, "main;large;c:realloc", values[1]);
            fixture.finish()
        };
        (make([300, 5 << 20]), make([10, 2]))
    }

    fn report(limit: usize, style: Style) -> String {
        let (bytes, counts) = profiles();
        let mut out = Vec::new();
        write(&bytes, &counts, limit, style, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_largest_come_first() {
        let expected = "5.0 MiB not freed, in 12 allocations\nlost: 0 allocations\n\n \
            SHARE       BYTES ALLOCATIONS  STACK\n\
            100.0%     5.0 MiB           2  realloc\n                                 large\n                                 main\n  \
            0.0%       300 B          10  malloc\n                                 small\n                                 main\n";
        assert_eq!(report(10, Style::default()), expected);
        assert!(report(1, Style::default()).ends_with("main\n(and 1 more stacks)\n"));
    }

    #[test]
    fn fits_every_width() {
        for width in [40, 41, 60, 80] {
            let report = report(10, Style { width, color: false });
            assert!(report.lines().all(|line| line.chars().count() <= width), "{report}");
        }
    }

    #[test]
    fn losses_are_said() {
        let (mut bytes, counts) = profiles();
        bytes.losses.table_full = 9;
        let mut out = Vec::new();
        write(&bytes, &counts, 1, Style::default(), &mut out).unwrap();
        assert!(String::from_utf8(out).unwrap().contains("lost: 9 allocations"));
        let mut out = Vec::new();
        write(&Profile::default(), &Profile::default(), 1, Style::default(), &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "0 B not freed, in 0 allocations\nlost: 0 allocations\n");
    }

    #[test]
    fn sizes_have_the_unit_that_fits() {
        let sizes = [0, 1023, 1024, 1536, 1 << 20, (1 << 20) - 1, u64::MAX];
        let expected = ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "1.0 MiB", "16.0 EiB"];
        assert_eq!(sizes.map(size), expected);
    }
}
