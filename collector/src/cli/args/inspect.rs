//! Options of `inspect`.

use std::path::PathBuf;

use super::{Command, Options, Stop};

#[derive(Debug, PartialEq)]
pub struct Inspect {
    pub objects: Vec<PathBuf>,
    pub json: bool,
}

pub(super) fn parse(options: &mut Options<'_>) -> Result<Command, Stop> {
    let mut inspect = Inspect { objects: Vec::new(), json: false };
    while let Some(given) = options.next()? {
        match given.name() {
            "--json" => inspect.json = true,
            "" => inspect.objects.push(given.path()),
            _ => return Err(given.unread()),
        }
    }
    if inspect.objects.is_empty() {
        return Err("name at least one object to inspect".into());
    }
    Ok(Command::Inspect(inspect))
}
