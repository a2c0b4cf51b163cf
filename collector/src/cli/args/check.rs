//! Options of `check`.

use std::path::PathBuf;

use super::{Command, Options, Stop};

#[derive(Debug, Default, PartialEq)]
pub struct Check {
    pub json: bool,
    /// The kernel's types.
    pub btf: Option<PathBuf>,
}

pub(super) fn parse(options: &mut Options<'_>) -> Result<Command, Stop> {
    let mut check = Check::default();
    while let Some(given) = options.next()? {
        match given.name() {
            "--btf" => check.btf = Some(given.path()),
            "--json" => check.json = true,
            _ => return Err(given.unread()),
        }
    }
    Ok(Command::Check(check))
}
