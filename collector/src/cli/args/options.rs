//! The words behind a command, each as its definition has it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use collector::key::Quoted;
use collector::{key, units};
use lexopt::prelude::*;

use super::definition::{Definition, Opt};

/// Why parsing ends early.
#[derive(Debug, PartialEq)]
pub enum Stop {
    /// `--help`.
    Help,
    Wrong(String),
}

impl From<String> for Stop {
    fn from(what: String) -> Self {
        Self::Wrong(what)
    }
}

impl From<&str> for Stop {
    fn from(what: &str) -> Self {
        Self::Wrong(what.to_owned())
    }
}

impl From<lexopt::Error> for Stop {
    fn from(error: lexopt::Error) -> Self {
        Self::Wrong(say(error))
    }
}

/// What is wrong, with what the user wrote, which lexopt shows by `{:?}`: small builds have no code for that.
pub fn say(error: lexopt::Error) -> String {
    use lexopt::Error::{NonUnicodeValue, UnexpectedArgument, UnexpectedValue};
    let quoted = |text: &OsString| Quoted(&text.to_string_lossy()).to_string();
    match error {
        UnexpectedArgument(value) => format!("unexpected argument {}", quoted(&value)),
        UnexpectedValue { option, value } => {
            format!("unexpected argument for option '{option}': {}", quoted(&value))
        }
        NonUnicodeValue(value) => format!("argument is invalid unicode: {}", quoted(&value)),
        error => error.to_string(),
    }
}

/// What is left of the command line.
pub struct Options<'p> {
    parser: &'p mut lexopt::Parser,
    definition: &'static Definition,
}

/// An option with its value, or an operand.
pub struct Given {
    /// `None`: an operand.
    pub option: Option<&'static Opt>,
    value: OsString,
}

impl<'p> Options<'p> {
    pub fn new(parser: &'p mut lexopt::Parser, definition: &'static Definition) -> Self {
        Self { parser, definition }
    }

    /// The next one.
    pub fn next(&mut self) -> Result<Option<Given>, Stop> {
        let Some(arg) = self.parser.next()? else { return Ok(None) };
        let name = match arg {
            Short('h') | Long("help") => return Err(Stop::Help),
            Value(value) if self.definition.operands.is_some() => {
                return Ok(Some(Given { option: None, value }));
            }
            Long(name) => format!("--{name}"),
            other => return Err(other.unexpected().into()),
        };
        let options = self.definition.options;
        let Some(option) = options.iter().copied().find(|option| option.name == name) else {
            let known = options.iter().map(|option| option.name).chain(["--help"]);
            return Err(key::unknown("option", &name, known).into());
        };
        let value = if option.value.is_empty() { OsString::from("true") } else { self.parser.value()? };
        Ok(Some(Given { option: Some(option), value }))
    }
}

impl Given {
    /// With its dashes; empty for an operand.
    pub fn name(&self) -> &'static str {
        self.option.map_or("", |option| option.name)
    }

    pub fn path(&self) -> PathBuf {
        self.value.clone().into()
    }

    /// `true` where the option takes no value.
    pub fn string(&self) -> Result<String, String> {
        self.value.to_str().map(str::to_owned).ok_or_else(|| {
            self.wrong(&format!("{} is not valid UTF-8", Quoted(&self.value.to_string_lossy())))
        })
    }

    #[cfg(feature = "terminal")]
    pub fn number(&self) -> Result<u32, String> {
        let value = self.string()?;
        value.parse().map_err(|_| self.wrong(&format!("{value} is not a whole number of 32 bits")))
    }

    /// As [`units::size`].
    #[cfg(feature = "terminal")]
    pub fn size(&self) -> Result<u64, String> {
        units::size(&self.string()?).map_err(|e| self.wrong(&e))
    }

    /// As [`units::duration`].
    pub fn duration(&self) -> Result<Duration, String> {
        units::duration(&self.string()?).map_err(|e| self.wrong(&e))
    }

    fn wrong(&self, what: &str) -> String {
        if self.option.is_none() { what.to_owned() } else { format!("{} {what}", self.name()) }
    }

    /// For an option that the definition has and the command does not read: a fault of ours, which a test looks for.
    pub fn unread(&self) -> Stop {
        format!("{} {}", self.name(), UNREAD).into()
    }
}

/// What [`Given::unread`] says.
pub const UNREAD: &str = "is not read by this command";
