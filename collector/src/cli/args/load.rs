//! Options of `load`.

use std::path::PathBuf;
use std::time::Duration;

use super::{Command, Options, Stop};

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

pub(super) fn parse(options: &mut Options<'_>) -> Result<Command, Stop> {
    let mut load = Load {
        objects: Vec::new(),
        json: false,
        per_program: false,
        attach: false,
        duration: None,
        pin: None,
        btf: None,
    };
    while let Some(given) = options.next()? {
        match given.name() {
            "--json" => load.json = true,
            "--per-program" => load.per_program = true,
            "--attach" => load.attach = true,
            "--duration" => load.duration = Some(given.duration()?),
            "--btf" => load.btf = Some(given.path()),
            "--pin" => load.pin = Some(given.path()),
            "" => load.objects.push(given.path()),
            _ => return Err(given.unread()),
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
