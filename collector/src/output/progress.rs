//! The line that a terminal shows while samples are taken.

use std::fmt::Write;
use std::time::Duration;

/// Shortest time between two redraws.
const REDRAW: Duration = Duration::from_millis(200);
/// Back to the line's start, and clear to its end.
const ERASE: &str = "\r\x1b[K";

/// What the line shows and when it changes. Time is passed in and text is handed out: the caller owns the
/// clock and the terminal (and uses this only where standard error is one).
#[derive(Debug)]
pub struct Progress {
    total: Option<Duration>,
    width: usize,
    drawn_at: Option<Duration>,
}

impl Progress {
    /// A line for a run of `total` (or until a signal), cut to a terminal `width` columns wide.
    pub fn new(total: Option<Duration>, width: usize) -> Self {
        Self { total, width, drawn_at: None }
    }

    /// The text to write now, `elapsed` after the start; `None` while the line is fresh enough.
    pub fn update(&mut self, elapsed: Duration, samples: u64, lost: u64) -> Option<String> {
        if self.drawn_at.is_some_and(|at| elapsed.saturating_sub(at) < REDRAW) {
            return None;
        }
        self.drawn_at = Some(elapsed);
        let mut line = format!("sampling {:.1} s", elapsed.as_secs_f64());
        if let Some(total) = self.total {
            // Only text is made here: writing to a String does not fail.
            let _ = write!(line, " of {:.1} s", total.as_secs_f64());
        }
        let _ = write!(line, ", {samples} samples, {lost} lost");
        if self.total.is_none() {
            line.push_str(" (Ctrl-C to stop)");
        }
        // The last column stays free, for terminals that wrap on it. The line is ASCII.
        line.truncate(self.width.saturating_sub(1));
        Some(format!("{ERASE}{line}"))
    }

    /// The text that removes the line, if there is one.
    pub fn finish(&mut self) -> Option<&'static str> {
        self.drawn_at.take().map(|_| ERASE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_at_most_five_times_a_second_and_cleans_up() {
        let mut progress = Progress::new(Some(Duration::from_secs(10)), 80);
        assert_eq!(progress.finish(), None);
        let first = progress.update(Duration::ZERO, 0, 0).unwrap();
        assert_eq!(first, "\r\x1b[Ksampling 0.0 s of 10.0 s, 0 samples, 0 lost");
        assert_eq!(progress.update(Duration::from_millis(199), 9, 0), None);
        let second = progress.update(Duration::from_millis(200), 39, 2).unwrap();
        assert_eq!(second, "\r\x1b[Ksampling 0.2 s of 10.0 s, 39 samples, 2 lost");
        assert_eq!(progress.finish(), Some("\r\x1b[K"));
        assert_eq!(progress.finish(), None);
    }

    #[test]
    fn fits_narrow_terminals() {
        for width in 0..60 {
            let line = Progress::new(None, width).update(Duration::from_secs(3600), 1, 1).unwrap();
            assert_eq!(line.len() - ERASE.len(), width.saturating_sub(1).min(53), "{line}");
        }
    }
}
