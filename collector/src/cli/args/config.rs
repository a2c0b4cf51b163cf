//! Options of `config`.

use super::{Command, Options, Stop};

pub(super) fn parse(options: &mut Options<'_>) -> Result<Command, Stop> {
    let mut example = false;
    while let Some(given) = options.next()? {
        match given.name() {
            "--example" => example = true,
            _ => return Err(given.unread()),
        }
    }
    if example { Ok(Command::ConfigExample) } else { Err("config prints an example: add --example".into()) }
}
