//! Options of `check`.

use super::{Command, Options, Stop};

pub(super) fn parse(options: &mut Options<'_>) -> Result<Command, Stop> {
    let mut json = false;
    while let Some(given) = options.next()? {
        match given.name() {
            "--json" => json = true,
            _ => return Err(given.unread()),
        }
    }
    Ok(Command::Check { json })
}
