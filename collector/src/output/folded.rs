//! Folded stacks: `comm;outermost;...;leaf count`, one line a stack, as FlameGraph's tools and bcc's `profile -f`
//! write them. Kernel frames end in `_[k]` and those of just-in-time compilers in `_[j]`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::names::{NO_STACK, Names, samples};
use crate::model::{FrameKind, Profile};

/// Writes `profile` as folded stacks, merged over processes of one name and their threads, in byte order.
///
/// `;` in a name becomes `:`, as perf's own folding does: the format has no escapes.
///
/// # Errors
///
/// What `out` says.
pub fn write(profile: &Profile, out: &mut impl Write) -> io::Result<()> {
    lines(profile).iter().try_for_each(|(line, count)| writeln!(out, "{line} {count}"))
}

/// The lines without their counts, and those.
pub(super) fn lines(profile: &Profile) -> BTreeMap<String, u64> {
    let names = Names::new(profile);
    let mut lines: BTreeMap<String, u64> = BTreeMap::new();
    for sample in samples(profile) {
        let mut line = names.process(sample.process).replace(';', ":");
        let process = line.len();
        for call in names.outermost_first(sample.stack) {
            line.push(';');
            line.extend(call.name.chars().map(|c| if c == ';' { ':' } else { c }));
            match call.frame.kind {
                FrameKind::Kernel => line.push_str("_[k]"),
                FrameKind::Jit => line.push_str("_[j]"),
                #[cfg(feature = "python")]
                FrameKind::Python => {}
                FrameKind::Native => {}
            }
        }
        if line.len() == process {
            line.push(';');
            line.push_str(NO_STACK);
        }
        let count = lines.entry(line).or_default();
        *count = count.saturating_add(sample.count);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::fixture::Fixture;

    fn folded(profile: &Profile) -> String {
        let mut out = Vec::new();
        write(profile, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_outermost_first_merged_and_sorted() {
        let mut fixture = Fixture::default();
        let b = fixture.process(2, "b", "/bin/b");
        let a = fixture.process(1, "a", "/bin/a");
        let again = fixture.process(3, "a", "/bin/a");
        fixture.sample(b, "main;read;k:vfs_read", 3);
        fixture.sample(a, "main;work", 5);
        fixture.sample(again, "main;work", 7);
        fixture.sample(a, "main;j:loop", 1);
        fixture.sample(a, "", 2);
        fixture.sample(a, "main;work", 0);
        assert_eq!(
            folded(&fixture.finish()),
            "a;[no stack] 2\na;main;loop_[j] 1\na;main;work 12\nb;main;read;vfs_read_[k] 3\n"
        );
    }

    #[test]
    fn separators_in_names_do_not_make_frames() {
        let mut fixture = Fixture::default();
        let process = fixture.process(1, "a;b\nc", "/bin/a");
        fixture.sample_of(process, &["operator;()", "x\ny 3"], 4);
        assert_eq!(folded(&fixture.finish()), "a:b?c;operator:();x?y 3 4\n");
    }
}
