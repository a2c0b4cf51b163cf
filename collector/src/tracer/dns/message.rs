//! DNS messages, as far as a lookup needs them: head and first question (RFC 1035, section 4.1). They come from whoever
//! answers, so that nothing in them is trusted.

/// Bytes of a name at most, with its lengths.
const MAX_NAME: usize = 255;
const HEAD: usize = 12;

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What pairs a response with its query.
    pub id: u16,
    /// Whether it is a response.
    pub is_response: bool,
    /// RCODE, without the extension that comes with answers.
    pub code: u8,
    /// What is asked; responses may come without.
    pub question: Option<Question>,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The name in lower case, without the dot at its end; `.` is the root. Dots and backslashes in labels come after a
    /// backslash, whatever is not printable ASCII as a backslash and three digits.
    pub name: String,
    /// QTYPE.
    pub kind: u16,
}

/// Reads a message of opcode QUERY. `None`: it is no such, or its question makes no sense.
pub fn parse(bytes: &[u8]) -> Option<Message> {
    let flags = u16_at(bytes, 2)?;
    if flags >> 11 & 15 != 0 || bytes.len() < HEAD {
        return None;
    }
    let question = match u16_at(bytes, 4)? {
        0 => None,
        _ => {
            let (name, end) = name(bytes, HEAD)?;
            Some(Question { name, kind: u16_at(bytes, end)? })
        }
    };
    let (is_response, code) = (flags >> 15 == 1, (flags & 15) as u8);
    if !is_response && question.is_none() {
        return None;
    }
    Some(Message { id: u16_at(bytes, 0)?, is_response, code, question })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// The name at a place, and where it ends there. Pointers have to lead ever further to the front, so that they end.
fn name(bytes: &[u8], start: usize) -> Option<(String, usize)> {
    let mut text = String::new();
    let (mut at, mut front, mut end) = (start, start, None);
    let mut length = 1;
    loop {
        let byte = *bytes.get(at)?;
        match byte >> 6 {
            0 if byte == 0 => break,
            0 => {
                let label = bytes.get(at + 1..at + 1 + usize::from(byte))?;
                length += 1 + label.len();
                if length > MAX_NAME {
                    return None;
                }
                if !text.is_empty() {
                    text.push('.');
                }
                label.iter().for_each(|byte| push(&mut text, *byte));
                at += 1 + label.len();
            }
            3 => {
                let target = usize::from(u16_at(bytes, at)? & 0x3fff);
                if target >= front || target < HEAD {
                    return None;
                }
                end = end.or(Some(at + 2));
                (at, front) = (target, target);
            }
            _ => return None,
        }
    }
    if text.is_empty() {
        text.push('.');
    }
    Some((text, end.unwrap_or(at + 1)))
}

fn push(text: &mut String, byte: u8) {
    match byte {
        b'.' | b'\\' => text.extend(['\\', byte as char]),
        0x21..=0x7e => text.push(byte.to_ascii_lowercase() as char),
        _ => text.push_str(&format!("\\{byte:03}")),
    }
}

/// What a response code other than 0 is called.
pub fn code_name(code: u8) -> String {
    const NAMES: [&str; 10] = [
        "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH",
        "NOTZONE",
    ];
    let name = usize::from(code).checked_sub(1).and_then(|at| NAMES.get(at));
    name.map_or_else(|| format!("RCODE{code}"), |name| (*name).to_owned())
}

/// What a type of question is called.
pub fn kind_name(kind: u16) -> String {
    let name = match kind {
        1 => "A",
        2 => "NS",
        5 => "CNAME",
        6 => "SOA",
        12 => "PTR",
        15 => "MX",
        16 => "TXT",
        28 => "AAAA",
        33 => "SRV",
        43 => "DS",
        48 => "DNSKEY",
        64 => "SVCB",
        65 => "HTTPS",
        255 => "ANY",
        _ => return format!("TYPE{kind}"),
    };
    name.to_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A message with one question, its name as it is on the wire.
    pub fn message(id: u16, flags: u16, name: &[u8], kind: u16) -> Vec<u8> {
        let words = [id, flags, 1, 0, 0, 0];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        bytes.extend(name);
        bytes.extend([kind.to_be_bytes(), 1u16.to_be_bytes()].concat());
        bytes
    }

    #[test]
    fn a_query_and_its_response_are_read() {
        let query = message(0x1234, 0x0100, b"\x03WwW\x07example\x00", 28);
        let question = Some(Question { name: "www.example".into(), kind: 28 });
        let expected = Message { id: 0x1234, is_response: false, code: 0, question };
        assert_eq!(parse(&query), Some(expected.clone()));
        let response = message(0x1234, 0x8183, b"\x03www\x07example\x00", 28);
        assert_eq!(parse(&response), Some(Message { is_response: true, code: 3, ..expected.clone() }));
        // A server that makes nothing of the question need not repeat it; a query has to have one.
        let mut head = response[..HEAD].to_vec();
        head[5] = 0;
        assert_eq!(parse(&head), Some(Message { is_response: true, code: 3, question: None, ..expected }));
        head[2] = 1;
        assert_eq!(parse(&head), None);
        for len in 0..query.len() - 2 {
            assert_eq!(parse(&query[..len]), None, "{len}");
        }
        // Other operations: NOTIFY, UPDATE.
        assert_eq!(parse(&message(1, 0x2000, b"\0", 6)), None);
    }

    #[test]
    fn names_are_text_whatever_is_in_them() {
        let name = |wire: &[u8]| parse(&message(1, 0, wire, 1)).map(|message| message.question.unwrap().name);
        assert_eq!(name(b"\0").as_deref(), Some("."));
        assert_eq!(name(b"\x05a.b\\c\x02\xc3\xa4\x01 \0").as_deref(), Some("a\\.b\\\\c.\\195\\164.\\032"));
        let label = [&[63][..], &[b'x'; 63]].concat();
        let longest = [&label.repeat(3)[..], &[61], &[b'y'; 61], &[0]].concat();
        assert_eq!((longest.len(), name(&longest).unwrap().len()), (255, 253));
        let too_long = [&label.repeat(3)[..], &[62], &[b'y'; 62], &[0]].concat();
        assert_eq!(name(&too_long), None);
        // Lengths that are none.
        assert_eq!(name(b"\x40\0"), None);
        assert_eq!(name(b"\x80\0"), None);
    }

    #[test]
    fn pointers_lead_to_the_front_and_end() {
        // To itself, to what comes later, into the head.
        for wire in [b"\xc0\x0c".as_slice(), b"\xc0\x0e\x01a\0", b"\xc0\x00", b"\x01a\xc0\x0c", b"\xc0"] {
            assert_eq!(parse(&message(1, 0, wire, 1)), None, "{wire:?}");
        }
        let bytes = [&[0; 12][..], b"\x01b\0\x01a\xc0\x0c\xc0\x0f"].concat();
        assert_eq!(name(&bytes, 15), Some(("a.b".into(), 19)));
        assert_eq!(name(&bytes, 19), Some(("a.b".into(), 21)));
    }

    #[test]
    fn codes_and_types_have_names() {
        assert_eq!(
            (code_name(2), code_name(10), code_name(0), code_name(15)),
            ("SERVFAIL".into(), "NOTZONE".into(), "RCODE0".into(), "RCODE15".into())
        );
        assert_eq!((kind_name(1), kind_name(99)), ("A".into(), "TYPE99".into()));
    }
}
