//! Types by name. A kernel has 127,000 types and BTF no index of names: whoever looks for many is best served by one pass
//! for all of them, and whoever looks for them again by what that pass has found.

use std::sync::{Mutex, PoisonError};

use super::{Btf, BtfId, Kind};
use crate::error::Result;
use crate::fuel::Fuel;
use crate::sorted::SortedMap;

/// A type's name without its flavour: up to the *last* `___` that has other characters than underscores on both sides
/// (libbpf's `bpf_core_essential_name_len`). Definitions of one kernel type for different kernel versions are told apart
/// by their flavours.
pub fn essential_name(name: &[u8]) -> &[u8] {
    let separator = name.windows(5).rposition(|w| w[0] != b'_' && w[1..4] == *b"___" && w[4] != b'_');
    separator.and_then(|at| name.get(..=at)).unwrap_or(name)
}

/// What a type is looked for by: its essential name, and its kind, in which both widths of enumeration are one. The kind
/// matters: `bpf_sk_lookup` is a structure and a function.
pub type Root<'n> = (&'n [u8], Kind);

/// The kind that stands for `kind` in a [`Root`].
pub fn kind_class(kind: Kind) -> Kind {
    if kind == Kind::Enum64 { Kind::Enum } else { kind }
}

/// The root of a type of that name and kind.
pub fn root(name: &str, kind: Kind) -> Root<'_> {
    (essential_name(name.as_bytes()), kind_class(kind))
}

/// What a pass over types looks for.
pub(super) struct Wanted<'n> {
    /// Sorted, each once.
    roots: Vec<Root<'n>>,
    /// Bit `n` for the kind numbered `n`.
    kinds: u64,
    filter: Filter,
}

impl<'n> Wanted<'n> {
    /// Roots without name are nothing to look for.
    pub fn new(roots: impl Iterator<Item = Root<'n>>) -> Self {
        let mut roots: Vec<_> = roots.filter(|(name, _)| !name.is_empty()).collect();
        roots.sort_unstable();
        roots.dedup();
        let kinds = roots.iter().fold(0, |kinds, &(_, kind)| {
            let also = if kind == Kind::Enum { Kind::Enum64 } else { kind };
            [kind, also]
                .iter()
                .fold(kinds, |kinds, kind| kinds | 1u64.checked_shl(kind.number().into()).unwrap_or(0))
        });
        let filter = Filter::new(roots.iter().map(|&(name, _)| name));
        Self { roots, kinds, filter }
    }

    /// The number of roots.
    pub fn len(&self) -> usize {
        self.roots.len()
    }

    /// Whether types of the kind of that number are looked for.
    #[inline]
    fn includes(&self, kind: u8) -> bool {
        self.kinds.checked_shr(kind.into()).unwrap_or(0) & 1 != 0
    }
}

/// Rules most names out by their first eight bytes, so that nobody looks for their ends.
#[derive(Default)]
struct Filter {
    /// What wanted names begin with: eight bytes, zeros from the end of a shorter name on, or with the beginning of a flavour.
    prefixes: Bits,
    /// Whether there are names so short that a flavour's name begins within the eight bytes.
    short: bool,
}

impl Filter {
    fn new<'n>(names: impl Iterator<Item = &'n [u8]>) -> Self {
        let mut filter = Self::default();
        for name in names {
            filter.prefixes.set(Self::prefix(name));
            match name.len() {
                0..=4 => filter.short = true,
                5..=7 => filter.prefixes.set(Self::prefix(&[name, b"___"].concat())),
                _ => {}
            }
        }
        filter
    }

    /// The first eight bytes as a number, the first being the least significant; zeros for what is missing.
    fn prefix(text: &[u8]) -> u64 {
        let bytes = text.first_chunk().copied().unwrap_or_else(|| {
            let mut bytes = [0; 8];
            bytes.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
            bytes
        });
        u64::from_le_bytes(bytes)
    }

    /// The highest bit of each byte of `word` that is zero; maybe of higher ones, too.
    fn zeros(word: u64) -> u64 {
        word.wrapping_sub(0x0101_0101_0101_0101) & !word & 0x8080_8080_8080_8080
    }

    /// Whether a wanted name may begin as `tail` does.
    #[inline]
    fn admits(&self, tail: &[u8]) -> bool {
        let prefix = Self::prefix(tail);
        let end = Self::zeros(prefix);
        let name = prefix & ((end & end.wrapping_neg()) >> 7).wrapping_sub(1);
        // Three underscores after one to four bytes.
        let underscores = Self::zeros(prefix ^ u64::from_ne_bytes([b'_'; 8]));
        let flavour = underscores & underscores >> 8 & underscores >> 16 & 0x80_8080_8000;
        // Nearly always both are false, so one branch on them together is the cheapest.
        self.prefixes.get(name) | (self.short & (flavour != 0))
    }
}

