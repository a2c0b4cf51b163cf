//! Percent-encoding.

/// `text` with every `%XX` replaced; a `%` that begins no such thing stays as it is.
pub(crate) fn decode(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        match escaped(first, tail) {
            Some(byte) => {
                decoded.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                decoded.push(first);
                rest = tail;
            }
        }
    }
    decoded
}

/// Whether every `%` in `text` begins a `%XX`.
pub(crate) fn is_encoded(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' && escaped(first, tail).is_none() {
            return false;
        }
        rest = tail;
    }
    true
}

fn escaped(first: u8, tail: &[u8]) -> Option<u8> {
    let digits = tail.get(..2).filter(|digits| first == b'%' && digits.iter().all(u8::is_ascii_hexdigit))?;
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_replaced_and_the_rest_stays() {
        for text in ["%", "%4", "a%zz", "%é", "%+1"] {
            assert_eq!(decode(text.as_bytes()), text.as_bytes());
            assert!(!is_encoded(text.as_bytes()), "{text}");
        }
        assert_eq!(decode(b"%41%c3%A9%2525"), "Aé%25".as_bytes());
        for text in ["", "a", "%41%c3%A9%2525"] {
            assert!(is_encoded(text.as_bytes()), "{text}");
        }
    }
}
