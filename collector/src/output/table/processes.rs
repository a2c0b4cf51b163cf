//! The process table.

use std::collections::HashMap;
use std::io::{self, Write};

use super::{heading, is_wide, more};
use crate::model::{Process, ProcessIdx, Profile};
use crate::output::names::{Names, samples};
use crate::output::summary::{column_count, count_heading, cpu_seconds, percent, sample_count, time_heading};
use crate::output::terminal::{Style, cut_middle};

/// Columns before the name, without the CPU time.
const FIXED: usize = 26;
/// Characters of a container id that tell it apart.
const SHORT_ID: usize = 12;

pub(super) fn write(
    profile: &Profile,
    names: &Names<'_>,
    limit: usize,
    style: Style,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut counts: HashMap<ProcessIdx, u64> = HashMap::new();
    for sample in samples(profile) {
        *counts.entry(sample.process).or_default() += sample.count;
    }
    let mut rows: Vec<(ProcessIdx, u64)> = counts.into_iter().collect();
    rows.sort_unstable_by_key(|(process, count)| (std::cmp::Reverse(*count), *process));
    let total = sample_count(profile);
    let wide = is_wide(style);
    let time_title = if wide { format!("  {}  ", time_heading(profile)) } else { String::new() };
    let title = format!(" SHARE  {} {time_title}     PID  PROCESS", count_heading(profile));
    heading(&title, style, out)?;
    for (index, count) in rows.iter().take(limit) {
        let process = profile.processes.get(index.0 as usize);
        let pid = process.map_or(0, |process| process.pid);
        let name = format!("{}{}", names.process(*index), process.map(origin).unwrap_or_default());
        let time = if wide { format!("{:>8.2} s  ", cpu_seconds(profile, *count)) } else { String::new() };
        let room = style.width.saturating_sub(FIXED + time.len());
        let share = percent(*count, total);
        let count = column_count(profile, *count);
        writeln!(out, "{share:>5.1}% {count:>8} {time}{pid:>8}  {}", cut_middle(&name, room))?;
    }
    more(rows.len().saturating_sub(limit), "processes", out)
}

/// The service and container of a process, in parentheses.
fn origin(process: &Process) -> String {
    let container = process.container_id.as_deref().map(|id| id.chars().take(SHORT_ID).collect::<String>());
    match (process.service_name.as_deref(), container) {
        (None, None) => String::new(),
        (Some(service), None) => format!(" ({service})"),
        (None, Some(container)) => format!(" (container {container})"),
        (Some(service), Some(container)) => format!(" ({service}, container {container})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_and_container_are_told() {
        let mut process = Process::default();
        assert_eq!(origin(&process), "");
        process.container_id = Some("0123456789abcdef".into());
        assert_eq!(origin(&process), " (container 0123456789ab)");
        process.service_name = Some("shop".into());
        assert_eq!(origin(&process), " (shop, container 0123456789ab)");
    }
}