/// A set of numbers by hash, which may seem to hold more than it does.
#[derive(Default)]
struct Bits([u64; Self::WORDS]);

impl Bits {
    const WORDS: usize = 32;

    fn place(number: u64) -> (usize, u64) {
        // Multiplicative hashing, as Knuth has it.
        let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((hash >> 59) as usize, 1 << (hash >> 53 & 63))
    }

    fn set(&mut self, number: u64) {
        let (word, bit) = Self::place(number);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    fn get(&self, number: u64) -> bool {
        let (word, bit) = Self::place(number);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }
}

/// Types that are put by before they are looked at.
const BATCH: usize = 256;

/// A pass over types: what it has found for each root, the ids in their order.
///
/// Types of wanted kinds come in no order that a processor could predict, and their names are all over the strings. So types
/// are put by without a branch, and the names of many then looked at together: the loads of one do not wait for those of
/// another.
pub(super) struct Search<'w> {
    wanted: &'w Wanted<'w>,
    found: Vec<Vec<BtfId>>,
    /// Put by: where its name is, where the type is, its number.
    waiting: [(u32, u32, BtfId); BATCH],
    len: usize,
}

impl<'w> Search<'w> {
    pub fn new(wanted: &'w Wanted<'w>) -> Self {
        let waiting = [(0, 0, BtfId::VOID); BATCH];
        Self { wanted, found: vec![Vec::new(); wanted.roots.len()], waiting, len: 0 }
    }

    /// Puts a type by if it is of a wanted kind. Whether it is now time to [`look`](Self::look).
    #[inline]
    pub fn put_by(&mut self, kind: u8, name: u32, at: u32, id: u32) -> bool {
        if let Some(place) = self.waiting.get_mut(self.len) {
            *place = (name, at, BtfId(id));
        }
        self.len += usize::from(self.wanted.includes(kind));
        self.len == BATCH
    }

    /// Looks at what was put by.
    ///
    /// # Errors
    ///
    /// `TooComplex`.
    pub fn look(&mut self, btf: &Btf<'_>, fuel: &mut Fuel) -> Result<()> {
        let strings = btf.section(btf.strings).data;
        let waiting = self.waiting.get(..self.len).unwrap_or_default();
        for &(name, at, id) in waiting {
            let tail = match name.checked_sub(btf.first_string) {
                Some(own) => strings.get(own as usize..).unwrap_or_default(),
                None => btf.string_tail(name),
            };
            if !self.wanted.filter.admits(tail) {
                continue;
            }
            // A name that cannot be read is nobody's.
            let Some(ty) = btf.types_at(at, id).next() else { continue };
            let Ok(name) = ty.name_bytes() else { continue };
            fuel.spend_name(name.len())?;
            let root = (essential_name(name), kind_class(ty.kind()));
            let wanted = self.wanted.roots.binary_search(&root).ok();
            if let Some(ids) = wanted.and_then(|at| self.found.get_mut(at)) {
                ids.push(id);
            }
        }
        self.len = 0;
        Ok(())
    }

    /// For each root that is wanted, what was found so far.
    pub fn found(&self) -> &[Vec<BtfId>] {
        &self.found
    }
}

/// Ids by name.
type Names = SortedMap<Box<[u8]>, Box<[BtfId]>>;

/// What was looked for so far, by kind, and the ids that were found, if any.
#[derive(Default)]
pub(super) struct Known(Mutex<SortedMap<Kind, Names>>);

impl Known {
    /// Roots that are remembered at most, and bytes of a name: names come from objects, which may be hostile.
    const MOST: usize = 2048;
    const LONGEST: usize = 128;

