//! The table of functions by what changed.

use std::io::{self, Write};

use super::{Change, Comparison, Part, amount, cautions};
use crate::output::table::{more, paint_of, painted, wrapped};
use crate::output::terminal::{Paint, Style, cut_middle};

/// Columns of one half of the numbers.
const HALF: usize = 21;
/// Below this there is no room for the totals.
const WIDE: usize = 72;
/// From here on the module has a column too.
const WIDER: usize = 100;
const MODULE: usize = 20;

/// Writes the `limit` functions that changed most.
///
/// No line is longer than the style's width.
///
/// # Errors
///
/// What `out` says.
pub fn write(
    comparison: &Comparison<'_>,
    limit: usize,
    style: Style,
    out: &mut impl Write,
) -> io::Result<()> {
    for (label, of) in [("before", comparison.before), ("after", comparison.after)] {
        let text = format!("{label}: {}: {}", of.name, amount(of.recording));
        wrapped(&text, style, (label == "after").then_some(Paint::Bold), out)?;
        for caution in cautions(of.recording) {
            wrapped(&format!("   {caution}"), style, Some(Paint::Red), out)?;
        }
    }
    if !comparison.is_alike() {
        let (before, after) = (&comparison.before.recording.value, &comparison.after.recording.value);
        let text = format!("These count different things, {before} and {after}: see --sample-type.");
        wrapped(&text, style, Some(Paint::Red), out)?;
    }
    if comparison.functions.is_empty() {
        return writeln!(out, "\nNeither has any samples.");
    }
    let (wide, wider) = (style.width >= WIDE, style.width >= WIDER);
    let mut top = format!("\n{:>20} ", "---- SELF, % -----");
    let mut titles = "BEFORE  AFTER CHANGE ".to_owned();
    let mut room = style.width.saturating_sub(HALF + 1);
    if wide {
        top += &format!(" {:>20} ", "---- TOTAL, % ----");
        titles += " BEFORE  AFTER CHANGE ";
        room = room.saturating_sub(HALF + 1);
    }
    if wider {
        titles += &format!(" {:<MODULE$} ", "MODULE");
        room = room.saturating_sub(MODULE + 2);
    }
    writeln!(out, "{}", style.paint(Paint::Bold, top.trim_end()))?;
    writeln!(out, "{}", style.paint(Paint::Bold, format_args!("{titles} FUNCTION")))?;
    let shown = comparison.functions.get(..limit).unwrap_or(&comparison.functions);
    for change in shown {
        row(change, room, (wide, wider), style, out)?;
    }
    more(comparison.functions.len() - shown.len(), "functions", out)?;
    let text = "Shares of each file's total, so that runs of different length compare. What is marked ~ may be chance.";
    writeln!(out)?;
    wrapped(text, style, None, out)
}

fn row(
    change: &Change,
    room: usize,
    (wide, wider): (bool, bool),
    style: Style,
    out: &mut impl Write,
) -> io::Result<()> {
    let Change { before, after, own_may_be_chance, total_may_be_chance, .. } = change;
    half(before, after, |part| part.own_share, *own_may_be_chance, style, out)?;
    if wide {
        out.write_all(b" ")?;
        half(before, after, |part| part.total_share, *total_may_be_chance, style, out)?;
    }
    if wider {
        let module = if change.module.is_empty() { "-" } else { &change.module };
        write!(out, " {:<MODULE$} ", cut_middle(module, MODULE))?;
    }
    writeln!(out, " {}", painted(&cut_middle(&change.name, room), change.kind.and_then(paint_of), style))
}

fn half(
    before: &Part,
    after: &Part,
    share: impl Fn(&Part) -> f64,
    may_be_chance: bool,
    style: Style,
    out: &mut impl Write,
) -> io::Result<()> {
    let (before, after) = (share(before) * 100.0, share(after) * 100.0);
    // What is shown adds up: two rounded shares may differ by more than their difference rounded.
    let change = (after * 10.0).round() / 10.0 - (before * 10.0).round() / 10.0;
    // Plus and minus of nothing are none.
    let is_none = change.abs() < 0.05;
    let (mark, paint) = match change {
        _ if is_none => (' ', None),
        _ if may_be_chance => ('~', None),
        change if change > 0.0 => (' ', Some(Paint::Red)),
        _ => (' ', Some(Paint::Green)),
    };
    let change = if is_none { "0.0".to_owned() } else { format!("{change:+.1}") };
    write!(out, "{before:>6.1} {after:>6.1} {}{mark}", painted(&format!("{change:>6}"), paint, style))
}
