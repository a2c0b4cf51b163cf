//! Tables of what tracers measured: a [`View`] over a [`Recorder`]. Pure.

pub(super) mod number;

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::names::clean;
use super::table::{heading, more};
use super::terminal::{Style, cut_middle};
use crate::telemetry::{Column, Exponential, Recorder, Series, Show, View};

/// Columns of a number, and those between two.
const NUMBER: usize = 9;
/// Fewest columns for what stands after the numbers.
const MIN_NAMES: usize = 30;
/// Columns of a pid.
const PID: usize = 8;
/// Columns of the list of an attribute's values, where it is shown.
const LIST: usize = 24;

/// What a table is made of beside the numbers.
pub struct Context<'c> {
    /// How long was measured, in seconds.
    pub seconds: f64,
    /// Most rows.
    pub limit: usize,
    /// The terminal.
    pub style: Style,
    /// What to call a process.
    pub process_name: &'c dyn Fn(u32) -> String,
}

/// What a row stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    pid: Option<u32>,
    values: Vec<String>,
}

/// What was found for one column of a row.
#[derive(Debug, Default, Clone)]
struct Cell {
    number: f64,
    histogram: Option<Exponential>,
    by_value: BTreeMap<String, f64>,
}

impl View {
    fn key(&self, series: &Series) -> Key {
        let value = |key: &str| {
            let found = series.attributes.iter().find(|(k, _)| *k == key);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let values = self.by.iter().map(|(key, _)| value(key)).collect();
        Key { pid: series.pid.filter(|_| self.by_process), values }
    }
}

impl Column {
    pub(super) fn takes(&self, series: &Series) -> bool {
        let has = |(key, value): &(&str, &str)| series.attributes.iter().any(|(k, v)| k == key && v == value);
        series.metric == self.metric.name && self.only.iter().all(has)
    }

    /// What rows are sorted by.
    fn weight(&self, cell: &Cell) -> f64 {
        let histogram = |f: &dyn Fn(&Exponential) -> f64| cell.histogram.as_ref().map_or(0.0, f);
        match self.show {
            Show::Number | Show::Rate | Show::Bytes | Show::ByteRate | Show::Most(_) => cell.number,
            Show::Count | Show::CountRate => histogram(&|h| h.count() as f64),
            Show::Time => histogram(&Exponential::sum_seconds),
            Show::Mean => histogram(&|h| h.sum_seconds() / (h.count().max(1) as f64)),
            Show::Percentile(percent) => histogram(&|h| h.quantile(f64::from(percent) / 100.0)),
        }
    }

    fn text(&self, cell: &Cell, seconds: f64) -> String {
        let seconds = if seconds > 0.0 { seconds } else { 1.0 };
        let weight = self.weight(cell);
        match self.show {
            Show::Most(_) => most(&cell.by_value),
            _ if weight == 0.0 => "-".to_owned(),
            Show::Number | Show::Count => number::count(weight),
            Show::Rate | Show::CountRate => format!("{}/s", number::count(weight / seconds)),
            Show::Bytes => number::bytes(weight),
            Show::ByteRate => format!("{}/s", number::bytes(weight / seconds)),
            Show::Time | Show::Mean | Show::Percentile(_) => number::seconds(weight),
        }
    }

