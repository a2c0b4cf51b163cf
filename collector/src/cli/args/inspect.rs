//! Options of `inspect`.

use std::path::PathBuf;

use lexopt::prelude::*;

use super::{Command, text};

#[derive(Debug, PartialEq)]
pub struct Inspect {
    pub objects: Vec<PathBuf>,
    pub json: bool,
}

const HELP: &str = "\
Usage: ebpf-otlp inspect OBJECT... [--json]

Shows the programs of each object with the maps, functions and kernel types that they use, its maps and its BTF. Asks
no kernel and needs no privileges. Exits 1 if a part of an object makes no sense.

  --json            one line of JSON an object, with every relocation
";

pub(super) fn parse(parser: &mut lexopt::Parser) -> Result<Command, String> {
    let mut inspect = Inspect { objects: Vec::new(), json: false };
    while let Some(arg) = parser.next().map_err(text)? {
        match arg {
            Long("json") => inspect.json = true,
            Short('h') | Long("help") => return Ok(Command::Help(HELP)),
            Value(path) => inspect.objects.push(path.into()),
            other => return Err(text(other.unexpected())),
        }
    }
    if inspect.objects.is_empty() {
        return Err("name at least one object to inspect".into());
    }
    Ok(Command::Inspect(inspect))
}
