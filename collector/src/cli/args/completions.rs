//! Operands of `completions`.

use collector::key;

use super::definition::SHELLS;
use super::{Command, Options, Stop};

/// A shell that completes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub(super) fn parse(options: &mut Options<'_>) -> Result<Command, Stop> {
    let mut shell = None;
    while let Some(given) = options.next()? {
        if given.option.is_some() {
            return Err(given.unread());
        }
        let name = given.string()?;
        if shell.is_some() {
            return Err("completions are of one shell at a time".into());
        }
        shell = Some(match &*name {
            "bash" => Shell::Bash,
            "zsh" => Shell::Zsh,
            "fish" => Shell::Fish,
            _ => return Err(key::unknown("shell", &name, SHELLS).into()),
        });
    }
    shell.map(Command::Completions).ok_or_else(|| "name a shell: bash, zsh or fish".into())
}
