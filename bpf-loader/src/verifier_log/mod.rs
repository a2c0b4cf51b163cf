//! What the verifier said, cut to what a person needs.

mod summary;
#[cfg(all(test, feature = "verifier-reasons"))]
mod tests;

use std::fmt;

use crate::btf::Btf;
use crate::btf::ext::{LineInfo, Record};
use crate::bytes::{Bytes, Endian};
use crate::insn::InsnIdx;
use summary::Summary;

/// Lines of the log shown by `{}`; `{:#}` shows all.
const SHOWN_LINES: usize = 12;

/// The verifier's log of a program that it refused.
///
/// `{}` shows why and where, in words and by the line of the source, and the log's last lines; `{:#}` the whole log. Without the
/// feature `verifier-reasons`, the last lines say why and where, or they do not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierLog {
    text: String,
    summary: Summary,
    source: Option<SourceLine>,
    /// What is missing in this kernel and stands behind the instruction that the log ends with.
    missing: Vec<String>,
    /// The kernel had more to say than the largest buffer holds.
    truncated: bool,
}

/// A line of the program's source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceLine {
    /// File, as the compiler was given it.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Its text; empty if the compiler left it out (GCC does).
    pub text: String,
}

/// What a program knows of itself that its verifier does not print.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context<'a> {
    /// Instructions that were poisoned, and what they asked for.
    pub poisoned: &'a [(InsnIdx, String)],
    /// `struct bpf_line_info` records of 16 bytes in host order.
    pub line_info: &'a [u8],
    /// The BTF that holds the strings of `line_info`.
    pub btf: Option<&'a [u8]>,
    /// The log was cut.
    pub truncated: bool,
}

impl VerifierLog {
    /// Keeps the log, and finds what it complains about.
    pub fn new(text: &str, context: &Context<'_>) -> Self {
        let summary = if cfg!(feature = "verifier-reasons") { Summary::of(text) } else { Summary::default() };
        let named = |at: InsnIdx| text.lines().any(|line| summary::poisoned_call(line) == Some(at));
        let missing = context.poisoned.iter().filter(|(at, _)| named(*at)).map(|(_, what)| what.clone());
        Self {
            source: summary.insn.and_then(|at| context.source_line(at)),
            missing: missing.collect(),
            truncated: context.truncated,
            text: text.trim_end().to_owned(),
            summary,
        }
    }

    /// The whole text, as the kernel gave it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Was the program refused for what it is, rather than for what it does? The verifier then says nothing, or that such
    /// programs may not sleep.
    pub(crate) fn is_about_the_kind(&self) -> bool {
        summary::is_without_instructions(&self.text, "programs can be sleepable")
    }

    /// Why, in the verifier's words: what it says after the last instruction, or from Linux 7.3 its reason.
    pub fn reason(&self) -> Option<&str> {
        self.summary.reason.as_deref()
    }

    /// What the verifier suggests (Linux 7.3).
    pub fn suggestion(&self) -> Option<&str> {
        self.summary.suggestion.as_deref()
    }

    /// The instruction that the log ends with, counted from the start of the program and its subprograms.
    pub fn insn(&self) -> Option<InsnIdx> {
        self.summary.insn
    }

    /// The line of the source that this instruction comes from.
    pub fn source(&self) -> Option<&SourceLine> {
        self.source.as_ref()
    }

    /// Types, members, kernel functions that the program needs and this kernel does not have, if the verifier met one.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }
}

impl Context<'_> {
    /// The last record that begins at the instruction or before it.
    fn source_line(&self, at: InsnIdx) -> Option<SourceLine> {
        let btf = Btf::parse(self.btf?).ok()?;
        let records = self.line_info.chunks_exact(LineInfo::SIZE as usize);
        let records = records.filter_map(|r| LineInfo::decode(Bytes::new(r, Endian::HOST)));
        // Records for the kernel count instructions, not bytes, and are sorted.
        let found = records.take_while(|r| r.insn_offset <= at.0).last()?;
        let text = |offset| btf.string_bytes(offset).map(|s| String::from_utf8_lossy(s).trim().to_owned());
        Some(SourceLine {
            file: text(found.file_name).ok()?,
            line: found.line_col >> 10,
            text: text(found.line).unwrap_or_default(),
        })
    }
}

impl fmt::Display for VerifierLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.text.is_empty() {
            return Ok(());
        }
        // Without the feature, the compiler knows that it is empty.
        let summary = cfg!(feature = "verifier-reasons").then_some(&self.summary);
        if let Some(reason) = summary.and_then(|summary| summary.reason.as_ref()) {
            write!(f, "\n  reason: {reason}")?;
        }
        if let Some(at) = summary.and_then(|summary| summary.insn) {
            write!(f, "\n  at: instruction {at}")?;
            if let Some(source) = &self.source {
                write!(f, ", {source}")?;
            }
        }
        for what in &self.missing {
            write!(f, "\n  this kernel does not have {what}, which the program uses without checking")?;
        }
        if let Some(suggestion) = summary.and_then(|summary| summary.suggestion.as_ref()) {
            write!(f, "\n  suggestion: {suggestion}")?;
        }
        if self.truncated {
            write!(f, "\n  the verifier's log is longer than can be asked for: a part of it is missing")?;
        }
        // What stands in the words above is not repeated, unless all was asked for.
        let lines: Vec<&str> = match f.alternate() {
            true => self.text.lines().collect(),
            false => summary::trace(&self.text).collect(),
        };
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

impl fmt::Display for SourceLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)?;
        if !self.text.is_empty() {
            write!(f, ": {}", self.text)?;
        }
        Ok(())
    }
}

#[cfg(all(test, not(feature = "verifier-reasons")))]
mod tests_without_reasons {
    use super::*;

    #[test]
    fn the_last_lines_are_shown_as_they_are() {
        let log = VerifierLog::new("0: (95) exit\nR0 !read_ok\nprocessed 1 insns\n", &Context::default());
        assert_eq!(log.to_string(), "\n  0: (95) exit\n  R0 !read_ok");
        assert_eq!((log.reason(), log.insn(), log.source()), (None, None, None));
    }
}
