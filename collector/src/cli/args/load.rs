//! Options of `load`.

use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;

use super::{Command, duration, text};

#[derive(Debug, PartialEq)]
pub struct Load {
    pub objects: Vec<PathBuf>,
    pub json: bool,
    pub per_program: bool,
    pub attach: bool,
    /// With `attach`: `None` until interrupted.
    pub duration: Option<Duration>,
    pub pin: Option<PathBuf>,
    pub btf: Option<PathBuf>,
}

const HELP: &str = "\
Usage: ebpf-otlp load OBJECT... [OPTIONS]

Loads every program and map of each object into the kernel, and lets go of them again.

  --per-program     load each program alone, so that one failure does not hide another
  --attach          attach each program where its section says, and each struct_ops map, until interrupted
  --duration D      with --attach: how long, as 10s, 500ms, 2m
  --pin DIR         pin maps, programs and links in a BPF file system, as DIR/maps/NAME, DIR/programs/NAME,
                    DIR/links/NAME, where they stay; maps declared as pinned are reused if they are there
  --btf FILE        the kernel's types, for kernels that carry none: BTF, or an ELF file with it
  --json            one line of JSON an object
";

pub(super) fn parse(parser: &mut lexopt::Parser) -> Result<Command, String> {
    let mut load = Load {
        objects: Vec::new(),
        json: false,
        per_program: false,
        attach: false,
        duration: None,
        pin: None,
        btf: None,
    };
    while let Some(arg) = parser.next().map_err(text)? {
        match arg {
            Long("json") => load.json = true,
            Long("per-program") => load.per_program = true,
            Long("attach") => load.attach = true,
            Long("duration") => load.duration = Some(duration("--duration", parser)?),
            Long("btf") => load.btf = Some(parser.value().map_err(text)?.into()),
            Long("pin") => load.pin = Some(parser.value().map_err(text)?.into()),
            Short('h') | Long("help") => return Ok(Command::Help(HELP)),
            Value(path) => load.objects.push(path.into()),
            other => return Err(text(other.unexpected())),
        }
    }
    if load.objects.is_empty() {
        return Err("name at least one object to load".into());
    }
    if load.per_program && (load.attach || load.pin.is_some()) {
        return Err(
            "--per-program lets go of each program before the next: it goes with neither --attach nor --pin"
                .into(),
        );
    }
    if load.duration.is_some() && !load.attach {
        return Err("--duration says how long to stay attached: it needs --attach".into());
    }
    Ok(Command::Load(load))
}
