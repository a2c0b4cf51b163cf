//! The hottest functions of the last second and since the start, as `top` shows processes. Pure.

use std::io::{self, Write};

use super::costs::Costs;
use super::names::Names;
use super::summary::{cpu_seconds, losses_among, percent};
use super::table::{paint_of, painted};
use super::terminal::{Paint, Style, cut_middle};
use crate::model::{FrameKind, Losses, Profile};

/// Functions that are remembered: just-in-time compilers make ever more.
const MAX_FUNCTIONS: usize = 1 << 16;
/// Lines beside the functions.
pub const HEADER: usize = 4;
/// Columns of the shares of the last window, and of the whole.
const SHARES: usize = 15;
const SHARES_OF_ALL: usize = 15;
/// Below this there is no room for those of the whole.
const NARROW: usize = 60;
/// From here on kind and module have columns too.
const WIDE: usize = 110;
const KIND: usize = 8;
const MODULE: usize = 22;

/// What it shows, with what it remembers of earlier windows.
#[derive(Debug)]
pub struct Top {
    host: String,
    recent: Costs,
    all: Costs,
    /// CPUs that were busy in the last window.
    cores: f64,
    recent_seconds: f64,
    elapsed_seconds: f64,
    losses: Losses,
}

impl Top {
    /// For the machine of this name.
    pub fn new(host: String) -> Self {
        Self {
            host,
            recent: Costs::default(),
            all: Costs::default(),
            cores: 0.0,
            recent_seconds: 0.0,
            elapsed_seconds: 0.0,
            losses: Losses::default(),
        }
    }

    /// Takes in a window that has ended.
    pub fn add(&mut self, window: &Profile) {
        let names = Names::new(window);
        self.recent = Costs::of(window, &names);
        self.all.add(window, &names);
        if self.all.len() > MAX_FUNCTIONS {
            self.all.keep(MAX_FUNCTIONS / 2);
        }
        self.recent_seconds = window.duration_nanos as f64 / 1e9;
        self.elapsed_seconds += self.recent_seconds;
        self.cores = cpu_seconds(window, self.recent.total()) / self.recent_seconds.max(1e-9);
        self.losses.absorb(&window.losses);
    }

    /// Writes the hottest functions, `limit` at most: those of the last window, then others.
    ///
    /// No line is longer than the style's width, and the line of losses always comes.
    ///
    /// # Errors
    ///
    /// What `out` says.
    pub fn write(&self, limit: usize, style: Style, out: &mut impl Write) -> io::Result<()> {
        let head = format!(
            "{:.0} s: {:.2} cores busy, {} samples, {} in all, on {}",
            self.elapsed_seconds,
            self.cores,
            self.recent.total(),
            self.all.total(),
            self.host
        );
        writeln!(out, "{}", style.paint(Paint::Bold, cut_middle(&head, style.width)))?;
        let lost = self.losses.skipped > 0 || self.losses.table_full > 0;
        let losses = cut_middle(&losses_among(self.all.total(), &self.losses), style.width);
        writeln!(out, "{}", painted(&losses, lost.then_some(Paint::Red), style))?;
        let (wide, narrow) = (style.width >= WIDE, style.width < NARROW);
        let mut room = style.width.saturating_sub(SHARES);
        let mut heading = format!("{:>13}", format!("LAST {:.1} s", self.recent_seconds));
        let mut titles = "  SELF  TOTAL".to_owned();
        if !narrow {
            heading += "    SINCE START";
            titles += "    SELF  TOTAL";
            room = room.saturating_sub(SHARES_OF_ALL);
        }
        if wide {
            titles += &format!("   {:<KIND$}{:<MODULE$}", "KIND", "MODULE");
            room = room.saturating_sub(KIND + MODULE + 3);
        }
        writeln!(out, "{}", style.paint(Paint::Bold, heading))?;
        writeln!(out, "{}", style.paint(Paint::Bold, format_args!("{titles}  FUNCTION")))?;
        let hottest = self.recent.hottest();
        let others = self
            .all
            .hottest()
            .into_iter()
            .filter(|(key, _)| self.recent.get(key).is_none_or(|cost| cost.own == 0));
        for (key, cost) in hottest.into_iter().chain(others).take(limit) {
            let share = |of: &Costs| {
                let (own, total) = of.get(key).map_or((0, 0), |cost| (cost.own, cost.total));
                let (own, total) = (percent(own, of.total()), percent(total, of.total()));
                format!("{own:>5.1}% {total:>5.1}%")
            };
            write!(out, "{}", share(&self.recent))?;
            if !narrow {
                write!(out, "  {}", share(&self.all))?;
            }
            if wide {
                let kind = cost.kind.map_or("-", FrameKind::as_str);
                let module = if cost.module.is_empty() { "-" } else { &*cost.module };
                write!(out, "   {kind:<KIND$}{:<MODULE$}", cut_middle(module, MODULE))?;
            }
            writeln!(
                out,
                "  {}",
                painted(&cut_middle(&key.name, room), cost.kind.and_then(paint_of), style)
            )?;
        }
        Ok(())
    }
}

