//! The walk over the type section that numbers the types.
//!
//! Where a type begins is known only once the length of the one before is, so one walk waits for memory and multiplication at
//! every step. A kernel's types are therefore walked from several places at once. Where a type begins in the middle is guessed:
//! if the walk from before arrives exactly there, the guess was right, and else all is walked from the beginning.

use super::index::{Search, Wanted};
use super::types::{self, HEADER_LEN};
use super::{Btf, BtfId, Types};
use crate::error::{Error, Result};
use crate::fuel::Fuel;

/// How many walks at once, for files whose types have so many bytes.
const LANES: usize = 4;
const LARGE: usize = 1 << 20;

/// Steps of each walk before it is asked whether all are done.
const ROUNDS: usize = 64;

/// Types in a row that must look right where a type is guessed to begin, and bytes in which such a place is looked for.
const PLAUSIBLE: usize = 64;
const NEAR: usize = 4096;

/// Some types in a row: offsets of the first, and of every `1 << stride_bits`th after it.
#[derive(Debug)]
pub(super) struct Segment {
    pub first_id: u32,
    pub index: Vec<u32>,
}

/// What a walk has found out.
pub(super) struct Walked {
    pub segments: Vec<Segment>,
    /// One more than the last id.
    pub count: u32,
    pub pointer_size: Option<u8>,
    /// For each root that was wanted, the ids; nothing if names are so long that looking for them took all the fuel.
    pub found: Option<Vec<Vec<BtfId>>>,
}

/// The number of [`Kind::Int`].
const INT: u8 = 1;

struct Lane<'b, 'w> {
    types: Types<'b>,
    /// Where it arrives if all is well.
    end: usize,
    index: Vec<u32>,
    pointer_size: Option<u8>,
    search: Search<'w>,
    searched: bool,
}

impl Lane<'_, '_> {
    /// The next type, if there is one before the end.
    #[inline]
    fn step(&mut self, btf: &Btf<'_>, fuel: &mut Fuel) -> Result<()> {
        let types = &mut self.types;
        if types.at >= self.end {
            return Ok(());
        }
        // The section's length is a u32, so is every offset in it.
        let at = types.at as u32;
        if types.next_id & ((1 << btf.stride_bits) - 1) == 0 {
            self.index.push(at);
        }
        let (kind, name, len) = types.record().ok_or_else(|| types.fault())?;
        if kind == INT && self.pointer_size.is_none() {
            self.pointer_size = types.clone().next().and_then(|ty| ty.pointer_size_hint());
        }
        if self.search.put_by(kind, name, at, types.next_id) {
            self.searched &= self.search.look(btf, fuel).is_ok();
        }
        types.advance(len);
        Ok(())
    }
}

/// Numbers the types of `btf`, whose ids begin with `first_id`, and looks for those that are wanted.
///
/// # Errors
///
/// `BtfKind`, `BtfTypeTruncated`.
pub(super) fn walk(btf: &Btf<'_>, wanted: &Wanted<'_>) -> Result<Walked> {
    let len = btf.types.len;
    let mut starts = vec![0];
    if len >= LARGE {
        starts.extend((1..LANES).filter_map(|lane| plausible_start(btf, len / LANES * lane)));
    }
    if starts.len() > 1 {
        if let Some(walked) = walk_from(btf, wanted, &starts)? {
            return Ok(walked);
        }
    }
    walk_from(btf, wanted, &[0])?.ok_or_else(|| Box::new(Error::Internal("a walk that misses the end")))
}

/// `None` if a guess was wrong, or a walk that began with a guess did not come to its end.
fn walk_from(btf: &Btf<'_>, wanted: &Wanted<'_>, starts: &[usize]) -> Result<Option<Walked>> {
    let section = btf.section(btf.types);
    let ends = starts.iter().skip(1).copied().chain([section.data.len()]);
    let mut lanes: Vec<Lane<'_, '_>> = starts
        .iter()
        .zip(ends)
        .map(|(&at, end)| Lane {
            types: Types { btf, section, at, next_id: 0 },
            end,
            // More would be a rare file: types have 12 bytes at least, and 20 or more on average.
            index: Vec::with_capacity((end.saturating_sub(at) / 20) >> btf.stride_bits),
            pointer_size: None,
            search: Search::new(wanted),
            searched: true,
        })
        .collect();
    let mut fuel = Fuel::OBJECT.clone();
    while lanes.iter().any(|lane| lane.types.at < lane.end) {
        for _ in 0..ROUNDS {
            for lane in &mut lanes {
                match lane.step(btf, &mut fuel) {
                    Ok(()) => {}
                    Err(error) if starts.len() == 1 => return Err(numbered(error, btf.first_id)),
                    Err(_) => return Ok(None),
                }
            }
        }
    }
    if lanes.iter().any(|lane| lane.types.at != lane.end) {
        return Ok(None);
    }
    let mut walked = Walked { segments: Vec::new(), count: btf.first_id, pointer_size: None, found: None };
    let mut found = Some(vec![Vec::new(); wanted.len()]);
    for mut lane in lanes {
        let searched = lane.searched & lane.search.look(btf, &mut fuel).is_ok();
        lane.index.shrink_to_fit();
        let first_id = walked.count;
        if let (Some(all), true) = (&mut found, searched) {
            for (all, ids) in all.iter_mut().zip(lane.search.found()) {
                all.extend(ids.iter().map(|id| BtfId(id.0.saturating_add(first_id))));
            }
        } else {
            found = None;
        }
        walked.segments.push(Segment { first_id, index: lane.index });
        walked.count = first_id.saturating_add(lane.types.next_id);
        walked.pointer_size = walked.pointer_size.or(lane.pointer_size);
    }
    Ok(Some(Walked { found, ..walked }))
}

