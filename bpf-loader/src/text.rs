//! Texts within texts, simply. The standard library's way is fast in long ones, and takes 5 KB. No part is empty.

/// Where the first `part` begins.
pub fn find(text: &str, part: &str) -> Option<usize> {
    (0..text.len()).find(|&at| begins(text, at, part))
}

/// Where the last `part` begins.
pub fn rfind(text: &str, part: &str) -> Option<usize> {
    (0..text.len()).rfind(|&at| begins(text, at, part))
}

fn begins(text: &str, at: usize, part: &str) -> bool {
    text.as_bytes().get(at..).is_some_and(|rest| rest.starts_with(part.as_bytes()))
}

/// Whether there is a `part`.
pub fn contains(text: &str, part: &str) -> bool {
    find(text, part).is_some()
}

/// What is before the first `part`, and what is after it.
pub fn split_once<'t>(text: &'t str, part: &str) -> Option<(&'t str, &'t str)> {
    let at = find(text, part)?;
    Some((text.get(..at)?, text.get(at + part.len()..)?))
}

/// With something else instead of each `part`.
pub fn replace(text: &str, part: &str, with: &str) -> String {
    let mut replaced = String::new();
    let mut rest = text;
    while let Some((before, after)) = split_once(rest, part) {
        replaced.push_str(before);
        replaced.push_str(with);
        rest = after;
    }
    replaced.push_str(rest);
    replaced
}

/// All of them, with the separator between two.
pub fn join<S: AsRef<str>>(texts: &[S], separator: &str) -> String {
    let mut joined = String::new();
    for (at, text) in texts.iter().enumerate() {
        if at > 0 {
            joined.push_str(separator);
        }
        joined.push_str(text.as_ref());
    }
    joined
}

#[cfg(test)]
mod tests {
    #[test]
    fn all_is_as_the_standard_library_has_it() {
        let texts = ["", "a", "aa", "aab", "aabaab", "é", "aéb", "ba\u{301}é", "abababa", "-pod-pod"];
        for text in texts {
            for part in texts.into_iter().filter(|part| !part.is_empty()).chain(["aba", "-pod", "b"]) {
                assert_eq!(super::find(text, part), text.find(part));
                assert_eq!(super::rfind(text, part), text.rfind(part));
                assert_eq!(super::contains(text, part), text.contains(part));
                assert_eq!(super::split_once(text, part), text.split_once(part));
                assert_eq!(super::replace(text, part, "xé"), text.replace(part, "xé"));
            }
        }
        for count in 0..texts.len() {
            assert_eq!(super::join(&texts[..count], ", "), texts[..count].join(", "));
        }
    }
}