/// A text that replaces an earlier one on a terminal.
#[derive(Debug, Default)]
pub struct Redrawn {
    lines: usize,
}

impl Redrawn {
    /// What to write so that `text` stands where the last one stood. It must fit into the terminal.
    pub fn replace(&mut self, text: &str) -> String {
        // Up to its first line, and clear from there on.
        let up = if self.lines > 0 { format!("\x1b[{}A\r\x1b[J", self.lines) } else { String::new() };
        self.lines = text.lines().count();
        up + text
    }

    /// What has been written since is not to be replaced.
    pub fn keep(&mut self) {
        self.lines = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::fixture::{self, Fixture};

    fn window(stacks: &[(&str, u64)]) -> Profile {
        let mut fixture = Fixture::default();
        let process = fixture.process(1, "app", "/bin/app");
        stacks.iter().for_each(|(stack, count)| fixture.sample(process, stack, *count));
        let profile = fixture.finish();
        Profile {
            duration_nanos: 1_000_000_000,
            losses: Losses { skipped: 1, ..Losses::default() },
            ..profile
        }
    }

    fn text(top: &Top, limit: usize, width: usize) -> String {
        let mut out = Vec::new();
        top.write(limit, Style { width, color: false }, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_last_window_and_the_whole() {
        let mut top = Top::new("web-1".to_owned());
        top.add(&window(&[("main;old", 60), ("main;both", 30)]));
        top.add(&window(&[("main;both;both", 20), ("main;k:new", 90)]));
        let shown = text(&top, 10, 80);
        assert!(shown.starts_with("2 s: 1.11 cores busy, 110 samples, 200 in all, on web-1\n"));
        assert!(shown.contains("\nlost: 2 of 202 busy periods (1.0%): 2 skipped by the kernel\n"), "{shown}");
        let rows: Vec<&str> = shown.lines().skip(HEADER).collect();
        assert_eq!(
            rows,
            [
                " 81.8%  81.8%   45.0%  45.0%  new",
                " 18.2%  18.2%   25.0%  25.0%  both",
                "  0.0%   0.0%   30.0%  30.0%  old",
            ]
        );
        assert_eq!(text(&top, 1, 80).lines().count(), HEADER + 1);
    }

    #[test]
    fn fits_every_width() {
        let mut top = Top::new("a-host-with-a-long-name.example.org".to_owned());
        let empty = text(&top, 20, 60);
        assert!(empty.contains("lost: 0 of 0 busy periods"), "{empty}");
        top.add(&fixture::server());
        for width in [40, 60, 80, 109, 110, 200] {
            let shown = text(&top, 10, width);
            let widest = shown.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= width, "{widest} > {width}:\n{shown}");
            assert_eq!(shown.lines().count(), HEADER + 10, "{shown}");
            assert!(!shown.contains('\x1b') && shown.lines().all(|line| line == line.trim_end()), "{shown}");
        }
    }

    #[test]
    fn functions_without_end_are_forgotten() {
        let mut top = Top::new(String::new());
        let line =
            |name: &str| crate::model::Line { function: name.into(), system_name: None, file: None, line: 0 };
        for second in 0..3 {
            let mut profile = window(&[("main;hot", 5)]);
            for n in 0..30_000_u32 {
                profile.frames.push(crate::model::Frame {
                    kind: FrameKind::Jit,
                    mapping: None,
                    address: 0,
                    lines: vec![line(&format!("f{second}_{n}"))],
                });
                profile.stacks.push(vec![crate::model::FrameIdx(profile.frames.len() as u32 - 1)]);
                let stack = crate::model::StackIdx(profile.stacks.len() as u32 - 1);
                let sample = crate::model::Sample { stack, count: 1, ..profile.samples[0] };
                profile.samples.push(sample);
            }
            top.add(&profile);
            assert!(top.all.len() <= MAX_FUNCTIONS);
        }
        assert_eq!(top.all.total(), 90_015);
        assert!(text(&top, 1, 80).contains("   0.0%   0.0%  hot"));
    }

    #[test]
    fn one_text_replaces_another() {
        let mut drawn = Redrawn::default();
        assert_eq!(drawn.replace("a\nb\n"), "a\nb\n");
        assert_eq!(drawn.replace("c\n"), "\x1b[2A\r\x1b[Jc\n");
        drawn.keep();
        assert_eq!(drawn.replace("d\n"), "d\n");
    }
}
