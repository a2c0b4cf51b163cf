//! The report on the terminal: who used the CPUs, in which functions, called from where, and what was lost.

mod calls;
mod functions;
mod processes;

use std::io::{self, Write};

use super::names::Names;
use super::summary;
use super::terminal::{Paint, Style};
use crate::model::{FrameKind, Profile};

/// How much of a profile the report shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rows of the function table.
    pub functions: usize,
    /// Lines of the call tree.
    pub calls: usize,
    /// Rows of the process table.
    pub processes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { functions: 20, calls: 30, processes: 10 }
    }
}

/// Writes the report on `profile`, taken on `host`.
///
/// No line is longer than the style's width, and the losses line always comes.
///
/// # Errors
///
/// What `out` says.
pub fn write(
    profile: &Profile,
    host: &str,
    limits: Limits,
    style: Style,
    out: &mut impl Write,
) -> io::Result<()> {
    let names = Names::new(profile);
    wrapped(&summary::title(profile, host), style, Some(Paint::Bold), out)?;
    wrapped(&summary::samples_line(profile), style, None, out)?;
    let losses = &profile.losses;
    let lost = losses.skipped > 0 || losses.table_full > 0;
    wrapped(&summary::losses_line(profile), style, lost.then_some(Paint::Red), out)?;
    if summary::sample_count(profile) == 0 {
        let did = if summary::is_off_cpu(profile) { "waited so long" } else { "used a CPU" };
        return writeln!(out, "\nNothing that was watched {did}.");
    }
    processes::write(profile, &names, limits.processes, style, out)?;
    functions::write(profile, &names, limits.functions, style, out)?;
    calls::write(profile, &names, limits.calls, style, out)
}

/// The table of processes alone, of a profile that has samples.
pub(super) fn processes(
    profile: &Profile,
    names: &Names<'_>,
    limit: usize,
    style: Style,
    out: &mut impl Write,
) -> io::Result<()> {
    processes::write(profile, names, limit, style, out)
}

/// An empty line and a heading.
pub(super) fn heading(text: &str, style: Style, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "\n{}", style.paint(Paint::Bold, text))
}

/// Whether there is room for the columns that explain, beside those that count and a name.
fn is_wide(style: Style) -> bool {
    style.width >= 72
}

/// A line that says how much is not shown.
pub(super) fn more(hidden: usize, what: &str, out: &mut impl Write) -> io::Result<()> {
    if hidden == 0 { Ok(()) } else { writeln!(out, "(and {hidden} more {what})") }
}

/// The colour of a function's name.
pub(super) fn paint_of(kind: FrameKind) -> Option<Paint> {
    match kind {
        FrameKind::Kernel => Some(Paint::Yellow),
        FrameKind::Jit => Some(Paint::Green),
        #[cfg(feature = "python")]
        FrameKind::Python => Some(Paint::Green),
        FrameKind::Native => None,
    }
}

pub(super) fn painted(text: &str, paint: Option<Paint>, style: Style) -> String {
    match paint {
        Some(paint) => style.paint(paint, text).to_string(),
        None => text.to_owned(),
    }
}

/// `text` broken at spaces into lines that fit; continued lines are indented.
pub(super) fn wrapped(
    text: &str,
    style: Style,
    paint: Option<Paint>,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.trim_start().is_empty() && line.chars().count() + 1 + word.chars().count() > style.width {
            writeln!(out, "{}", painted(&line, paint, style))?;
            line = "   ".to_owned();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    writeln!(out, "{}", painted(&line, paint, style))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Losses;
    use crate::output::fixture::{self, Fixture};

    pub(super) fn report(profile: &Profile, style: Style) -> String {
        let mut out = Vec::new();
        write(profile, "web-1", Limits::default(), style, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// The columns of the row that ends in `end`.
    fn row<'a>(report: &'a str, end: &str) -> Vec<&'a str> {
        let row = report.lines().find(|line| line.ends_with(end));
        row.unwrap_or_else(|| panic!("no row ends in {end:?}:\n{report}")).split_whitespace().collect()
    }

    #[test]
    fn fits_every_width() {
        let mut profile = fixture::server();
        profile.losses = Losses { skipped: 9, table_full: 8, no_stack: 7, sideband: 6 };
        for width in [40, 41, 60, 80, 100, 132, 250] {
            let report = report(&profile, Style { width, color: false });
            let widest = report.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= width, "{widest} > {width}:\n{report}");
            assert!(report.is_ascii());
            assert!(report.lines().all(|line| line == line.trim_end()), "{report}");
        }
    }

    #[test]
    fn colours_change_nothing_but_colour() {
        let profile = fixture::server();
        let plain = report(&profile, Style { width: 100, color: false });
        let mut coloured = report(&profile, Style { width: 100, color: true });
        assert!(coloured.contains("\x1b[33m"));
        for code in ["\x1b[0m", "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[33m"] {
            coloured = coloured.replace(code, "");
        }
        assert_eq!(plain, coloured);
    }

    #[test]
    fn losses_are_always_said() {
        let mut profile = fixture::server();
        profile.losses = Losses::default();
        assert!(report(&profile, Style::default()).contains("\nlost: 0 of 1555 busy periods\n"));
        profile.losses.table_full = 2;
        assert!(
            report(&profile, Style::default()).contains("\nlost: 2 of 1557 busy periods (0.1%): 2 found")
        );
        let empty = report(&Profile::default(), Style::default());
        assert!(empty.contains("lost: 0 of 0 busy periods"));
        assert!(empty.contains("Nothing that was watched used a CPU."));
    }

    #[test]
    fn recursion_counts_once() {
        let mut fixture = Fixture::default();
        let process = fixture.process(1, "app", "/bin/app");
        fixture.sample(process, "main;walk;walk;walk", 60);
        fixture.sample(process, "main;walk;leaf", 40);
        let report = report(&fixture.finish(), Style::default());
        assert_eq!(row(&report, " walk")[..3], ["60.0%", "100.0%", "60"]);
        assert_eq!(row(&report, " leaf")[..3], ["40.0%", "40.0%", "40"]);
        let functions = report.split("  SELF").nth(1).unwrap().split("\n\n").next().unwrap();
        assert!(!functions.contains("main"), "only the tree shows what used no time itself");
    }

    #[test]
    fn functions_carry_kind_module_and_time() {
        let mut fixture = Fixture::default();
        let process = fixture.process(7, "app", "/opt/app/bin/app");
        fixture.sample(process, "main;c:read;k:vfs_read", 97);
        fixture.sample(process, "main;c:read", 2);
        fixture.sample(process, "main;j:loop", 1);
        let report = report(&fixture.finish(), Style::default());
        assert_eq!(
            row(&report, " vfs_read"),
            ["97.0%", "97.0%", "97", "0.98", "s", "kernel", "[kernel]", "vfs_read"]
        );
        assert_eq!(row(&report, " loop"), ["1.0%", "1.0%", "1", "0.01", "s", "jit", "-", "loop"]);
        assert_eq!(row(&report, " read")[5..], ["native", "libc.so.6", "read"]);
        assert_eq!(row(&report, " app")[..5], ["100.0%", "100", "1.01", "s", "7"]);
    }
}
