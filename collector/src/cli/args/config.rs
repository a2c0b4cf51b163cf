//! Options of `config`.

use lexopt::prelude::*;

use super::{Command, text};

const HELP: &str = "\
Usage: ebpf-otlp config --example

Prints a configuration file for `run --config`: every key, commented out, with its default and what it does.
";

pub(super) fn parse(parser: &mut lexopt::Parser) -> Result<Command, String> {
    let mut example = false;
    while let Some(arg) = parser.next().map_err(text)? {
        match arg {
            Long("example") => example = true,
            Short('h') | Long("help") => return Ok(Command::Help(HELP)),
            other => return Err(text(other.unexpected())),
        }
    }
    if example { Ok(Command::ConfigExample) } else { Err("config prints an example: add --example".into()) }
}
