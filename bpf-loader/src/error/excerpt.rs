//! Names from objects, for errors.

/// The beginning of a text from the object. What is kept for each of many things must not hold names that are as long as
/// the file and shared by all of them.
pub(crate) fn excerpt(text: &str) -> String {
    const MOST: usize = 256;
    if text.len() <= MOST {
        return text.to_owned();
    }
    let end = (0..=MOST).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    format!("{}...", text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpts_end_between_characters() {
        assert_eq!(excerpt("name"), "name");
        assert_eq!(excerpt(&"n".repeat(256)), "n".repeat(256));
        assert_eq!(excerpt(&"n".repeat(257)), format!("{}...", "n".repeat(256)));
        // 256 is inside the 86th character of 3 bytes.
        assert_eq!(excerpt(&"\u{20ac}".repeat(90)), format!("{}...", "\u{20ac}".repeat(85)));
    }
}