/// Lanes number types from 0.
fn numbered(mut error: Box<Error>, first_id: u32) -> Box<Error> {
    if let Error::BtfKind { type_id, .. } | Error::BtfTypeTruncated { type_id } = &mut *error {
        type_id.0 = type_id.0.saturating_add(first_id);
    }
    error
}

/// A place from `near` on where types seem to begin.
fn plausible_start(btf: &Btf<'_>, near: usize) -> Option<usize> {
    let near = near / 4 * 4;
    (near..near.saturating_add(NEAR)).step_by(4).find(|&at| {
        let mut types = Types { btf, section: btf.section(btf.types), at, next_id: 0 };
        (0..PLAUSIBLE).all(|_| {
            let Some((kind, name, len)) = types.record() else { return false };
            types.advance(len);
            // The longest enumerations have some thousand values.
            types::tail_len(kind).is_some()
                && (name as usize) < btf.strings.len
                && len <= HEADER_LEN + NEAR * 12
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btf::Kind;
    use crate::btf::encode::{Builder, Field};
    use crate::bytes::Endian;

    /// Enough types for several walks, of all lengths.
    fn large() -> Vec<u8> {
        let mut b = Builder::new(Endian::Big);
        let int = b.int("int", 4, 1);
        for number in 0..40_000u32 {
            let fields = [Field::at("a", int, 0), Field::at("b", int, 4), Field::at("c", int, 8)];
            let fields = fields.get(..number as usize % 4).unwrap();
            let s = b.structure(if number % 1000 == 7 { "wanted" } else { "other" }, 12, fields);
            b.ptr(s);
        }
        b.int("long", 4, 1);
        b.build()
    }

    #[test]
    fn several_walks_find_what_one_does() {
        let data = large();
        let roots = [(&b"wanted"[..], Kind::Struct), (b"long", Kind::Int)];
        let btf = Btf::parse_finding(&data[..], &roots).unwrap();
        assert_eq!((btf.segments.len(), btf.count(), btf.pointer_size()), (LANES, 80_003, 4));
        let wanted = Wanted::new(roots.into_iter());
        let alone = walk_from(&btf, &wanted, &[0]).unwrap().unwrap();
        assert_eq!((alone.segments.len(), alone.count, alone.pointer_size), (1, 80_003, Some(4)));
        let found = btf.find_roots(&roots, &mut Fuel::new(2)).unwrap();
        let expected: Vec<_> = (0..40).map(|n| BtfId(2 + 2 * (1000 * n + 7))).collect();
        assert_eq!(found, [expected, vec![BtfId(80_002)]]);
        assert_eq!(alone.found.unwrap(), [found[1].clone(), found[0].clone()], "sorted by name");
        // Looked for later, from the places that were remembered.
        let later = Btf::parse(&data[..]).unwrap();
        assert_eq!(later.find_roots(&roots, &mut Fuel::OBJECT.clone()).unwrap(), found);
        // Each type is where its number says.
        let by_walk: Vec<_> = btf.types().map(|ty| (ty.id(), ty.kind(), ty.vlen())).collect();
        let by_id = (1..btf.count()).map(|id| btf.type_by_id(BtfId(id)).unwrap());
        assert!(by_id.map(|ty| (ty.id(), ty.kind(), ty.vlen())).eq(by_walk));
        assert!(btf.type_by_id(BtfId(80_003)).is_err());
    }

    #[test]
    fn a_wrong_guess_is_noticed() {
        let data = large();
        let btf = Btf::parse(&data[..]).unwrap();
        let none = Wanted::new(std::iter::empty());
        let middle = plausible_start(&btf, btf.types.len / 2).unwrap();
        assert!(walk_from(&btf, &none, &[0, middle]).unwrap().is_some());
        for wrong in [middle + 4, middle - 4] {
            assert!(walk_from(&btf, &none, &[0, wrong]).unwrap().is_none());
        }
    }

    #[test]
    fn a_fault_is_said_of_the_type_that_has_it() {
        let mut data = large();
        let types = Btf::parse(&data[..]).unwrap().types.at;
        let at = {
            let btf = Btf::parse(&data[..]).unwrap();
            types + btf.types_from(BtfId(70_000)).unwrap().at
        };
        data[at + 4] = 0x7f;
        let error = Btf::parse(&data[..]).unwrap_err();
        assert_eq!(*error, Error::BtfKind { type_id: BtfId(70_000), kind: 0x7f });
    }
}
