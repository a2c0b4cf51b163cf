//! Why and where, found in the text of a log. The kernel promises no format, so what is not understood is only left out
//! here: the text stays.

use crate::insn::InsnIdx;
use crate::text;

/// Lines of words that a reason may have; a kernel says more only in tables.
const MOST_LINES: usize = 4;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub reason: Option<String>,
    pub insn: Option<InsnIdx>,
    pub suggestion: Option<String>,
}

impl Summary {
    pub fn of(text: &str) -> Self {
        let mut insn = None;
        let mut words: Vec<&str> = Vec::new();
        for line in trace(text) {
            if let Some((at, _)) = instruction(line) {
                insn = Some(at);
                words.clear();
            } else if !is_state(line) {
                words.push(line.trim());
            }
        }
        let mut summary = Self { insn, ..Self::default() };
        let skip = words.len().saturating_sub(MOST_LINES);
        summary.reason = joined(words.into_iter().skip(skip), "; ");
        summary.read_report(text);
        summary
    }

    /// The report that Linux 7.3 adds: headings at the left, what they are about indented below.
    fn read_report(&mut self, text: &str) {
        let report: Vec<&str> = text.lines().skip_while(|l| !l.starts_with(REPORT)).collect();
        if let Some(reason) = section(&report, "Reason:") {
            let terse = self.reason.take().map_or(String::new(), |terse| format!(" ({terse})"));
            self.reason = Some(format!("{reason}{terse}"));
        }
        self.suggestion = section(&report, "Suggestion:");
        let place = section(&report, "At:");
        let at = place.as_deref().and_then(|p| p.strip_prefix("insn ")).and_then(|p| {
            let end = p.find(|c: char| !c.is_ascii_digit()).unwrap_or(p.len());
            p.get(..end)?.parse().ok().map(InsnIdx)
        });
        self.insn = at.or(self.insn);
    }
}

/// First words of the report of Linux 7.3.
const REPORT: &str = "Verification failed:";

/// The indented lines under a heading of a report, as one.
fn section(report: &[&str], heading: &str) -> Option<String> {
    let after = report.iter().skip_while(|l| l.trim_end() != heading).skip(1);
    joined(after.take_while(|l| l.starts_with(' ')).map(|l| l.trim()).take(MOST_LINES), " ")
}

fn joined<'t>(lines: impl Iterator<Item = &'t str>, separator: &str) -> Option<String> {
    let lines: Vec<&str> = lines.filter(|l| !l.is_empty()).collect();
    (!lines.is_empty()).then(|| text::join(&lines, separator))
}

/// The part of a log that follows the program, instruction by instruction: without statistics at its end and without the
/// report of Linux 7.3.
pub(super) fn trace(text: &str) -> impl Iterator<Item = &str> {
    text.lines().take_while(|l| !l.starts_with(REPORT)).filter(|l| !l.is_empty() && !is_statistics(l))
}

/// Whether the verifier did not get to any instruction, and what it dislikes are those words or nothing.
pub(super) fn is_without_instructions(text: &str, words: &str) -> bool {
    if trace(text).any(|line| instruction(line).is_some()) {
        return false;
    }
    let report = text.lines().skip_while(|line| !line.starts_with(REPORT));
    let mut dislikes = trace(text).filter(|line| !is_state(line)).chain(report).peekable();
    dislikes.peek().is_none() || dislikes.any(|line| text::contains(line, words))
}

/// `12: (85) call unknown#195896080`: index and what follows.
fn instruction(line: &str) -> Option<(InsnIdx, &str)> {
    let (number, rest) = text::split_once(line, ": (")?;
    Some((InsnIdx(number.trim().parse().ok()?), rest))
}

/// The instruction, if it is a call that the loader put where something is missing: of a number that no helper has.
pub(super) fn poisoned_call(line: &str) -> Option<InsnIdx> {
    let (at, rest) = instruction(line)?;
    text::contains(rest, "call unknown#").then_some(at)
}

/// Lines that say what the verifier knows or does, not what it dislikes: registers (`12: R1=ctx()`, ` R0=inv(id=0)`,
/// `frame1: R1=...`, `; source`), paths (`from 3 to 5: ...`) and functions.
fn is_state(line: &str) -> bool {
    let line = line.trim_start();
    let after_number = || {
        let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
        rest.len() < line.len() && rest.starts_with(':')
    };
    const STARTS: [&str; 19] = [
        ";",
        "from ",
        "func#",
        "Func#",
        "Live regs",
        "mark_precise",
        "last_idx",
        "regs=",
        "parent ",
        "frame",
        "caller",
        "callee",
        "returning from",
        "to caller",
        "Validating ",
        "propagating",
        "reg ",
        "stack=",
        "arg#0 reference",
    ];
    after_number() || STARTS.iter().any(|s| line.starts_with(s)) || is_registers(line)
}

/// `R0=inv(id=0) R1_w=ctx()`, which older kernels print below an instruction.
fn is_registers(line: &str) -> bool {
    let Some(rest) = line.strip_prefix('R') else { return false };
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    let rest =
        rest.strip_prefix('_').map_or(rest, |r| r.trim_start_matches(|c: char| c.is_ascii_lowercase()));
    rest.starts_with('=')
}

/// The verifier ends with "processed N insns ..." and similar, which say nothing of the failure.
fn is_statistics(line: &str) -> bool {
    ["processed ", "verification time ", "stack depth ", "insns processed"]
        .iter()
        .any(|s| line.starts_with(s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_the_kind_is_silent_or_has_its_words() {
        let words = "programs can be sleepable";
        let statistics = "processed 0 insns (limit 1000000)\n";
        for (text, expected) in [
            ("", true),
            (statistics, true),
            ("func#0 @0\nOnly fentry programs can be sleepable\n", true),
            ("last insn is not an exit or jmp\n", false),
            ("0: (b7) r0 = 0\nprograms can be sleepable\n", false),
            // Linux 7.3 may say it in its report alone.
            ("Verification failed: x\n\nReason:\n  Only some programs can be sleepable.\n", true),
            ("Verification failed: x\n\nReason:\n  Something else.\n", false),
        ] {
            assert_eq!(is_without_instructions(text, words), expected, "{text}");
        }
    }
}
