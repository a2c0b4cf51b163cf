//! What a receiver answers, read with no more trust than it deserves.
//!
//! Two small messages, in protobuf or JSON: `Export*ServiceResponse`, whose field 1 is the partial success, and
//! `google.rpc.Status` with an error. Empty and broken bodies say nothing, and are no error.

mod json;

use crate::output::names::clean;
use bpf_loader::text::join;

/// Characters of a receiver's message that are shown.
const MAX_MESSAGE: usize = 300;
/// What stands for the rest.
pub(super) const CUT: &str = "...";

/// Fields of a message that are looked at; both messages have a few. Kept apart, they take many times their bytes.
const MAX_FIELDS: usize = 1000;
/// Longest JSON that is read, in bytes, for the same reason.
const MAX_JSON: usize = 256 << 10;

/// What a receiver accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Items that it refused; they must not be sent again.
    pub rejected: u64,
    /// Why, or a warning if nothing was refused.
    pub message: Option<String>,
}

/// The partial success in the body of a 2xx answer; the same for all signals.
pub fn parse_accepted(body: &[u8]) -> Accepted {
    let mut accepted = Accepted::default();
    let Some(response) = fields(body) else { return accepted };
    for field in response {
        let (1, Value::Bytes(partial)) = field else { continue };
        let Some(partial) = fields(partial) else { return Accepted::default() };
        for field in partial {
            match field {
                // A negative int64 is nonsense; so is more than that.
                (1, Value::Number(rejected)) => {
                    accepted.rejected = i64::try_from(rejected).map_or(0, |_| rejected)
                }
                (2, Value::Bytes(text)) => {
                    accepted.message = std::str::from_utf8(text).ok().and_then(message)
                }
                _ => {}
            }
        }
    }
    accepted
}

/// The partial success in the body of a 2xx answer in JSON. Some receivers answer so whatever they were sent.
pub fn parse_accepted_json(body: &[u8]) -> Accepted {
    let mut accepted = Accepted::default();
    let partial =
        object(body).and_then(|response| member(&response, "partialSuccess").and_then(json::members));
    for (name, value) in partial.unwrap_or_default() {
        match name.as_str() {
            "rejectedDataPoints" | "rejectedSpans" | "rejectedLogRecords" | "rejectedProfiles" => {
                // 64-bit integers are strings, but numbers are to be understood too; a negative one is nonsense.
                let number = json::string(value).unwrap_or_else(|| value.to_owned()).parse::<i64>();
                let number = number.ok().and_then(|n| u64::try_from(n).ok()).unwrap_or_default();
                // Some receivers name the other signals too.
                accepted.rejected = accepted.rejected.max(number);
            }
            "errorMessage" => accepted.message = json::string(value).as_deref().and_then(message),
            _ => {}
        }
    }
    accepted
}

/// The message in the body of an error answer: of a `google.rpc.Status` in protobuf or JSON, or the text itself.
pub fn parse_error(body: &[u8], is_protobuf: bool) -> Option<String> {
    if !is_protobuf {
        let status = object(body).unwrap_or_default();
        let said = member(&status, "message").and_then(json::string);
        return said.as_deref().or(std::str::from_utf8(body).ok()).and_then(message);
    }
    fields(body)?.into_iter().find_map(|field| match field {
        (2, Value::Bytes(text)) => std::str::from_utf8(text).ok().and_then(message),
        _ => None,
    })
}

/// A receiver's text on one line, cut.
pub(super) fn message(text: &str) -> Option<String> {
    let line = join(&text.split_whitespace().collect::<Vec<_>>(), " ");
    let mut cut: String = clean(&line).chars().take(MAX_MESSAGE).collect();
    if cut.len() < line.len() && cut.chars().count() == MAX_MESSAGE {
        cut.push_str(CUT);
    }
    Some(cut).filter(|cut| !cut.is_empty())
}

type Members<'b> = Vec<(String, &'b str)>;

fn object(body: &[u8]) -> Option<Members<'_>> {
    if body.len() > MAX_JSON { None } else { json::members(std::str::from_utf8(body).ok()?) }
}

fn member<'b>(members: &Members<'b>, wanted: &str) -> Option<&'b str> {
    members.iter().find(|(name, _)| name == wanted).map(|(_, value)| *value)
}

pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a protobuf message; `None` where it is none, or has too many.
pub(super) fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Value<'_>)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let number = key >> 3;
        if fields.len() == MAX_FIELDS {
            return None;
        }
        match key & 7 {
            0 => fields.push((number, Value::Number(varint(&mut bytes)?))),
            1 => bytes = bytes.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (value, rest) = bytes.split_at_checked(length)?;
                fields.push((number, Value::Bytes(value)));
                bytes = rest;
            }
            5 => bytes = bytes.get(4..)?,
            _ => return None,
        }
    }
    Some(fields)
}

/// A protobuf number, taken off the front.
pub(crate) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_success_is_read() {
        let body = b"\x0a\x0a\x08\x96\x01\x12\x05queue";
        assert_eq!(parse_accepted(body), Accepted { rejected: 150, message: Some("queue".into()) });
        // Unknown fields of every wire type around it.
        let body = b"\x18\x01\x21........\x2d....\x0a\x04\x08\x01\x18\x07\x32\x01x";
        assert_eq!(parse_accepted(body), Accepted { rejected: 1, message: None });
        let negative = b"\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        assert_eq!(parse_accepted(negative), Accepted::default());
    }

    #[test]
    fn what_is_no_protobuf_says_nothing() {
        let bodies: [&[u8]; 8] = [
            b"",
            b"{}",
            b"{\"partialSuccess\":{\"rejectedProfiles\":1}}",
            b"<html></html>",
            b"\x0a",
            b"\x0a\x7f\x08",
            b"\x0a\x02\x08\x80",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ];
        for body in bodies {
            assert_eq!(parse_accepted(body), Accepted::default());
        }
    }

    #[test]
    fn partial_success_in_json_is_read() {
        for (body, rejected, message) in [
            (r#"{"partialSuccess":{"rejectedDataPoints":"1000","errorMessage":"no"}}"#, 1000, Some("no")),
            (r#"{"partialSuccess":{"rejectedSpans":7}}"#, 7, None),
            (r#"{"partialSuccess":{"rejectedLogRecords":"-1","errorMessage":""}}"#, 0, None),
            (r#"{"partialSuccess":{"rejectedProfiles":1.5}}"#, 0, None),
            (r#"{"partialSuccess":null}"#, 0, None),
            (r#"{"partialSuccess":{"errorMessage":5}}"#, 0, None),
            ("{}", 0, None),
            ("", 0, None),
            ("[", 0, None),
        ] {
            let expected = Accepted { rejected, message: message.map(str::to_owned) };
            assert_eq!(parse_accepted_json(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn answers_cannot_take_much_memory() {
        assert!(fields(&b"\x08\x01".repeat(MAX_FIELDS)).is_some());
        assert!(fields(&b"\x08\x01".repeat(MAX_FIELDS + 1)).is_none());
        let json = |length| {
            let spaces = " ".repeat(length);
            parse_accepted_json(format!(r#"{{"partialSuccess":{{"rejectedSpans":7}}{spaces}}}"#).as_bytes())
        };
        assert_eq!((json(100_000).rejected, json(MAX_JSON)), (7, Accepted::default()));
        let long = parse_error(format!("[{}0]", "0,".repeat(MAX_JSON)).as_bytes(), false).unwrap();
        assert!(long.starts_with("[0,0,"));
    }

    #[test]
    fn cut_anywhere_it_is_no_error() {
        let body = b"\x0a\x0a\x08\x96\x01\x12\x05queue";
        for end in 0..body.len() {
            assert_eq!(parse_accepted(&body[..end]), Accepted::default());
        }
    }

    #[test]
    fn errors_are_status_or_text() {
        assert_eq!(parse_error(b"\x08\x03\x12\x03bad", true).as_deref(), Some("bad"));
        assert_eq!(parse_error(b"\x08\x03", true), None);
        assert_eq!(parse_error(b" no\n such\x1b[2J\tpage ", false).as_deref(), Some("no such?[2J page"));
        assert_eq!(parse_error(b"\xff\xfe", false), None);
        assert_eq!(parse_error(br#"{"code":3,"message":"bad"}"#, false).as_deref(), Some("bad"));
        assert_eq!(parse_error(b"{\"code\":3}", false).as_deref(), Some("{\"code\":3}"));
        let long = parse_error("é".repeat(1000).as_bytes(), false).unwrap();
        assert_eq!(long.chars().count(), MAX_MESSAGE + 3);
    }
}
