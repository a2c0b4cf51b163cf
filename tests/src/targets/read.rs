//! Files of profiles.

use super::memory::peak_of;
use collector::convert::pprof;
use collector::output::compare::{self, Comparison, Named};
use collector::output::terminal::Style;
use collector::output::{flamegraph, folded};
use collector::read::{Recording, Source};

/// Bytes of heap for a byte of a file that is not packed.
const FACTOR: usize = 400;

/// A file of any kind. What can be read is compared with itself.
pub fn read_profile(data: &[u8]) {
    for (_, source) in Source::ENDINGS {
        let (read, peak) = peak_of(|| Recording::parse(data, source, None));
        let packed = source == Source::Pprof && data.starts_with(b"\x1f\x8b");
        assert!(packed || peak <= FACTOR * data.len() + (1 << 20), "{peak} bytes for {}", data.len());
        if let Ok(recording) = read {
            shown(&recording);
        }
    }
}

fn shown(recording: &Recording) {
    // Every index is in its table.
    pprof::write(&recording.profile, std::io::sink()).expect("a profile that was read can be written");
    let mut lines = Vec::new();
    folded::write(&recording.profile, &mut lines).expect("a vector takes all");
    // A count may exceed what the format's readers take.
    if let Ok(again) = Recording::parse(&lines, Source::Folded, None) {
        assert_eq!(sum(&again), sum(recording));
    }
    let named = Named { name: "a", recording };
    let comparison = Comparison::new(named, named);
    assert!(comparison.is_alike());
    assert!(comparison.functions.iter().all(|change| change.own() == 0.0 && change.total() == 0.0));
    let mut picture = Vec::new();
    flamegraph::write_difference(&comparison, &mut picture).expect("a vector takes all");
    roxmltree::Document::parse(&String::from_utf8(picture).expect("text")).expect("a picture is XML");
    for width in [40, 100] {
        let mut table = Vec::new();
        let style = Style { width, color: false };
        compare::write(&comparison, usize::MAX, style, &mut table).expect("a vector takes all");
        assert!(String::from_utf8(table).expect("text").lines().all(|line| line.chars().count() <= width));
    }
}

fn sum(recording: &Recording) -> u64 {
    recording.profile.samples.iter().fold(0, |sum, sample| sum.saturating_add(sample.count))
}
