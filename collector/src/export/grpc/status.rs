//! The status of a gRPC call, read with no more trust than it deserves.

use std::fmt;
use std::time::Duration;

use crate::export::reply::{Value, fields, message, parse_error};
use crate::percent;

/// Type of the details that say when to try again.
const RETRY_INFO: &[u8] = b"type.googleapis.com/google.rpc.RetryInfo";

/// A status code of gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The names are all that there is to say; gRPC's own documentation has the meanings.
pub enum Code {
    Ok,
    Cancelled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

impl Code {
    /// All of them; each is at its number.
    pub const ALL: [Self; 17] = [
        Self::Ok,
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    /// The code in a `grpc-status`; what is none there is `Unknown`.
    pub fn parse(text: &[u8]) -> Self {
        let number: Option<usize> = std::str::from_utf8(text)
            .ok()
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|text| text.parse().ok());
        number.and_then(|number| Self::ALL.get(number).copied()).unwrap_or(Self::Unknown)
    }

    /// What an answer means that comes with an HTTP status instead of a gRPC status, by gRPC's
    /// `http-grpc-status-mapping`.
    pub fn from_http(status: u16) -> Self {
        match status {
            400 => Self::Internal,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::Unimplemented,
            429 | 502 | 503 | 504 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }

    /// What the end of a stream by `RST_STREAM` with this error code of HTTP/2 means, by gRPC over HTTP/2.
    pub fn from_reset(reason: u32) -> Self {
        match reason {
            // REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM, INADEQUATE_SECURITY
            0x7 => Self::Unavailable,
            0x8 => Self::Cancelled,
            0xb => Self::ResourceExhausted,
            0xc => Self::PermissionDenied,
            // STREAM_CLOSED has no meaning here; HTTP_1_1_REQUIRED and what comes later is not mapped.
            0x5 | 0xd.. => Self::Unknown,
            _ => Self::Internal,
        }
    }

    /// Whether OTLP allows another attempt after it; with `RESOURCE_EXHAUSTED` only where the receiver says when.
    pub fn is_retryable(self, retry_info: bool) -> bool {
        match self {
            Self::Cancelled
            | Self::DeadlineExceeded
            | Self::Aborted
            | Self::OutOfRange
            | Self::Unavailable
            | Self::DataLoss => true,
            Self::ResourceExhausted => retry_info,
            _ => false,
        }
    }

    /// As gRPC's documentation spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Cancelled => "CANCELLED",
            Self::Unknown => "UNKNOWN",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Aborted => "ABORTED",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::DataLoss => "DATA_LOSS",
            Self::Unauthenticated => "UNAUTHENTICATED",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The code.
    pub code: Code,
    /// The receiver's own words, cut and clean.
    pub message: Option<String>,
    /// How long to wait before the next attempt; zero where the receiver allows one and does not say when.
    pub retry_info: Option<Duration>,
}

impl Status {
    /// The status in the values of `grpc-status`, `grpc-message` and `grpc-status-details-bin`.
    pub fn parse(code: &[u8], text: Option<&[u8]>, details: Option<&[u8]>) -> Self {
        let text = text.map(percent::decode);
        let details = details.and_then(base64_decode).unwrap_or_default();
        let own = text.and_then(|text| message(&String::from_utf8_lossy(&text)));
        Self {
            code: Code::parse(code),
            message: own.or_else(|| parse_error(&details, true)),
            retry_info: parse_retry_info(&details),
        }
    }
}

/// The delay of the `RetryInfo` in a `google.rpc.Status`, if there is one.
fn parse_retry_info(status: &[u8]) -> Option<Duration> {
    fields(status)?.into_iter().find_map(|field| {
        let (3, Value::Bytes(any)) = field else { return None };
        let any = fields(any)?;
        any.iter().find(|field| matches!(field, (1, Value::Bytes(RETRY_INFO))))?;
        let info = any.into_iter().find_map(|field| bytes(field, 2)).unwrap_or_default();
        let delay = fields(info).and_then(|info| info.into_iter().find_map(|field| bytes(field, 1)));
        Some(delay.and_then(parse_duration).unwrap_or_default())
    })
}

/// A `google.protobuf.Duration`; `None` where it is negative or broken.
fn parse_duration(duration: &[u8]) -> Option<Duration> {
    let (mut seconds, mut nanos) = (0, 0);
    for field in fields(duration)? {
        match field {
            (1, Value::Number(number)) => seconds = number,
            (2, Value::Number(number)) => nanos = number,
            _ => {}
        }
    }
    // Both are signed.
    let seconds = i64::try_from(seconds).ok().filter(|_| nanos <= i64::MAX as u64)?.unsigned_abs();
    Some(Duration::new(seconds, u32::try_from(nanos).unwrap_or(u32::MAX).min(999_999_999)))
}

fn bytes(field: (u64, Value<'_>), number: u64) -> Option<&[u8]> {
    match field {
        (found, Value::Bytes(bytes)) if found == number => Some(bytes),
        _ => None,
    }
}

/// Standard base64, with or without padding; `None` where it is none. What comes after a comma is another value.
fn base64_decode(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.split(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
    let padding = text.iter().rev().take(2).take_while(|byte| **byte == b'=').count();
    let text = text.get(..text.len() - padding)?;
    let mut decoded = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.chunks(4) {
        let mut bits = 0_u32;
        for byte in group {
            bits = bits << 6 | u32::from(sextet(*byte)?);
        }
        match group.len() {
            4 => decoded.extend_from_slice(&[(bits >> 16) as u8, (bits >> 8) as u8, bits as u8]),
            3 => decoded.extend_from_slice(&[(bits >> 10) as u8, (bits >> 2) as u8]),
            2 => decoded.push((bits >> 4) as u8),
            _ => return None,
        }
    }
    Some(decoded)
}

fn sextet(byte: u8) -> Option<u8> {
    Some(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `google.rpc.Status` with this `RetryInfo` after an unknown detail.
    fn details(retry_info: &[u8]) -> Vec<u8> {
        let field = |number: u8, bytes: &[u8]| {
            [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
        };
        let other = [field(1, b"type.googleapis.com/google.rpc.DebugInfo"), field(2, b"\xff")].concat();
        let any = [field(1, RETRY_INFO), field(2, retry_info)].concat();
        [b"\x08\x0e".as_slice(), &field(2, b"busy"), &field(3, &other), &field(3, &any)].concat()
    }

    fn base64_encode(bytes: &[u8]) -> String {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for group in bytes.chunks(3) {
            let bits = (0..3).fold(0, |bits, at| bits << 8 | u32::from(group.get(at).copied().unwrap_or(0)));
            for digit in 0..=group.len() {
                text.push(ALPHABET[(bits >> (18 - 6 * digit) & 63) as usize].into());
            }
        }
        text
    }

    #[test]
    fn codes_are_numbers() {
        for (number, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(Code::parse(number.to_string().as_bytes()), code);
        }
        for text in ["", "17", "-1", "+4", " 4", "x", "99999999999999999999", "OK"] {
            assert_eq!(Code::parse(text.as_bytes()), Code::Unknown, "{text}");
        }
        assert_eq!(Code::parse(b"\xff"), Code::Unknown);
    }

    #[test]
    fn otlp_allows_another_attempt_after_some() {
        let retried: Vec<&str> =
            Code::ALL.into_iter().filter(|code| code.is_retryable(false)).map(Code::name).collect();
        let expected =
            ["CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"];
        assert_eq!(retried, expected);
        let with_info: Vec<Code> = Code::ALL
            .into_iter()
            .filter(|code| code.is_retryable(true) && !code.is_retryable(false))
            .collect();
        assert_eq!(with_info, [Code::ResourceExhausted]);
    }

    #[test]
    fn http_statuses_and_resets_have_a_meaning() {
        let codes =
            [400, 401, 403, 404, 429, 500, 502, 503, 504, 200].map(|status| Code::from_http(status).name());
        assert_eq!(
            codes,
            [
                "INTERNAL",
                "UNAUTHENTICATED",
                "PERMISSION_DENIED",
                "UNIMPLEMENTED",
                "UNAVAILABLE",
                "UNKNOWN",
                "UNAVAILABLE",
                "UNAVAILABLE",
                "UNAVAILABLE",
                "UNKNOWN"
            ]
        );
        for (reasons, code) in [
            (&[0x0, 0x1, 0x2, 0x3, 0x4, 0x6, 0x9, 0xa][..], Code::Internal),
            (&[0x7], Code::Unavailable),
            (&[0x8], Code::Cancelled),
            (&[0xb], Code::ResourceExhausted),
            (&[0xc], Code::PermissionDenied),
            (&[0x5, 0xd, u32::MAX], Code::Unknown),
        ] {
            assert!(reasons.iter().all(|reason| Code::from_reset(*reason) == code), "{code}");
        }
    }

    #[test]
    fn messages_are_decoded_and_cleaned() {
        let text = |text: &[u8]| Status::parse(b"14", Some(text), None).message;
        assert_eq!(text(b"caf%C3%A9 100%25").as_deref(), Some("café 100%"));
        assert_eq!(text(b"%").as_deref(), Some("%"));
        assert_eq!(text(b"%4 %zz %+1 %e9").as_deref(), Some("%4 %zz %+1 \u{fffd}"));
        assert_eq!(text(b"a%0D%0A%1B[2Jb").as_deref(), Some("a ?[2Jb"));
        assert_eq!(text(b""), None);
        assert_eq!(text("é".repeat(1000).as_bytes()).unwrap().chars().count(), 303);
    }

    #[test]
    fn retry_info_says_when() {
        let status = |info: &[u8]| {
            let details = base64_encode(&details(info));
            Status::parse(b"8", None, Some(details.as_bytes()))
        };
        let delay = |info: &[u8]| status(info).retry_info;
        assert_eq!(status(b"").message.as_deref(), Some("busy"));
        assert_eq!(delay(b"\x0a\x02\x08\x07"), Some(Duration::from_secs(7)));
        let nanos = b"\x0a\x06\x10\x80\xca\xb5\xee\x01";
        assert_eq!(delay(nanos), Some(Duration::from_millis(500)));
        // No delay, a negative one, broken ones: the receiver still allows another attempt.
        for none in
            [&b""[..], b"\x0a\x00", b"\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x0a\x09"]
        {
            assert_eq!(delay(none), Some(Duration::ZERO));
        }
        let minus_one_nano = b"\x0a\x0b\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        assert_eq!(delay(minus_one_nano), Some(Duration::ZERO));
        let most =
            b"\x0a\x14\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x10\xff\xff\xff\xff\xff\xff\xff\xff\x7f";
        assert_eq!(delay(most), Some(Duration::new(i64::MAX as u64, 999_999_999)));
    }

    #[test]
    fn details_that_say_nothing_are_no_error() {
        let whole = base64_encode(&details(b"\x0a\x02\x08\x07"));
        for end in 0..whole.len() {
            assert_eq!(Status::parse(b"8", None, Some(&whole.as_bytes()[..end])).retry_info, None);
        }
        for details in [&b"not base64"[..], b"=", b"A", b"AAAA=AAA", b"\xff\xff"] {
            let status = Status { code: Code::Unavailable, message: None, retry_info: None };
            assert_eq!(Status::parse(b"14", None, Some(details)), status);
        }
    }

    #[test]
    fn base64_needs_no_padding() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("Zg==", b"f"),
            ("Zg", b"f"),
            ("Zm8=", b"fo"),
            ("Zm8", b"fo"),
            ("Zm9v", b"foo"),
            ("Zm9v,AAAA", b"foo"),
            ("+/+/", b"\xfb\xff\xbf"),
        ] {
            assert_eq!(base64_decode(text.as_bytes()).as_deref(), Some(bytes), "{text}");
        }
    }
}
