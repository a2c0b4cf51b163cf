//! Protobuf messages, field by field and in place.

use super::ReadError;
use crate::export::reply::varint;

/// A message, or what is left of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    rest: &'a [u8],
    /// Where `rest` begins in the whole.
    offset: usize,
    /// What it is, for errors.
    what: &'static str,
}

/// A field's value. Of numbers, the type tells what the bits mean.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(Message<'a>),
}

impl<'a> Message<'a> {
    pub fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, offset: 0, what }
    }

    /// The bytes, where they are no message.
    pub fn bytes(self) -> &'a [u8] {
        self.rest
    }

    fn malformed(&self) -> ReadError {
        ReadError::Malformed { what: self.what, offset: self.offset }
    }

    fn number(&mut self) -> Result<u64, ReadError> {
        let mut rest = self.rest;
        let value = varint(&mut rest).ok_or_else(|| self.malformed())?;
        self.offset += self.rest.len() - rest.len();
        self.rest = rest;
        Ok(value)
    }

    fn take(&mut self, len: usize) -> Result<Message<'a>, ReadError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(|| self.malformed())?;
        let message = Message { rest: taken, offset: self.offset, what: self.what };
        self.offset += len;
        self.rest = rest;
        Ok(message)
    }

    /// The message that its first bytes say the length of, taken off.
    pub fn delimited(&mut self) -> Result<Message<'a>, ReadError> {
        let len = self.number()?;
        self.take(usize::try_from(len).unwrap_or(usize::MAX))
    }

    fn fixed<const N: usize>(&mut self) -> Result<u64, ReadError> {
        let taken = self.take(N)?.rest;
        Ok(taken.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// The next field with its number.
    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, ReadError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let start = self.malformed();
        let key = self.number()?;
        let value = match key & 7 {
            0 => Value::Number(self.number()?),
            1 => Value::Number(self.fixed::<8>()?),
            2 => Value::Bytes(self.delimited()?),
            5 => Value::Number(self.fixed::<4>()?),
            _ => return Err(start),
        };
        Ok(Some((key >> 3, value)))
    }
}

impl<'a> Value<'a> {
    /// A message that is called `what`.
    pub fn message(self, what: &'static str) -> Result<Message<'a>, ReadError> {
        match self {
            Self::Bytes(message) => Ok(Message { what, ..message }),
            Self::Number(_) => Err(ReadError::Malformed { what, offset: 0 }),
        }
    }

    pub fn number(self) -> u64 {
        match self {
            Self::Number(number) => number,
            // Another type than the field has: an unknown field, by protobuf's rules.
            Self::Bytes(_) => 0,
        }
    }

    pub fn text(self) -> &'a [u8] {
        match self {
            Self::Bytes(message) => message.rest,
            Self::Number(_) => &[],
        }
    }

    /// The numbers of a repeated field, packed or one of them.
    pub fn numbers(self, mut each: impl FnMut(u64)) -> Result<(), ReadError> {
        match self {
            Self::Number(number) => each(number),
            Self::Bytes(mut packed) => {
                while !packed.rest.is_empty() {
                    each(packed.number()?);
                }
            }
        }
        Ok(())
    }
}

/// Every field with its number.
pub(super) fn each<'a>(
    mut message: Message<'a>,
    mut take: impl FnMut(u64, Value<'a>) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    while let Some((field, value)) = message.next()? {
        take(field, value)?;
    }
    Ok(())
}
