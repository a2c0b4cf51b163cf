//! Native frames and those of CPython in one stack. Pure.

use bpf_programs::events::python::PythonFrame;

/// What a stack has at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Merged {
    /// The native frame of that number.
    Native(usize),
    /// The Python frame of that number.
    Python(usize),
}

/// Puts each of the frames of CPython where the interpreter's function was that ran it: `is_eval` tells of each native frame whether it is
/// that function, which is left out. All frames are leaf first.
///
/// The interpreter's function runs a frame, and those that it called without leaving it: up to one that is marked as an entry. It may have been
/// entered and not have its frame yet; and of stacks that are too deep (`is_full`), either side may
/// lack its outermost frames.
pub(crate) fn merge(is_eval: &[bool], python: &[PythonFrame], is_full: bool) -> Vec<Merged> {
    let evals = is_eval.iter().filter(|is_eval| **is_eval).count();
    let entries = python.iter().filter(|frame| frame.entry).count();
    let is_all_of_python = !is_full && python.last().is_some_and(|last| last.entry);
    let mut without_frame = if is_all_of_python { evals.saturating_sub(entries) } else { 0 };
    let mut left = evals;
    let mut merged = Vec::with_capacity(is_eval.len() + python.len());
    let mut next = 0;
    for (number, &is_eval) in is_eval.iter().enumerate() {
        if !is_eval || without_frame > 0 {
            merged.push(Merged::Native(number));
            without_frame -= usize::from(is_eval && without_frame > 0);
            left -= usize::from(is_eval);
            continue;
        }
        left -= 1;
        let before = next;
        while let Some(frame) = python.get(next) {
            merged.push(Merged::Python(next));
            next += 1;
            // What no function is known of goes to the outermost.
            if frame.entry && left > 0 {
                break;
            }
        }
        if next == before {
            merged.push(Merged::Native(number));
        }
    }
    // Of a walk that met no such function.
    merged.extend((next..python.len()).map(Merged::Python));
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Native frames as letters, `E` for the interpreter's function; Python frames as letters, of which capitals are entries.
    fn merged(native: &str, python: &str) -> String {
        merged_of(native, python, false)
    }

    fn merged_of(native: &str, python: &str, is_full: bool) -> String {
        let is_eval: Vec<bool> = native.chars().map(|letter| letter == 'E').collect();
        let frames: Vec<PythonFrame> = python
            .chars()
            .map(|letter| PythonFrame { code: 8, instruction: None, entry: letter.is_uppercase() })
            .collect();
        let letter = |place| match place {
            Merged::Native(n) => native.chars().nth(n).unwrap(),
            Merged::Python(n) => python.chars().nth(n).unwrap().to_ascii_lowercase(),
        };
        merge(&is_eval, &frames, is_full).into_iter().map(letter).collect()
    }

    #[test]
    fn each_function_has_its_frames() {
        assert_eq!(merged("12E3E4", "abCdF"), "12abc3df4");
        assert_eq!(merged("E", "A"), "a");
        assert_eq!(merged("1E2", "abC"), "1abc2");
    }

    #[test]
    fn a_function_that_has_no_frame_yet() {
        assert_eq!(merged("E1E2", "bC"), "E1bc2");
        assert_eq!(merged("E1E2", ""), "E1E2");
    }

    #[test]
    fn stacks_that_are_cut_off() {
        // The native one ends early: what is left belongs further out.
        assert_eq!(merged("1E2E", "aBcDeF"), "1ab2cdef");
        assert_eq!(merged("12", "aB"), "12ab");
        // Python's ends early.
        assert_eq!(merged("E1E2E3", "aBc"), "ab1c2E3");
        assert_eq!(merged_of("E1E2E3", "AB", true), "a1b2E3");
    }

    #[test]
    fn nothing_is_lost() {
        for bits in 0..1u32 << 10 {
            let native: String = (0..5).map(|n| if bits >> n & 1 == 1 { 'E' } else { '1' }).collect();
            let python: String = (5..10).map(|n| if bits >> n & 1 == 1 { 'A' } else { 'a' }).collect();
            let all = merged(&native, &python);
            assert_eq!(all.matches('1').count(), native.matches('1').count(), "{native} {python} {all}");
            assert_eq!(all.matches('a').count(), 5, "{native} {python} {all}");
        }
    }
}