    fn width(&self) -> usize {
        if let Show::Most(_) = self.show { LIST } else { NUMBER }
    }
}

/// `ENOENT 12, EAGAIN 3`.
fn most(by_value: &BTreeMap<String, f64>) -> String {
    let mut values: Vec<_> = by_value.iter().filter(|(value, n)| !value.is_empty() && **n > 0.0).collect();
    values.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let texts: Vec<_> = values.iter().map(|(value, n)| format!("{value} {}", number::count(**n))).collect();
    texts.join(", ")
}

/// Writes a table. Where nothing was measured, says so.
///
/// # Errors
///
/// What `out` says.
pub fn write(
    view: &View,
    recorder: &Recorder,
    context: &Context<'_>,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut rows: BTreeMap<Key, Vec<Cell>> = BTreeMap::new();
    let mut row = |series: &Series, at: usize, change: &dyn Fn(&mut Cell)| {
        let cells = rows.entry(view.key(series)).or_insert_with(|| vec![Cell::default(); view.columns.len()]);
        if let Some(cell) = cells.get_mut(at) {
            change(cell);
        }
    };
    for (at, column) in view.columns.iter().enumerate() {
        for (series, n) in recorder.numbers.iter().filter(|(series, _)| column.takes(series)) {
            row(series, at, &|cell| {
                cell.number += n;
                if let Show::Most(key) = column.show {
                    let value = series.attributes.iter().find(|(k, _)| *k == key);
                    let value = value.map(|(_, value)| value.clone()).unwrap_or_default();
                    *cell.by_value.entry(value).or_default() += n;
                }
            });
        }
        for (series, histogram) in recorder.histograms.iter().filter(|(series, _)| column.takes(series)) {
            row(series, at, &|cell| match &mut cell.histogram {
                Some(all) => all.merge(histogram),
                none => *none = Some(histogram.clone()),
            });
        }
    }
    let weights = |cells: &[Cell]| -> Vec<f64> {
        view.columns.iter().zip(cells).map(|(column, cell)| column.weight(cell)).collect()
    };
    let mut rows: Vec<(Key, Vec<Cell>)> = rows.into_iter().collect();
    rows.retain(|(_, cells)| weights(cells).iter().any(|weight| *weight != 0.0));
    rows.sort_by(|(_, a), (_, b)| {
        let pairs = weights(a).into_iter().zip(weights(b));
        pairs.map(|(a, b)| b.total_cmp(&a)).find(|order| order.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
    });
    let style = context.style;
    heading(view.title, style, out)?;
    if rows.is_empty() {
        return writeln!(out, "  none");
    }
    // Columns from the first on, as many as leave room for names.
    let mut used = 0;
    let shown: Vec<usize> = (0..view.columns.len())
        .take_while(|at| {
            used += view.columns.get(*at).map_or(0, |column| column.width() + 1);
            used + MIN_NAMES <= style.width
        })
        .collect();
    let columns: Vec<&Column> = shown.iter().filter_map(|at| view.columns.get(*at)).collect();
    let mut title = String::new();
    for column in &columns {
        let width = column.width();
        match column.show {
            Show::Most(_) => title.push_str(&format!("{:<width$} ", column.heading)),
            _ => title.push_str(&format!("{:>width$} ", column.heading)),
        }
    }
    let names = style.width.saturating_sub(title.chars().count() + 1);
    let headings: Vec<&str> = view.by.iter().map(|(_, heading)| *heading).collect();
    let process_name = |key: &Key| key.pid.map(|pid| clean(&(context.process_name)(pid)).to_string());
    let shown_rows = rows.iter().take(context.limit);
    // What follows the names stands in one column.
    let longest =
        shown_rows.clone().filter_map(|(key, _)| process_name(key)).map(|name| name.chars().count());
    let wide = longest.max().unwrap_or(0).max("PROCESS".len());
    let process =
        if view.by_process { format!("{:>PID$} {:<wide$}  ", "PID", "PROCESS") } else { String::new() };
    let heads = format!("{process}{}", headings.join("  "));
    writeln!(out, "{title} {}", cut_middle(heads.trim_end(), names))?;
    for (key, cells) in shown_rows {
        let mut line = String::new();
        for (at, column) in shown.iter().zip(&columns) {
            let text = cells.get(*at).map(|cell| column.text(cell, context.seconds)).unwrap_or_default();
            let width = column.width();
            match column.show {
                Show::Most(_) => line.push_str(&format!("{:<width$} ", cut_middle(&text, width))),
                _ => line.push_str(&format!("{text:>width$} ")),
            }
        }
        let process =
            key.pid.zip(process_name(key)).map(|(pid, name)| format!("{pid:>PID$} {name:<wide$}  "));
        let values: Vec<String> = key.values.iter().map(|value| clean(value).to_string()).collect();
        let names_text = format!("{}{}", process.unwrap_or_default(), values.join("  "));
        writeln!(out, "{line} {}", cut_middle(names_text.trim_end(), names))?;
    }
    more(rows.len().saturating_sub(context.limit), view.rows, out)
}

#[cfg(test)]
mod tests;
