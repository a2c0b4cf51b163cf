//! What the verifier said, cut to what a person needs.

use std::fmt;

use crate::insn::InsnIdx;

/// Lines shown by `{}`; `{:#}` shows all.
const SHOWN_LINES: usize = 20;

/// The verifier's log of a program that it refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierLog {
    text: String,
    /// Relocations that this kernel has no answer to, among the instructions that the log names.
    poisoned: Vec<String>,
}

impl VerifierLog {
    /// Keeps the log, and finds which of the poisoned instructions it complains about.
    pub fn new(text: &str, poisoned: &[(InsnIdx, String)]) -> Self {
        let named = |at: InsnIdx| text.lines().any(|line| instruction(line) == Some(at));
        let poisoned = poisoned.iter().filter(|(at, _)| complains(text) && named(*at));
        Self { text: text.trim_end().to_owned(), poisoned: poisoned.map(|(_, what)| what.clone()).collect() }
    }

    /// The whole text, as the kernel gave it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the poisoned instruction asked for, if the verifier met one: the program needs it on this kernel.
    pub fn poisoned(&self) -> &[String] {
        &self.poisoned
    }
}

/// The marker that stands in a poisoned instruction, as the verifier prints it: "invalid func unknown#195896080".
fn complains(text: &str) -> bool {
    text.contains(&crate::core_relo::POISON.to_string())
}

/// `12: (85) call unknown#195896080` is about instruction 12.
fn instruction(line: &str) -> Option<InsnIdx> {
    let (number, rest) = line.split_once(": (")?;
    let poison = crate::core_relo::POISON.to_string();
    rest.contains(&poison).then(|| number.trim().parse().ok().map(InsnIdx))?
}

impl fmt::Display for VerifierLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for what in &self.poisoned {
            write!(f, "\n  this kernel does not have {what}, which the program uses without checking")?;
        }
        let lines: Vec<&str> = self.text.lines().filter(|l| !is_statistics(l)).collect();
        let skip = if f.alternate() { 0 } else { lines.len().saturating_sub(SHOWN_LINES) };
        if skip > 0 {
            write!(f, "\n  ... ({skip} lines of the verifier's log left out)")?;
        }
        for line in lines.iter().skip(skip) {
            write!(f, "\n  {line}")?;
        }
        Ok(())
    }
}

/// The verifier ends with "processed N insns ..." and similar, which say nothing of the failure.
fn is_statistics(line: &str) -> bool {
    ["processed ", "verification time ", "stack depth "].iter().any(|s| line.starts_with(s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_shown_and_all_on_request() {
        let text: String = (0..50).map(|i| format!("line {i}\n")).collect::<String>() + "processed 3 insns\n";
        let log = VerifierLog::new(&text, &[]);
        let short = log.to_string();
        assert!(
            short.contains("line 49") && short.contains("line 30") && !short.contains("line 29\n"),
            "{short}"
        );
        assert!(short.contains("30 lines of the verifier's log left out"));
        assert!(!short.contains("processed"));
        assert!(format!("{log:#}").contains("line 0"));
    }

    #[test]
    fn the_poisoned_relocation_is_named() {
        let text = "11: (b7) r1 = 0\n12: (85) call unknown#195896080\ninvalid func unknown#195896080\n";
        let poisoned =
            [(InsnIdx(12), "task_struct.no_such".to_owned()), (InsnIdx(40), "pid.other".to_owned())];
        let log = VerifierLog::new(text, &poisoned);
        assert_eq!(log.poisoned(), ["task_struct.no_such"]);
        assert!(log.to_string().contains("does not have task_struct.no_such"));
        // A failure that has nothing to do with poison does not name it.
        assert_eq!(
            VerifierLog::new("12: (85) call bpf_x#1\nR1 invalid\n", &poisoned).poisoned(),
            [] as [&str; 0]
        );
    }
}
