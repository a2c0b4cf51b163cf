//! Options of `check`.

use lexopt::prelude::*;

use super::{Command, text};

const HELP: &str = "\
Usage: ebpf-otlp check [--json]

Says what this kernel, its BTF and this user's capabilities allow, and what to do about what is missing.
Exits 0 if `profile` can run, 1 if not.
";

pub(super) fn parse(parser: &mut lexopt::Parser) -> Result<Command, String> {
    let mut json = false;
    while let Some(arg) = parser.next().map_err(text)? {
        match arg {
            Long("json") => json = true,
            Short('h') | Long("help") => return Ok(Command::Help(HELP)),
            other => return Err(text(other.unexpected())),
        }
    }
    Ok(Command::Check { json })
}
