//! What the programs of an object are made of and refer to, without a kernel.

use crate::btf::ext::CoreRelo;
use crate::core_relo::{self, RelocKind};
use crate::error::Result;
use crate::fuel::Fuel;
use crate::insn::{InsnIdx, Operand};
use crate::object::{MapIdx, ObjectSpec, ProgramSpec};
use crate::sorted::SortedMap;
use crate::subprog::{self, Budget};

/// What one program consists of, its subprograms included.
#[derive(Debug)]
pub struct Contents<'a> {
    /// Instruction slots of the program and its subprograms together.
    pub instructions: u32,
    /// Functions that it calls or takes the address of, in the order in which they are linked behind it.
    pub subprograms: Vec<&'a str>,
    /// Maps that it uses, each once, by index.
    pub maps: Vec<MapIdx>,
    /// Names that are not in the object: kernel symbols and functions, configuration. Each once, by name.
    pub externs: Vec<&'a str>,
    /// What depends on the kernel's types, by place.
    pub relocations: Vec<Relocation>,
}

/// A CO-RE relocation.
#[derive(Debug)]
pub struct Relocation {
    /// The instruction, in the program as it is linked.
    pub at: InsnIdx,
    /// What is asked; `None` if this library does not know.
    pub kind: Option<RelocKind>,
    /// Of which type, member or enumerator.
    pub what: String,
}

/// Looks into the programs of an object.
pub struct Inspector<'s, 'a> {
    spec: &'s ObjectSpec<'a>,
    /// CO-RE relocations by the section's name, sorted by instruction.
    relocations: SortedMap<&'s str, Vec<CoreRelo>>,
    budget: Budget,
    fuel: Fuel,
}

impl<'s, 'a> Inspector<'s, 'a> {
    /// Sorts what `.BTF.ext` says.
    ///
    /// # Errors
    ///
    /// The name of a section in `.BTF.ext` is broken.
    pub fn new(spec: &'s ObjectSpec<'a>) -> Result<Self> {
        let mut relocations: SortedMap<&str, Vec<CoreRelo>> = SortedMap::new();
        if let Some(btf) = &spec.btf {
            for section in spec.ext.iter().flat_map(|ext| ext.core_relos()) {
                relocations.entry(section.name(btf)?).or_default().extend(section.records);
            }
        }
        for of_section in relocations.values_mut() {
            of_section.sort_by_key(|r| r.insn_offset);
        }
        Ok(Self { spec, relocations, budget: Budget::new(), fuel: Fuel::OBJECT.clone() })
    }

    /// Links a program, as planning does, and lists what it refers to.
    ///
    /// # Errors
    ///
    /// The program cannot be linked: a call leads nowhere, a relocation is broken, or it and those before it are too long.
    pub fn program(&mut self, program: &ProgramSpec<'a>) -> Result<Contents<'a>> {
        let linked = self.spec.link(program, true, &mut self.budget)?;
        let mut maps: Vec<MapIdx> = Vec::new();
        let mut externs: Vec<&'a str> = Vec::new();
        for (_, operand) in &linked.operands {
            match operand {
                Operand::Map(map) | Operand::MapValue { map, .. } => maps.push(*map),
                // Nothing is resolved yet.
                Operand::ModuleBtf(_) => {}
                Operand::Extern { symbol, .. } => externs.push(subprog::extern_name(self.spec, *symbol)?),
            }
        }
        maps.sort_unstable();
        maps.dedup();
        externs.sort_unstable();
        externs.dedup();
        let mut relocations = Vec::new();
        for part in &linked.parts {
            let Some(function) = self.spec.function(part.function) else { continue };
            let section = self.spec.code_section(function.section).map_or("", |c| c.name);
            let (Some(btf), Some(all)) = (&self.spec.btf, self.relocations.get(section)) else { continue };
            let first = all.partition_point(|r| r.insn_offset / 8 < function.insns.start);
            let inside = all.iter().skip(first).take_while(|r| r.insn_offset / 8 < function.insns.end);
            relocations.extend(inside.map(|relo| Relocation {
                at: InsnIdx(part.start.0 + (relo.insn_offset / 8 - function.insns.start)),
                kind: relo.kind().ok(),
                what: core_relo::describe_within(btf, relo, &mut self.fuel),
            }));
        }
        let callees = linked.parts.iter().skip(1).filter_map(|p| self.spec.function(p.function));
        Ok(Contents {
            instructions: linked.insns.len() as u32,
            subprograms: callees.map(|f| f.name).collect(),
            maps,
            externs,
            relocations,
        })
    }
}
