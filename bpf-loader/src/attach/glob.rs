//! Patterns of function names: `*` stands for any text, `?` for one byte.

/// Does all of `text` match? Takes at most as many steps as the product of both lengths.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // After a `*`: where the pattern goes on, and where in the text that was tried last.
    let mut retry = None;
    while let Some(byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                retry = Some((p, t));
                continue;
            }
            Some(wanted) if *wanted == b'?' || wanted == byte => {
                p += 1;
                t += 1;
                continue;
            }
            _ => {}
        }
        // Only the last `*` need be tried longer: what those before it match could only be longer, too.
        let Some((after, start)) = retry else { return false };
        p = after;
        t = start + 1;
        retry = Some((after, t));
    }
    pattern.iter().skip(p).all(|rest| *rest == b'*')
}

/// Is there anything to match in it?
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks() {
        let yes = [
            ("", ""),
            ("*", ""),
            ("*", "abc"),
            ("a*c", "abbc"),
            ("a*c", "ac"),
            ("a?c", "abc"),
            ("**b*", "ab"),
            ("*ab", "aab"),
            ("a*b*c", "a-b-b-c"),
            ("bpf_fentry_test?", "bpf_fentry_test1"),
        ];
        for (pattern, text) in yes {
            assert!(matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        let no = [
            ("", "a"),
            ("?", ""),
            ("a", ""),
            ("a*c", "abcd"),
            ("a?c", "ac"),
            ("*ab", "aba"),
            ("a*b*c", "acb"),
            ("bpf_fentry_test?", "bpf_fentry_test10"),
        ];
        for (pattern, text) in no {
            assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = "a*".repeat(1000) + "b";
        assert!(!matches(pattern.as_bytes(), "a".repeat(10_000).as_bytes()));
    }
}
