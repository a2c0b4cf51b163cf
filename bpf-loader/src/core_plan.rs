//! CO-RE relocations of the functions that a plan contains: resolved together, applied program by program.

use crate::stable_sort::sort_by_number;
use bpf_sys::Insn;

use crate::btf::Btf;
use crate::btf::ext::CoreRelo;
use crate::btf::index::Root;
use crate::core_relo::{self, Patched, Poison, Resolution};
use crate::elf::SectionIdx;
use crate::error::{Error, Result};
use crate::fuel::Fuel;
use crate::insn::InsnIdx;
use crate::object::ObjectSpec;
use crate::sorted::SortedMap;
use crate::subprog::{Linked, Part};
use crate::target::Target;

/// Bytes of an instruction, which `.BTF.ext` counts in.
const SLOT: u32 = 8;

/// A relocation at its place, and its answer.
type Answer = (InsnIdx, CoreRelo, Result<Resolution>);

/// The relocations of all functions of a plan; by section, in the order of their instructions.
pub(crate) struct CoreRelocations {
    answers: SortedMap<SectionIdx, Vec<Answer>>,
    /// Why there are no answers at all.
    failed: Option<Box<Error>>,
}

impl CoreRelocations {
    /// Resolves what the linked programs contain, with one pass over the target's types, which serves whoever looks for
    /// `others` later as well.
    pub fn resolve<'l>(
        spec: &ObjectSpec<'_>,
        linked: impl Iterator<Item = &'l Linked>,
        others: &[Root<'_>],
        target: &dyn Target,
    ) -> Self {
        let mut all = Self { answers: SortedMap::new(), failed: None };
        if let Some(btf) = &spec.btf {
            all.failed = all.fill(spec, btf, linked, others, target).err();
        } else if !others.is_empty() {
            target.types().expect(others);
        }
        all
    }

    fn fill<'l>(
        &mut self,
        spec: &ObjectSpec<'_>,
        btf: &Btf<'_>,
        linked: impl Iterator<Item = &'l Linked>,
        others: &[Root<'_>],
        target: &dyn Target,
    ) -> Result<()> {
        let mut sections: SortedMap<SectionIdx, Vec<std::ops::Range<u32>>> = SortedMap::new();
        for part in linked.flat_map(|l| &l.parts) {
            let Some(function) = spec.function(part.function) else { continue };
            sections.entry(function.section).or_default().push(function.insns.clone());
        }
        // The first of several sections of a name.
        let mut named: SortedMap<&str, SectionIdx> = SortedMap::new();
        for section in spec.code.iter().filter(|section| sections.contains_key(&section.idx)) {
            named.entry(section.name).or_insert(section.idx);
        }
        for ranges in sections.values_mut() {
            ranges.sort_unstable_by_key(|r| (r.start, r.end));
        }
        let mut places = Vec::new();
        for records in spec.ext.iter().flat_map(|ext| ext.core_relos()) {
            let name = records.name(btf)?;
            let Some(section) = named.get(name) else { continue };
            let Some(ranges) = sections.get(section) else { continue };
            for relo in records.records {
                let insn = relo.insn_offset / SLOT;
                // Functions do not overlap, so the last that begins before is the only one that can hold it.
                let after = ranges.partition_point(|r| r.start <= insn);
                if after.checked_sub(1).and_then(|i| ranges.get(i)).is_some_and(|r| r.contains(&insn)) {
                    places.push((*section, InsnIdx(insn), relo));
                }
            }
        }
        let relos: Vec<CoreRelo> = places.iter().map(|(_, _, relo)| *relo).collect();
        let roots = core_relo::roots(btf, &relos);
        let (types, here) = match target.external_types() {
            Some(external) => (external, others.to_vec()),
            None => (target.types(), [&roots, others].concat()),
        };
        if !here.is_empty() {
            target.types().expect(&here);
        }
        if places.is_empty() {
            return Ok(());
        }
        let resolutions = core_relo::resolve(btf, relos, types)?;
        for ((section, at, relo), resolution) in places.into_iter().zip(resolutions) {
            self.answers.entry(section).or_default().push((at, relo, resolution));
        }
        for answers in self.answers.values_mut() {
            sort_by_number(answers, |(at, _, _)| at.0.into());
        }
        Ok(())
    }

    /// Writes the answers into a linked program; which instructions were poisoned, and what they asked for.
    pub fn patch(
        &self,
        spec: &ObjectSpec<'_>,
        parts: &[Part],
        insns: &mut [Insn],
    ) -> Result<Vec<(InsnIdx, String)>> {
        let Some(btf) = &spec.btf else { return Ok(Vec::new()) };
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut poisoned = Vec::new();
        // Shared by all of them, so that time does not grow with relocations times their access strings.
        let mut fuel = Fuel::OBJECT.clone();
        let mut describe = |relo: &CoreRelo| core_relo::describe_within(btf, relo, &mut fuel);
        for part in parts {
            let function = spec.function(part.function).ok_or(Error::Internal("function index"))?;
            let Some(answers) = self.answers.get(&function.section) else { continue };
            let first = answers.partition_point(|(at, _, _)| at.0 < function.insns.start);
            let in_function = answers.iter().skip(first).take_while(|(at, _, _)| at.0 < function.insns.end);
            for (at, relo, resolution) in in_function {
                let at = InsnIdx(part.start.0 + (at.0 - function.insns.start));
                let mut place = |error| {
                    Box::new(Error::CoreRelocation {
                        what: describe(relo),
                        function: function.name.into(),
                        error,
                    })
                };
                let resolution = resolution.as_ref().map_err(|e| place(e.clone()))?;
                match core_relo::patch(insns, at, resolution).map_err(&mut place)? {
                    Patched::Value(_) => {}
                    Patched::Poisoned(Poison::Missing) => poisoned.push((at, describe(relo))),
                    Patched::Poisoned(Poison::Width { local, target }) => {
                        let what = describe(relo);
                        poisoned.push((at, format!("{what} of {local} bytes (it has {target})")));
                    }
                }
            }
        }
        Ok(poisoned)
    }
}
