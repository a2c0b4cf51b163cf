//! What there is to know about the terminal that a report goes to.

use std::fmt;
use std::io::IsTerminal;
use std::os::fd::AsFd;

/// Columns where nothing says otherwise.
const DEFAULT_WIDTH: usize = 80;
/// Below this, tables are not cut further.
const MIN_WIDTH: usize = 40;

/// How a report is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Columns of the terminal; no line is longer.
    pub width: usize,
    /// Whether colours and bold text may be used.
    pub color: bool,
}

impl Default for Style {
    fn default() -> Self {
        Self { width: DEFAULT_WIDTH, color: false }
    }
}

impl Style {
    /// The style for `stream`: `COLUMNS`, else the terminal's width, else 80; colours on a terminal unless
    /// `NO_COLOR` is set or `TERM` is `dumb`.
    pub fn detect(stream: &(impl AsFd + IsTerminal), env: impl Fn(&str) -> Option<String>) -> Self {
        let terminal = stream.is_terminal();
        let columns =
            env("COLUMNS").and_then(|value| value.trim().parse().ok()).filter(|columns| *columns > 0);
        let ioctl = || terminal_width(stream).filter(|_| terminal);
        let width = columns.or_else(ioctl).unwrap_or(DEFAULT_WIDTH).max(MIN_WIDTH);
        let no_color = env("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env("TERM").is_some_and(|value| value == "dumb");
        Self { width, color: terminal && !no_color && !dumb }
    }

    /// `text` in `paint`, where colours are allowed.
    pub(crate) fn paint<T: fmt::Display>(self, paint: Paint, text: T) -> Painted<T> {
        Painted { paint: self.color.then_some(paint), text }
    }
}

/// Columns of the terminal behind `stream`.
pub fn terminal_width(stream: &impl AsFd) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(stream).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Lines of the terminal behind `stream`.
pub fn terminal_height(stream: &impl AsFd) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(stream).ok()?;
    Some(usize::from(size.ws_row)).filter(|lines| *lines > 0)
}

/// The few ways in which text stands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    /// Headings.
    Bold,
    /// Kernel functions.
    Yellow,
    /// Functions that a just-in-time compiler made.
    Green,
    /// Losses.
    Red,
}

/// Text with its colour, if any.
pub(crate) struct Painted<T> {
    paint: Option<Paint>,
    text: T,
}

impl<T: fmt::Display> fmt::Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = match self.paint {
            None => return self.text.fmt(f),
            Some(Paint::Bold) => "1",
            Some(Paint::Yellow) => "33",
            Some(Paint::Green) => "32",
            Some(Paint::Red) => "31",
        };
        write!(f, "\x1b[{code}m")?;
        self.text.fmt(f)?;
        f.write_str("\x1b[0m")
    }
}

/// `text` in at most `width` columns, with its middle replaced by `..` where it is longer.
///
/// Of functions and paths, the beginning tells whose it is and the end what it does.
pub(crate) fn cut_middle(text: &str, width: usize) -> String {
    const GAP: &str = "..";
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(GAP.len());
    let head = kept / 2;
    let mut cut: String = text.chars().take(head).collect();
    cut.extend(GAP.chars().take(width));
    cut.extend(text.chars().skip(length - (kept - head)));
    cut
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn detect(vars: &[(&str, &str)]) -> Style {
        let null = File::open("/dev/null").unwrap();
        Style::detect(&null, |name| {
            vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn plain_and_80_wide_without_a_terminal() {
        assert_eq!(detect(&[]), Style { width: 80, color: false });
        assert_eq!(detect(&[("COLUMNS", "132")]).width, 132);
        assert_eq!(detect(&[("COLUMNS", "3")]).width, MIN_WIDTH);
        for nonsense in ["0", "", "x", "-1"] {
            assert_eq!(detect(&[("COLUMNS", nonsense)]).width, 80);
        }
    }

    #[test]
    fn a_terminal_has_colours_and_a_width() {
        use rustix::termios::{Winsize, tcsetwinsize};
        let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
        let pty = File::from(rustix::pty::openpt(flags).unwrap());
        let size = Winsize { ws_row: 24, ws_col: 101, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&pty, size).unwrap();
        assert_eq!(Style::detect(&pty, |_| None), Style { width: 101, color: true });
        let plain = |name: &str| (name == "NO_COLOR").then(|| "1".to_owned());
        assert!(!Style::detect(&pty, plain).color);
        let dumb = |name: &str| (name == "TERM").then(|| "dumb".to_owned());
        assert!(!Style::detect(&pty, dumb).color);
    }

    #[test]
    fn cuts_the_middle() {
        assert_eq!(cut_middle("abcdefghij", 10), "abcdefghij");
        assert_eq!(cut_middle("abcdefghij", 9), "abc..ghij");
        assert_eq!(cut_middle("éèêëēĕ", 5), "é..ēĕ");
        for width in 0..12 {
            assert!(cut_middle("abcdefghijkl", width).chars().count() <= width);
        }
    }

    #[test]
    fn paints_only_where_allowed() {
        let style = Style { width: 80, color: true };
        assert_eq!(style.paint(Paint::Red, "x").to_string(), "\x1b[31mx\x1b[0m");
        assert_eq!(Style::default().paint(Paint::Red, "x").to_string(), "x");
        assert_eq!(format!("{:>3}|", Style::default().paint(Paint::Bold, "x")), "  x|");
    }
}
