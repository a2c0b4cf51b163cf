//! Looking up many names in one pass over a kernel's types.

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

/// Names being looked for, and kinds.
pub struct Wanted<'n> {
    names: Vec<&'n [u8]>,
    /// Bit `n` for the kind numbered `n`.
    kinds: u128,
    first_bytes: [bool; 256],
}

impl<'n> Wanted<'n> {
    /// Types of any of `kinds` with one of `names`.
    pub fn new(names: impl IntoIterator<Item = &'n [u8]>, kinds: impl IntoIterator<Item = Kind>) -> Self {
        let mut names: Vec<_> = names.into_iter().filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        names.dedup();
        let mut first_bytes = [false; 256];
        for first in names.iter().filter_map(|name| name.first()) {
            if let Some(flag) = first_bytes.get_mut(usize::from(*first)) {
                *flag = true;
            }
        }
        let kinds = kinds.into_iter().fold(0, |bits, kind| bits | kind.bit());
        Self { names, kinds, first_bytes }
    }

    /// The names in the order that [`scan`](Self::scan) numbers them.
    pub fn names(&self) -> &[&'n [u8]] {
        &self.names
    }

    /// Calls `found` with the number of the name for each type of `btf` (its base not included) that has one of the
    /// names once `key` was applied to its own. Types whose names cannot be read are passed over.
    ///
    /// # Errors
    ///
    /// `CoreFuel`.
    pub fn scan<'b>(
        &self,
        btf: &'b Btf<'_>,
        fuel: &mut Fuel,
        key: impl Fn(&[u8]) -> &[u8],
        mut found: impl FnMut(usize, Type<'b>),
    ) -> Result<(), Error> {
        fuel.spend(u64::from(btf.count() - btf.first_id().0))?;
        let mut types = btf.types();
        while let Some(ty) = types.next_of(self.kinds) {
            let Some(&first) = ty.name_tail().first() else { continue };
            if !self.first_bytes.get(usize::from(first)).is_some_and(|&wanted| wanted) {
                continue;
            }
            let Ok(name) = ty.name_bytes() else { continue };
            fuel.spend_name(name.len())?;
            if let Ok(number) = self.names.binary_search(&key(name)) {
                found(number, ty);
            }
        }
        Ok(())
    }
}

/// The first type of each name and kind, in the order asked.
///
/// # Errors
///
/// `CoreFuel` if names of the BTF are too long to be a kernel's.
pub fn find_all(btf: &Btf<'_>, wanted: &[(&str, Kind)]) -> Result<Vec<Option<BtfId>>, Error> {
    let mut answers = vec![None; wanted.len()];
    let set =
        Wanted::new(wanted.iter().map(|(name, _)| name.as_bytes()), wanted.iter().map(|&(_, kind)| kind));
    set.scan(
        btf,
        &mut Fuel::OBJECT.clone(),
        |name| name,
        |_, ty| {
            let name = ty.name_bytes().unwrap_or_default();
            let matching =
                wanted.iter().zip(&mut answers).filter(|((n, k), _)| n.as_bytes() == name && *k == ty.kind());
            for (_, answer) in matching {
                answer.get_or_insert(ty.id());
            }
        },
    )?;
    Ok(answers)
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
        b.structure("sk_lookup", 8, &[]);
        let data = b.build();
        let btf = Btf::parse(&data[..]).unwrap();
        let found =
            find_all(&btf, &[("sk_lookup", Kind::Func), ("none", Kind::Int), ("sk_lookup", Kind::Struct)]);
        assert_eq!(found.unwrap(), [Some(f), None, Some(s)]);
    }
}
