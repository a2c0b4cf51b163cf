//! Where finished windows go.

use std::io::{self, IsTerminal, Write};

use collector::export::config::process_env;
use collector::model::Profile;
use collector::output::terminal::{Style, terminal_height};
use collector::output::timeline::Timeline;
use collector::output::top::{self, Redrawn, Top};

use crate::cli::send_profiles::ProfileSender;

/// Most samples (by process, thread and stack) that outputs of a whole run hold; what comes then is counted as lost.
const MAX_WHOLE: usize = 1 << 20;
/// Functions shown where no terminal says how many there is room for.
const ROWS: usize = 20;

/// Windows, and what is made of them.
pub struct Collected {
    whole: Whole,
    /// Whether anything but the receiver wants the samples.
    pub keep: bool,
    pub sender: Option<ProfileSender>,
    /// For the page of a run that shows when something ran.
    pub timeline: Option<Timeline>,
    pub top: Option<TopView>,
    /// What the receiver gets later, where windows are shorter than its own.
    unsent: Whole,
}

impl Collected {
    pub fn new(
        sender: Option<ProfileSender>,
        keep: bool,
        timeline: Option<Timeline>,
        top: Option<TopView>,
    ) -> Self {
        Self { whole: Whole::default(), keep, sender, timeline, top, unsent: Whole::default() }
    }

    /// Whether windows are to be a second long.
    pub fn is_by_second(&self) -> bool {
        self.timeline.is_some() || self.top.is_some()
    }

    /// Takes a window.
    pub fn take(&mut self, window: Profile) -> io::Result<()> {
        let by_second = self.is_by_second();
        if let Some(timeline) = &mut self.timeline {
            timeline.add(&window);
        }
        match &mut self.sender {
            Some(_) if by_second => self.unsent.push(window.clone()),
            Some(sender) => sender.send(&window),
            None => {}
        }
        let shown = self.top.as_mut().map_or(Ok(()), |top| top.draw(&window));
        if self.keep {
            self.whole.push(window);
        }
        shown
    }

    /// Sends what was kept for the receiver.
    pub fn send(&mut self) {
        let unsent = std::mem::take(&mut self.unsent);
        if let Some(sender) = self.sender.as_mut().filter(|_| !unsent.parts.is_empty()) {
            sender.send(&unsent.finish());
        }
    }

    /// Everything, and the sender.
    pub fn finish(self) -> (Profile, Option<ProfileSender>, Option<Timeline>) {
        (self.whole.finish(), self.sender, self.timeline)
    }
}

/// Windows that are added up: each is merged with one about as large, so that a long run of short windows costs little.
#[derive(Default)]
struct Whole {
    /// By time, each much larger than the next.
    parts: Vec<Profile>,
    samples: usize,
    no_room: u64,
}

impl Whole {
    fn push(&mut self, window: Profile) {
        if self.samples >= MAX_WHOLE {
            let count = window.samples.iter().map(|sample| sample.count).sum::<u64>();
            self.no_room = self.no_room.saturating_add(count);
            return;
        }
        self.parts.push(window);
        while let [.., larger, last] = &*self.parts {
            if larger.samples.len() > 2 * last.samples.len() {
                break;
            }
            self.merge_last();
        }
        self.samples = self.parts.iter().map(|part| part.samples.len()).sum();
    }

    fn merge_last(&mut self) {
        if let (Some(later), Some(earlier)) = (self.parts.pop(), self.parts.last_mut()) {
            earlier.absorb(later);
        }
    }

    fn finish(mut self) -> Profile {
        while self.parts.len() > 1 {
            self.merge_last();
        }
        let mut whole = self.parts.pop().unwrap_or_default();
        whole.losses.table_full = whole.losses.table_full.saturating_add(self.no_room);
        whole
    }
}

/// `--top`: redrawn in place on a terminal, elsewhere one text after the other.
pub struct TopView {
    top: Top,
    drawn: Redrawn,
}

impl TopView {
    pub fn new(host: String) -> Self {
        Self { top: Top::new(host), drawn: Redrawn::default() }
    }

    fn draw(&mut self, window: &Profile) -> io::Result<()> {
        self.top.add(window);
        let stdout = io::stdout();
        let style = Style::detect(&stdout, process_env);
        let dumb = process_env("TERM").is_some_and(|term| term == "dumb");
        let in_place = stdout.is_terminal() && !dumb;
        let room = terminal_height(&stdout).filter(|_| in_place);
        // The last line is the cursor's.
        let rows = room.map_or(ROWS, |room| room.saturating_sub(top::HEADER + 1).max(1));
        let mut text = Vec::new();
        self.top.write(rows, style, &mut text)?;
        let text = String::from_utf8_lossy(&text);
        let text = if in_place { self.drawn.replace(&text) } else { format!("{text}\n") };
        let mut out = stdout.lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// Something else has been written.
    pub fn keep(&mut self) {
        self.drawn.keep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use collector::model::{Process, ProcessIdx, Sample, StackIdx, Thread, ThreadIdx};

    fn window(second: u64, pid: u32) -> Profile {
        Profile {
            start_unix_nanos: second * 1_000_000_000,
            duration_nanos: 1_000_000_000,
            period_nanos: 10_000_000,
            processes: vec![Process { pid, ..Process::default() }],
            threads: vec![Thread::new(pid, "main")],
            stacks: vec![Vec::new()],
            samples: vec![Sample {
                process: ProcessIdx(0),
                thread: ThreadIdx(0),
                stack: StackIdx(0),
                count: 1,
            }],
            ..Profile::default()
        }
    }

    #[test]
    fn seconds_add_up_to_the_whole_in_their_order() {
        let mut whole = Whole::default();
        let mut one_by_one = Profile::default();
        for second in 0..100 {
            let window = window(second + 1, second as u32 % 7);
            one_by_one.absorb(window.clone());
            whole.push(window);
            assert!(whole.parts.len() < 12, "{}", whole.parts.len());
        }
        assert_eq!(whole.finish(), one_by_one);
        assert_eq!(Whole::default().finish(), Profile::default());
    }

    #[test]
    fn what_finds_no_room_is_lost() {
        let mut whole = Whole { samples: MAX_WHOLE, ..Whole::default() };
        whole.push(window(1, 1));
        assert_eq!(whole.finish().losses.table_full, 1);
    }
}
