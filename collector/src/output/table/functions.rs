//! The function table.

use std::io::{self, Write};

use super::{heading, is_wide, more, paint_of, painted};
use crate::model::{FrameKind, Profile};
use crate::output::costs::Costs;
use crate::output::names::Names;
use crate::output::summary::{column_count, count_heading, cpu_seconds, percent, time_heading};
use crate::output::terminal::{Style, cut_middle};

/// Columns of the numbers that are always there.
const FIXED: usize = 24;
/// Columns of CPU time and kind.
const EXPLAINING: usize = 19;
const MIN_MODULE: usize = 6;
const MAX_MODULE: usize = 24;

pub(super) fn write(
    profile: &Profile,
    names: &Names<'_>,
    limit: usize,
    style: Style,
    out: &mut impl Write,
) -> io::Result<()> {
    let costs = Costs::of(profile, names);
    let rows = costs.hottest();
    let shown = rows.get(..limit).unwrap_or(&rows);
    let total = costs.total();
    let longest = shown.iter().map(|(_, row)| row.module.chars().count()).max().unwrap_or(0);
    let module_width = longest.clamp(MIN_MODULE, MAX_MODULE.min(style.width / 5).max(MIN_MODULE));
    let wide = is_wide(style);
    let mut title = format!("  SELF  TOTAL  {}  ", count_heading(profile));
    let mut room = style.width.saturating_sub(FIXED);
    if wide {
        title += &format!(" {}  KIND    {:<module_width$}  ", time_heading(profile), "MODULE");
        room = room.saturating_sub(EXPLAINING + module_width + 2);
    }
    heading(&format!("{title}FUNCTION"), style, out)?;
    for (key, row) in shown {
        let (own, all) = (percent(row.own, total), percent(row.total, total));
        write!(out, "{own:>5.1}% {all:>5.1}% {:>8}  ", column_count(profile, row.own))?;
        if wide {
            let kind = row.kind.map_or("-", FrameKind::as_str);
            let module = if row.module.is_empty() { "-" } else { &*row.module };
            let module = cut_middle(module, module_width);
            write!(out, "{:>7.2} s  {kind:<6}  {module:<module_width$}  ", cpu_seconds(profile, row.own))?;
        }
        writeln!(out, "{}", painted(&cut_middle(&key.name, room), row.kind.and_then(paint_of), style))?;
    }
    more(rows.len() - shown.len(), "functions", out)
}
