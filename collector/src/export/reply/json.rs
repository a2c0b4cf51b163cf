//! As much of JSON as the two messages need: members of objects, texts. Pure. What is nested deeper is skipped, not checked.

/// Members of an object that are looked at: each takes many times its bytes.
const MAX_MEMBERS: usize = 1000;

/// The members of an object with their values as they are written; `None` where it is none, or has too many.
pub(super) fn members(text: &str) -> Option<Vec<(String, &str)>> {
    let mut rest = text.trim_ascii().strip_prefix('{')?.trim_ascii_start();
    let mut members = Vec::new();
    if let Some(end) = rest.strip_prefix('}') {
        return end.is_empty().then_some(members);
    }
    loop {
        let (key, after) = rest.split_at_checked(value_len(rest)?)?;
        let value = after.trim_ascii_start().strip_prefix(':')?.trim_ascii_start();
        let (value, after) = value.split_at_checked(value_len(value)?)?;
        if members.len() == MAX_MEMBERS {
            return None;
        }
        members.push((string(key)?, value));
        let after = after.trim_ascii_start();
        match after.strip_prefix(',') {
            Some(next) => rest = next.trim_ascii_start(),
            None => return (after == "}").then_some(members),
        }
    }
}

/// How long the value is that a text begins with.
fn value_len(text: &str) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        if quoted {
            quoted = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else {
            match byte {
                b'"' => quoted = true,
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth > 0 => depth -= 1,
                // Behind a number or a word.
                b'}' | b']' | b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' if depth == 0 => {
                    return (at > 0).then_some(at);
                }
                _ => continue,
            }
        }
        if depth == 0 && !quoted {
            return Some(at + 1);
        }
    }
    (depth == 0 && !quoted && !text.is_empty()).then_some(text.len())
}

/// What a text in quotes says; `None` of other values.
pub(super) fn string(value: &str) -> Option<String> {
    let mut rest = value.strip_prefix('"')?.strip_suffix('"')?;
    let mut units = Vec::new();
    while let Some((plain, escape)) = rest.split_once('\\') {
        units.extend(plain.encode_utf16());
        let mut chars = escape.chars();
        let unit = match chars.next()? {
            c @ ('"' | '\\' | '/') => c as u16,
            'b' => 8,
            't' => 9,
            'n' => 10,
            'f' => 12,
            'r' => 13,
            'u' => {
                let digits =
                    escape.get(1..5).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
                u16::from_str_radix(digits, 16).ok()?
            }
            _ => return None,
        };
        rest = if escape.starts_with('u') { escape.get(5..)? } else { chars.as_str() };
        units.push(unit);
    }
    units.extend(rest.encode_utf16());
    String::from_utf16(&units).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_and_texts_are_what_the_reference_says() {
        for text in [
            r#"{}"#,
            r#" { } "#,
            r#"{"a":1}"#,
            r#"{ "a" : 1 , "b" : "x" }"#,
            r#"{"a":{"b":[1,{"c":"}]"}]},"d":null,"e":-1.5e3,"f":true}"#,
            r#"{"a\"b\\":"\u00e9\ud83d\ude00\n\/é"}"#,
            r#"{"a":"x\"}"}"#,
            r#"{"a":1"#,
            r#"{"a":1}}"#,
            r#"{"a":1,}"#,
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{a:1}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":"\q"}"#,
            r#"[1]"#,
            r#""a""#,
            "1",
            "",
            "<html>",
        ] {
            let reference: Option<serde_json::Map<String, serde_json::Value>> =
                serde_json::from_str(text).ok();
            let broken_text = text.contains(r"\q") || text.contains(r"\ud800");
            let ours = members(text);
            assert_eq!(ours.is_some(), reference.is_some() || broken_text, "{text}");
            for (key, value) in ours.unwrap_or_default() {
                let Some(expected) = reference.as_ref().map(|reference| &reference[&key]) else {
                    assert_eq!(string(value), None, "{text}");
                    continue;
                };
                assert_eq!(string(value).as_deref(), expected.as_str(), "{text}");
                assert_eq!(&serde_json::from_str::<serde_json::Value>(value).unwrap(), expected, "{text}");
            }
            for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
                let _ = members(&text[..end]);
            }
        }
    }
}