    /// Remembers what was found for each root that was wanted.
    pub fn remember(&self, wanted: &Wanted<'_>, found: Vec<Vec<BtfId>>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut room = Self::MOST.saturating_sub(known.values().map(SortedMap::len).sum());
        for (&(name, kind), ids) in wanted.roots.iter().zip(found) {
            if name.len() > Self::LONGEST {
                continue;
            }
            if room == 0 {
                return;
            }
            room -= 1;
            known.entry(kind).or_default().insert(name.into(), ids.into());
        }
    }

    fn get(&self, (name, kind): Root<'_>) -> Option<Vec<BtfId>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&kind)?.get(name).map(|ids| ids.to_vec())
    }
}

impl Btf<'_> {
    /// For each of `roots`, the types of this file (its base not included) that have its essential name and kind, in the
    /// order of their ids. Types whose names cannot be read are passed over, and nothing has an empty name.
    ///
    /// One pass over the types finds them all; what earlier calls have looked for is remembered.
    ///
    /// # Errors
    ///
    /// `TooComplex`.
    pub fn find_roots(&self, roots: &[Root<'_>], fuel: &mut Fuel) -> Result<Vec<Vec<BtfId>>> {
        fuel.spend(roots.len() as u64)?;
        let known: Vec<_> = roots.iter().map(|&root| self.known.get(root)).collect();
        let missing = roots.iter().zip(&known).filter(|(_, known)| known.is_none());
        let wanted = Wanted::new(missing.map(|(&root, _)| root));
        let mut search = Search::new(&wanted);
        if !wanted.roots.is_empty() {
            self.search(&mut search, fuel)?;
        }
        let found = roots.iter().zip(known).map(|(root, known)| {
            let searched = || search.found.get(wanted.roots.binary_search(root).ok()?).cloned();
            known.or_else(searched).unwrap_or_default()
        });
        let found = found.collect();
        self.known.remember(&wanted, search.found);
        Ok(found)
    }

    /// Looks at all types.
    fn search(&self, search: &mut Search<'_>, fuel: &mut Fuel) -> Result<()> {
        fuel.spend(u64::from(self.count - self.first_id))?;
        let stride = 1 << self.stride_bits;
        let ends = self.segments.iter().skip(1).map(|next| next.first_id).chain([self.count]);
        for (segment, end) in self.segments.iter().zip(ends) {
            // Each remembered place begins a walk of its own, which need not wait for the one before.
            for (&at, first) in segment.index.iter().zip((segment.first_id..end).step_by(stride)) {
                let mut types = self.types_at(at, BtfId(first));
                for _ in 0..stride.min((end - first) as usize) {
                    let Some((kind, name, len)) = types.record() else { break };
                    if search.put_by(kind, name, types.at as u32, types.next_id) {
                        search.look(self, fuel)?;
                    }
                    types.advance(len);
                }
            }
        }
        search.look(self, fuel)
    }
}

