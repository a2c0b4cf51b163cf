//! Messages in a gRPC body: a byte of flags, four of length, the message.

use std::borrow::Cow;
use std::fmt;

use crate::export::gzip::decompress;
use crate::export::http::MAX_RESPONSE;

/// Bytes before a message.
pub const PREFIX: usize = 5;

/// What comes before a message of `length` bytes; `None` where that is more than gRPC can say.
pub fn prefix(length: usize, compressed: bool) -> Option<[u8; PREFIX]> {
    let [a, b, c, d] = u32::try_from(length).ok()?.to_be_bytes();
    Some([u8::from(compressed), a, b, c, d])
}

/// Why a body does not hold one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// It ends within a message.
    Cut,
    /// Something follows the first message.
    SecondMessage,
    /// The flags are neither 0 nor 1.
    Flags(u8),
    /// It says that it is compressed, in a way that is not gzip or not told.
    Encoding,
    /// It is no gzip.
    Gzip,
    /// It is larger than OTLP allows.
    TooLarge,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut => f.write_str("the answer's message is cut"),
            Self::SecondMessage => f.write_str("the answer holds more than one message"),
            Self::Flags(flags) => write!(f, "the answer's message has unknown flags ({flags:#04x})"),
            Self::Encoding => f.write_str("the answer's message is compressed in an unknown way"),
            Self::Gzip => f.write_str("the answer's message cannot be decompressed"),
            Self::TooLarge => f.write_str("the answer's message is too large"),
        }
    }
}

/// The message in the body of an answer to a unary call. `gzip` is whether `grpc-encoding` says so. A body without a
/// message is like one with an empty message: the status counts.
///
/// # Errors
///
/// [`FrameError`].
pub fn parse_body(body: &[u8], gzip: bool) -> Result<Cow<'_, [u8]>, FrameError> {
    if body.is_empty() {
        return Ok(Cow::Borrowed(body));
    }
    let (&[flags, a, b, c, d], rest) = body.split_first_chunk::<PREFIX>().ok_or(FrameError::Cut)?;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > MAX_RESPONSE {
        return Err(FrameError::TooLarge);
    }
    let (message, after) = rest.split_at_checked(length).ok_or(FrameError::Cut)?;
    if !after.is_empty() {
        return Err(FrameError::SecondMessage);
    }
    match flags {
        0 => Ok(Cow::Borrowed(message)),
        1 if gzip => match decompress(message, MAX_RESPONSE) {
            Ok(Some(message)) => Ok(Cow::Owned(message)),
            Ok(None) => Err(FrameError::TooLarge),
            Err(_) => Err(FrameError::Gzip),
        },
        1 => Err(FrameError::Encoding),
        _ => Err(FrameError::Flags(flags)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::gzip::compress;

    fn framed(flags: u8, message: &[u8]) -> Vec<u8> {
        let mut body = prefix(message.len(), false).unwrap().to_vec();
        body[0] = flags;
        body.extend_from_slice(message);
        body
    }

    #[test]
    fn one_message_or_none_is_read() {
        assert_eq!(&*parse_body(b"", false).unwrap(), b"");
        assert_eq!(&*parse_body(&framed(0, b""), false).unwrap(), b"");
        assert_eq!(&*parse_body(&framed(0, b"message"), true).unwrap(), b"message");
        assert_eq!(&*parse_body(&framed(1, &compress(b"message")), true).unwrap(), b"message");
    }

    #[test]
    fn everything_else_is_an_error() {
        let twice = [framed(0, b"a"), framed(0, b"b")].concat();
        assert_eq!(parse_body(&twice, false), Err(FrameError::SecondMessage));
        assert_eq!(parse_body(&framed(2, b""), false), Err(FrameError::Flags(2)));
        assert_eq!(parse_body(&framed(1, b""), false), Err(FrameError::Encoding));
        assert_eq!(parse_body(&framed(1, b"no gzip"), true), Err(FrameError::Gzip));
        assert_eq!(parse_body(b"\0\xff\xff\xff\xff", false), Err(FrameError::TooLarge));
        let bomb = framed(1, &compress(&vec![0; MAX_RESPONSE + 1]));
        assert_eq!(parse_body(&bomb, true), Err(FrameError::TooLarge));
        let body = framed(0, b"message");
        for end in 1..body.len() {
            assert_eq!(parse_body(&body[..end], false), Err(FrameError::Cut));
        }
    }

    #[test]
    fn prefixes_say_flags_and_length() {
        assert_eq!(prefix(0x0102_0304, true), Some([1, 1, 2, 3, 4]));
        assert_eq!(prefix(usize::MAX, false).is_none(), usize::BITS > 32);
    }
}
