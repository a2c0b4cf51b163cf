//! Folded stacks of both profiles, as FlameGraph's `difffolded.pl` writes them: `stack before after`, a line each.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::Comparison;
use crate::output::folded::lines;

/// Writes every stack of both, in byte order.
///
/// # Errors
///
/// What `out` says.
pub fn write(comparison: &Comparison<'_>, out: &mut impl Write) -> io::Result<()> {
    let before = lines(&comparison.before.recording.profile);
    let mut both: BTreeMap<String, (u64, u64)> =
        before.into_iter().map(|(line, count)| (line, (count, 0))).collect();
    for (line, count) in lines(&comparison.after.recording.profile) {
        both.entry(line).or_default().1 = count;
    }
    both.iter().try_for_each(|(line, (before, after))| writeln!(out, "{line} {before} {after}"))
}
