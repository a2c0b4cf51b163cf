//! The function table.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;

use super::{heading, is_wide, more, paint_of, painted};
use crate::model::{FrameKind, MappingIdx, Profile};
use crate::output::names::{Call, NO_STACK, Names, samples};
use crate::output::summary::{cpu_seconds, percent, sample_count};
use crate::output::terminal::{Style, cut_middle};

/// Columns of the numbers that are always there.
const FIXED: usize = 24;
/// Columns of CPU time and kind.
const EXPLAINING: usize = 19;
const MIN_MODULE: usize = 6;
const MAX_MODULE: usize = 24;

/// Functions of one name in two files are two.
type Key = (Arc<str>, Option<FrameKind>, Option<MappingIdx>);

struct Row {
    own: u64,
    total: u64,
    /// The last stack that counted into the total, so that recursion counts once.
    seen: usize,
    module: String,
}

pub(super) fn write(
    profile: &Profile,
    names: &Names<'_>,
    limit: usize,
    style: Style,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut rows: Vec<(Key, Row)> =
        count(profile, names).into_iter().filter(|(_, row)| row.own > 0).collect();
    rows.sort_unstable_by(|(a, x), (b, y)| {
        (Reverse(x.own), Reverse(x.total), a).cmp(&(Reverse(y.own), Reverse(y.total), b))
    });
    let shown = rows.get(..limit).unwrap_or(&rows);
    let total = sample_count(profile);
    let longest = shown.iter().map(|(_, row)| row.module.chars().count()).max().unwrap_or(0);
    let module_width = longest.clamp(MIN_MODULE, MAX_MODULE.min(style.width / 5).max(MIN_MODULE));
    let wide = is_wide(style);
    let mut title = "  SELF  TOTAL  SAMPLES  ".to_owned();
    let mut room = style.width.saturating_sub(FIXED);
    if wide {
        title += &format!(" CPU TIME  KIND    {:<module_width$}  ", "MODULE");
        room = room.saturating_sub(EXPLAINING + module_width + 2);
    }
    heading(&format!("{title}FUNCTION"), style, out)?;
    for ((name, kind, _), row) in shown {
        let (own, all) = (percent(row.own, total), percent(row.total, total));
        write!(out, "{own:>5.1}% {all:>5.1}% {:>8}  ", row.own)?;
        if wide {
            let kind = kind.map_or("-", FrameKind::as_str);
            let module = if row.module.is_empty() { "-" } else { &row.module };
            let module = cut_middle(module, module_width);
            write!(out, "{:>7.2} s  {kind:<6}  {module:<module_width$}  ", cpu_seconds(profile, row.own))?;
        }
        writeln!(out, "{}", painted(&cut_middle(name, room), kind.and_then(paint_of), style))?;
    }
    more(rows.len() - shown.len(), "functions", out)
}

fn count(profile: &Profile, names: &Names<'_>) -> HashMap<Key, Row> {
    let mut rows: HashMap<Key, Row> = HashMap::new();
    let mut add = |key: Key, module: &dyn Fn() -> String, position: usize, own: u64, total: u64| {
        let row =
            rows.entry(key).or_insert_with(|| Row { own: 0, total: 0, seen: usize::MAX, module: module() });
        row.own = row.own.saturating_add(own);
        if row.seen != position {
            row.seen = position;
            row.total = row.total.saturating_add(total);
        }
    };
    for (position, sample) in samples(profile).enumerate() {
        let mut own = sample.count;
        for Call { name, frame } in names.leaf_first(sample.stack) {
            let key = (name.clone(), Some(frame.kind), frame.mapping);
            add(key, &|| names.module(frame), position, own, sample.count);
            own = 0;
        }
        if own > 0 {
            let key = (NO_STACK.into(), None, None);
            add(key, &String::new, position, own, own);
        }
    }
    rows
}