/// The first type of each name and kind, in the order asked; of this file, its base not included.
///
/// # Errors
///
/// `TooComplex` if names of the BTF are too long to be a kernel's.
pub fn find_all(btf: &Btf<'_>, wanted: &[(&str, Kind)]) -> Result<Vec<Option<BtfId>>> {
    let roots: Vec<Root<'_>> = wanted.iter().map(|&(name, kind)| root(name, kind)).collect();
    let found = btf.find_roots(&roots, &mut Fuel::OBJECT.clone())?;
    let answers = wanted.iter().zip(found).map(|(&(name, kind), ids)| {
        ids.into_iter()
            .find(|&id| btf.type_by_id(id).is_ok_and(|ty| ty.kind() == kind && ty.name_is(name.as_bytes())))
    });
    Ok(answers.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btf::encode::Builder;
    use crate::bytes::Endian;

    #[test]
    fn a_flavour_starts_at_the_last_separator() {
        for (name, essential) in [
            ("task_struct", "task_struct"),
            ("task_struct___old", "task_struct"),
            ("a___b___c", "a___b"),
            ("a____b", "a____b"),
            ("___b", "___b"),
            ("a___", "a___"),
            ("a___b____", "a"),
            ("a___b___", "a"),
            ("", ""),
        ] {
            assert_eq!(essential_name(name.as_bytes()), essential.as_bytes(), "{name}");
        }
    }

    #[test]
    fn the_filter_admits_every_wanted_name_and_its_flavours() {
        let text = b"name_of_a_type";
        for len in 1..text.len() {
            let name = &text[..len];
            let filter = Filter::new(std::iter::once(name));
            for after in [&b""[..], b"___old", b"___x"] {
                let full = [name, after, b"\0"].concat();
                if essential_name(&full[..full.len() - 1]) == name {
                    assert!(filter.admits(&full), "{}", full.escape_ascii());
                    assert!(filter.admits(&[&full[..], b"another\0"].concat()), "{}", full.escape_ascii());
                }
            }
            let others = [&b"other_name\0"[..], b"\0", b"nome\0", b"__x\0"];
            assert!(others.iter().filter(|other| filter.admits(other)).count() <= 1);
        }
    }

    #[test]
    fn one_pass_finds_all_names_of_the_kinds_asked() {
        let mut b = Builder::new(Endian::Little);
        let int = b.int("int", 4, 1);
        let s = b.structure("sk_lookup", 4, &[]);
        let proto = b.prototype(int, &[]);
        let f = b.function("sk_lookup", proto, crate::btf::Linkage::Global);
        let again = b.structure("sk_lookup", 8, &[]);
        let flavour = b.structure("sk_lookup___old", 8, &[]);
        let short = b.structure("sk", 8, &[]);
        let four = b.structure("sock", 8, &[]);
        let narrow = b.enumeration("choice", false, &[("A", 1)]);
        let wide = b.enumeration64("choice", false, &[("A", 1)]);
        let data = b.build();
        let btf = Btf::parse(&data[..]).unwrap();
        let found = find_all(
            &btf,
            &[
                ("sk_lookup", Kind::Func),
                ("none", Kind::Int),
                ("sk_lookup", Kind::Struct),
                ("sk_lookup___old", Kind::Struct),
                ("choice", Kind::Enum64),
                ("", Kind::Struct),
            ],
        );
        assert_eq!(found.unwrap(), [Some(f), None, Some(s), Some(flavour), Some(wide), None]);

        let roots: [Root<'_>; 5] = [
            (b"sk_lookup", Kind::Struct),
            (b"sk", Kind::Struct),
            (b"sock", Kind::Struct),
            (b"choice", Kind::Enum),
            (b"sk", Kind::Union),
        ];
        let expected = [vec![s, again, flavour], vec![short], vec![four], vec![narrow, wide], vec![]];
        let mut fuel = Fuel::new(1000);
        assert_eq!(btf.find_roots(&roots, &mut fuel).unwrap(), expected);
        // Now all is known, and no step is taken but for asking.
        let mut fuel = Fuel::new(roots.len() as u64);
        assert_eq!(btf.find_roots(&roots, &mut fuel).unwrap(), expected);
        // Found while parsing is known, too.
        let primed = Btf::parse_finding(&data[..], &roots).unwrap();
        assert_eq!(primed.find_roots(&roots, &mut Fuel::new(5)).unwrap(), expected);
        assert_eq!(
            primed.find_roots(&[(b"other", Kind::Int)], &mut Fuel::new(5)),
            Err(Box::new(crate::Error::TooComplex { what: "comparisons of types and names", limit: 5 }))
        );
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut b = Builder::new(Endian::Little);
        let long = "n".repeat(Known::LONGEST + 1);
        let id = b.structure(&long, 4, &[]);
        let data = b.build();
        let btf = Btf::parse(&data[..]).unwrap();
        let root = (long.as_bytes(), Kind::Struct);
        for _ in 0..2 {
            assert_eq!(btf.find_roots(&[root], &mut Fuel::new(100)).unwrap(), [[id]]);
        }
        assert!(btf.known.get(root).is_none());
        let names: Vec<String> = (0..Known::MOST + 10).map(|n| format!("name{n}")).collect();
        let roots: Vec<Root<'_>> = names.iter().map(|name| (name.as_bytes(), Kind::Func)).collect();
        btf.find_roots(&roots, &mut Fuel::OBJECT.clone()).unwrap();
        assert_eq!(roots.iter().filter(|&&root| btf.known.get(root).is_some()).count(), Known::MOST);
    }
}
