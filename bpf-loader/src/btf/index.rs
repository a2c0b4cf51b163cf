//! Types by name. A kernel has 127,000 types and BTF no index of names: whoever looks for many is best served by one pass
//! for all of them, and whoever looks for them again by what that pass has found.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::{Btf, BtfId, Kind, Type};
use crate::Error;
use crate::fuel::Fuel;

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
    kinds: u128,
    filter: Filter,
}

impl<'n> Wanted<'n> {
    /// Roots without name are nothing to look for.
    pub fn new(roots: impl Iterator<Item = Root<'n>>) -> Self {
        let mut roots: Vec<_> = roots.filter(|(name, _)| !name.is_empty()).collect();
        roots.sort_unstable();
        roots.dedup();
        let kinds = roots.iter().fold(0, |kinds, &(_, kind)| {
            kinds | kind.bit() | if kind == Kind::Enum { Kind::Enum64.bit() } else { 0 }
        });
        let filter = Filter::new(roots.iter().map(|&(name, _)| name));
        Self { roots, kinds, filter }
    }
}

/// Rules most names out by their first bytes, so that nobody looks for their ends.
struct Filter {
    /// By first byte: wanted names too short to be hashed.
    short: [bool; 256],
    /// Bits by hash of the first four bytes.
    long: [u64; Self::BITS / 64],
}

impl Filter {
    const BITS: usize = 1 << 12;

    fn new<'n>(names: impl Iterator<Item = &'n [u8]>) -> Self {
        let mut filter = Self { short: [false; 256], long: [0; Self::BITS / 64] };
        for name in names {
            if let (Some(prefix), true) = (name.first_chunk(), name.len() > 4) {
                let bit = Self::hash(prefix);
                if let Some(word) = filter.long.get_mut(bit / 64) {
                    *word |= 1 << (bit % 64);
                }
            } else if let Some(short) =
                name.first().and_then(|&first| filter.short.get_mut(usize::from(first)))
            {
                *short = true;
            }
        }
        filter
    }

    fn hash(prefix: &[u8; 4]) -> usize {
        // Knuth's multiplicative hashing.
        (u32::from_ne_bytes(*prefix).wrapping_mul(0x9e37_79b1) >> (32 - Self::BITS.trailing_zeros())) as usize
    }

    /// Whether a wanted name may begin as `tail` does.
    #[inline]
    fn admits(&self, tail: &[u8]) -> bool {
        let long = tail.first_chunk().is_some_and(|prefix| {
            let bit = Self::hash(prefix);
            self.long.get(bit / 64).is_some_and(|word| word >> (bit % 64) & 1 != 0)
        });
        long || tail.first().is_some_and(|&first| self.short.get(usize::from(first)) == Some(&true))
    }
}

/// What one pass has found: for each root, the ids in their order.
pub(super) struct Search<'w> {
    wanted: &'w Wanted<'w>,
    found: Vec<Vec<BtfId>>,
}

impl<'w> Search<'w> {
    pub fn new(wanted: &'w Wanted<'w>) -> Self {
        Self { wanted, found: vec![Vec::new(); wanted.roots.len()] }
    }

    /// Bit `n` for the kind numbered `n`.
    pub fn kinds(&self) -> u128 {
        self.wanted.kinds
    }

    pub fn includes(&self, kind: u8) -> bool {
        self.wanted.kinds >> kind & 1 != 0
    }

    /// Whether a name that begins so is worth a closer look.
    #[inline]
    pub fn admits(&self, tail: &[u8]) -> bool {
        self.wanted.filter.admits(tail)
    }

    /// Takes a type of one of the wanted kinds if its name, which must be readable, is a wanted one.
    pub fn see(&mut self, ty: &Type<'_>, fuel: &mut Fuel) -> Result<(), Error> {
        let Ok(name) = ty.name_bytes() else { return Ok(()) };
        fuel.spend_name(name.len())?;
        let root = (essential_name(name), kind_class(ty.kind()));
        if let Ok(at) = self.wanted.roots.binary_search(&root) {
            if let Some(ids) = self.found.get_mut(at) {
                ids.push(ty.id());
            }
        }
        Ok(())
    }

    fn results(self) -> impl Iterator<Item = (Root<'w>, Vec<BtfId>)> {
        self.wanted.roots.iter().copied().zip(self.found)
    }
}

/// Ids by name.
type Names = HashMap<Box<[u8]>, Box<[BtfId]>>;

/// What was looked for so far, by kind, and the ids that were found, if any.
#[derive(Default)]
pub(super) struct Known(Mutex<HashMap<Kind, Names>>);

impl Known {
    /// Roots that are remembered at most, and bytes of a name: names come from objects, which may be hostile.
    const MOST: usize = 2048;
    const LONGEST: usize = 128;

    pub fn remember(&self, search: Search<'_>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut room = Self::MOST.saturating_sub(known.values().map(HashMap::len).sum());
        for ((name, kind), ids) in search.results().filter(|((name, _), _)| name.len() <= Self::LONGEST) {
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
    /// `CoreFuel`.
    pub fn find_roots(&self, roots: &[Root<'_>], fuel: &mut Fuel) -> Result<Vec<Vec<BtfId>>, Error> {
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
        self.known.remember(search);
        Ok(found)
    }

    /// Looks at all types.
    fn search(&self, search: &mut Search<'_>, fuel: &mut Fuel) -> Result<(), Error> {
        fuel.spend(u64::from(self.count - self.first_id))?;
        let mut types = self.types();
        let strings = self.section(self.strings).data;
        while let Some(ty) = types
            .next_where(|kind, name| search.includes(kind) && search.admits(self.own_tail(strings, name)))
        {
            search.see(&ty, fuel)?;
        }
        Ok(())
    }

    /// The strings from `offset` on; `own` are those of this file.
    #[inline]
    pub(super) fn own_tail<'s>(&'s self, own: &'s [u8], offset: u32) -> &'s [u8] {
        match offset.checked_sub(self.first_string) {
            Some(at) => own.get(at as usize..).unwrap_or_default(),
            None => self.string_tail(offset),
        }
    }
}

/// The first type of each name and kind, in the order asked; of this file, its base not included.
///
/// # Errors
///
/// `CoreFuel` if names of the BTF are too long to be a kernel's.
pub fn find_all(btf: &Btf<'_>, wanted: &[(&str, Kind)]) -> Result<Vec<Option<BtfId>>, Error> {
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
        assert_eq!(primed.find_roots(&[(b"other", Kind::Int)], &mut Fuel::new(5)), Err(Error::CoreFuel));
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
