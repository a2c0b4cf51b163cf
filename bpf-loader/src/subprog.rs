//! Linking: a program's own function, followed by each function that it can reach, as one run of instructions.
//!
//! Calls and function addresses become relative to that run. What refers to a map or an extern stays symbolic, as
//! an [`Operand`] beside the instruction.

use bpf_sys::uapi::insn::{self, Insn};

use crate::elf::{R_BPF_64_32, R_BPF_64_64, Relocation, SymbolIdx, SymbolSection};
use crate::error::{Error, Result};
use crate::insn::{InsnIdx, Operand};
use crate::object::{CodeSection, Function, FunctionIdx, ObjectSpec};
use crate::sorted::SortedMap;

/// The verifier takes no more (`BPF_COMPLEXITY_LIMIT_INSNS`).
pub(crate) const MAX_INSNS: usize = 1_000_000;

/// How many instructions the programs of a plan may have together. Each program has copies of its own of what it calls, so
/// that without a bound a small file could become gigabytes.
pub(crate) const MAX_PLAN_INSNS: usize = 4_000_000;

/// The instructions that a plan may still link. What is linked in vain counts too: it takes time if not memory.
pub(crate) struct Budget(usize);

impl Budget {
    /// All of it.
    pub fn new() -> Self {
        Self(MAX_PLAN_INSNS)
    }

    fn spend(&mut self, insns: usize) -> Result<()> {
        const TOO_MANY: Error =
            Error::TooComplex { what: "instructions of programs together", limit: MAX_PLAN_INSNS as u64 };
        self.0 = self.0.checked_sub(insns).ok_or(TOO_MANY)?;
        Ok(())
    }
}

/// A linked program.
pub(crate) struct Linked {
    pub insns: Vec<Insn>,
    /// Sorted by instruction.
    pub operands: Vec<(InsnIdx, Operand)>,
    /// Where each function went; the first is the program's own. Sorted by start.
    pub parts: Vec<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub function: FunctionIdx,
    pub start: InsnIdx,
}

/// A call or address of another function, waiting for the callee's place.
struct Reference {
    at: InsnIdx,
    callee: FunctionIdx,
}

/// Links the function and all that it reaches, at last the function in `also`, which nothing need call.
pub(crate) fn link(
    spec: &ObjectSpec<'_>,
    entry: FunctionIdx,
    also: Option<FunctionIdx>,
    budget: &mut Budget,
) -> Result<Linked> {
    let mut linker = Linker {
        spec,
        budget,
        out: Linked { insns: Vec::new(), operands: Vec::new(), parts: Vec::new() },
        references: Vec::new(),
        order: vec![entry],
        placed: SortedMap::from([(entry, InsnIdx(0))]),
    };
    linker.append_all(0)?;
    if let Some(also) = also {
        let placed = linker.order.len();
        linker.require(also);
        linker.append_all(placed)?;
    }
    linker.resolve_references()?;
    Ok(linker.out)
}

struct Linker<'s, 'a> {
    spec: &'s ObjectSpec<'a>,
    budget: &'s mut Budget,
    out: Linked,
    references: Vec<Reference>,
    /// Functions in the order in which they are placed; each once.
    order: Vec<FunctionIdx>,
    /// Those in `order`, and where they are once they are placed.
    placed: SortedMap<FunctionIdx, InsnIdx>,
}

impl<'a> Linker<'_, 'a> {
    /// Appends the functions in the order from this one on, and those that they add to it.
    fn append_all(&mut self, mut next: usize) -> Result<()> {
        while let Some(&function) = self.order.get(next) {
            self.append(function)?;
            next += 1;
        }
        Ok(())
    }

    fn append(&mut self, idx: FunctionIdx) -> Result<()> {
        let spec = self.spec;
        let function = spec.function(idx).ok_or(Error::Internal("function index"))?;
        let code = spec.code_section(function.section).ok_or(Error::Internal("code section"))?;
        if let Some(error) = &code.broken_relocations {
            return Err(error.clone());
        }
        let start = self.out.insns.len();
        if start + function.insns.len() > MAX_INSNS {
            return Err(Box::new(Error::TooComplex {
                what: "instructions of a program",
                limit: MAX_INSNS as u64,
            }));
        }
        self.budget.spend(function.insns.len())?;
        let start_idx = InsnIdx(start as u32);
        self.out.parts.push(Part { function: idx, start: start_idx });
        self.placed.insert(idx, start_idx);
        self.out.insns.extend(code.decode(function.insns.clone(), spec.endian()));

        let mut relocations = code.relocations_in(function.insns.clone()).iter().peekable();
        let mut second_half = false;
        for i in start..self.out.insns.len() {
            let in_section = function.insns.start + (i - start) as u32;
            let place = Place { code, function, in_section };
            let offset = u64::from(in_section) * Insn::SIZE as u64;
            let relocation = match relocations.peek() {
                Some(r) if r.offset == offset => relocations.next(),
                Some(r) if r.offset < offset + Insn::SIZE as u64 => {
                    return Err(place.bad(r, "it is inside an instruction"));
                }
                _ => None,
            };
            if let Some(again) = relocations.peek().filter(|r| r.offset == offset) {
                return Err(place.bad(again, "the instruction has two relocations"));
            }
            let insn = self.out.insns[i];
            let at = InsnIdx(i as u32);
            if second_half {
                // The upper half of a 64-bit load carries no opcode and must not be taken for one.
                second_half = false;
                if let Some(r) = relocation {
                    return Err(place.bad(r, "it is in the second half of a 64-bit load"));
                }
            } else if insn.is_ld_imm64() {
                if i + 1 == self.out.insns.len() {
                    return Err(Box::new(Error::TruncatedLoad {
                        function: function.name.into(),
                        insn: InsnIdx(in_section),
                    }));
                }
                second_half = true;
                if let Some(r) = relocation {
                    self.load(place, at, insn, r)?;
                }
            } else if insn.is_call() {
                self.call(place, at, insn, relocation)?;
            } else if let Some(r) = relocation {
                return Err(place.bad(r, "the instruction is neither a 64-bit load nor a call"));
            }
        }
        Ok(())
    }

    /// A 64-bit load with a relocation: a map, data, a function's address or an extern.
    fn load(&mut self, place: Place<'_, 'a>, at: InsnIdx, insn: Insn, r: &Relocation) -> Result<()> {
        if r.kind != R_BPF_64_64 {
            return Err(place.bad(r, "a 64-bit load takes R_BPF_64_64"));
        }
        let symbol = self.spec.elf.symbol(r.symbol)?;
        let section = match symbol.section {
            SymbolSection::Section(section) => section,
            SymbolSection::Undefined => {
                self.out.operands.push((at, Operand::Extern { symbol: r.symbol, call: false }));
                return Ok(());
            }
            SymbolSection::Other => return Err(place.bad(r, "its symbol is in no section")),
        };
        // Where the symbol is a section, the assembler leaves the offset in the immediate.
        let offset = symbol.value.checked_add_signed(insn.imm.into());
        let offset = offset.ok_or_else(|| place.bad(r, "its offset is out of range"))?;
        if self.spec.code_section(section).is_some() {
            if offset % Insn::SIZE as u64 != 0 {
                return Err(place.bad(r, "it points inside an instruction"));
            }
            let callee = self.callee(place, section, offset / Insn::SIZE as u64)?;
            self.refer(at, callee);
            let [low, high] = [insn.with_src(insn::PSEUDO_FUNC), Insn::default()];
            return self.set_load(at, low, high);
        }
        let broken = || self.spec.broken_map(symbol.name);
        let operand = self.spec.map_operand(section, offset);
        let operand = operand.map_err(|e| broken().unwrap_or_else(|| place.wrap(r, e)))?;
        self.out.operands.push((at, operand));
        Ok(())
    }

    fn call(&mut self, place: Place<'_, 'a>, at: InsnIdx, insn: Insn, r: Option<&Relocation>) -> Result<()> {
        let base = match r {
            None if insn.src() != insn::PSEUDO_CALL => return Ok(()),
            // Within a section, the assembler has resolved the call itself.
            None => Some(u64::from(place.in_section)).map(|n| (place.function.section, n)),
            Some(r) if r.kind != R_BPF_64_32 => return Err(place.bad(r, "a call takes R_BPF_64_32")),
            Some(r) => {
                let symbol = self.spec.elf.symbol(r.symbol)?;
                match symbol.section {
                    SymbolSection::Section(section) => Some((section, symbol.value / Insn::SIZE as u64)),
                    SymbolSection::Undefined => {
                        self.out.operands.push((at, Operand::Extern { symbol: r.symbol, call: true }));
                        None
                    }
                    SymbolSection::Other => return Err(place.bad(r, "its symbol is in no section")),
                }
            }
        };
        let Some((section, base)) = base else { return Ok(()) };
        // The immediate counts from the next instruction; for a symbol, it is -1 and so adds nothing.
        let target = base.checked_add_signed(i64::from(insn.imm) + 1).unwrap_or(u64::MAX);
        let callee = self.callee(place, section, target)?;
        self.refer(at, callee);
        Ok(())
    }

    fn callee(
        &self,
        place: Place<'_, 'a>,
        section: crate::elf::SectionIdx,
        target: u64,
    ) -> Result<FunctionIdx> {
        let found = u32::try_from(target)
            .ok()
            .and_then(|t| self.spec.function_at(section, InsnIdx(t)).map(|f| (f, t)));
        match found {
            Some((f, t)) if self.spec.function(f).is_some_and(|g| g.insns.start == t) => Ok(f),
            _ => Err(Box::new(Error::NoSuchCallee {
                function: place.function.name.into(),
                insn: InsnIdx(place.in_section),
                target,
                section: self.spec.code_section(section).map_or(String::new(), |c| c.name.into()),
            })),
        }
    }

    fn refer(&mut self, at: InsnIdx, callee: FunctionIdx) {
        self.references.push(Reference { at, callee });
        self.require(callee);
    }

    fn require(&mut self, callee: FunctionIdx) {
        if !self.placed.contains_key(&callee) {
            // Replaced when its turn comes.
            self.placed.insert(callee, InsnIdx(0));
            self.order.push(callee);
        }
    }

    fn set_load(&mut self, at: InsnIdx, low: Insn, high: Insn) -> Result<()> {
        let i = at.0 as usize;
        let slots = self.out.insns.get_mut(i..i + 2).ok_or(Error::Internal("64-bit load"))?;
        slots.copy_from_slice(&[low, high]);
        Ok(())
    }

    fn resolve_references(&mut self) -> Result<()> {
        for reference in &self.references {
            let start = self.placed.get(&reference.callee).ok_or(Error::Internal("callee was not placed"))?;
            let insn = self.out.insns.get_mut(reference.at.0 as usize).ok_or(Error::Internal("reference"))?;
            // Relative to the next instruction; at most a million, so it fits.
            insn.imm = start.0 as i32 - reference.at.0 as i32 - 1;
            if insn.is_call() {
                *insn = insn.with_src(insn::PSEUDO_CALL);
            }
        }
        Ok(())
    }
}

/// Where the linker is, for errors.
#[derive(Clone, Copy)]
struct Place<'s, 'a> {
    code: &'s CodeSection<'a>,
    function: &'s Function<'a>,
    in_section: u32,
}

impl Place<'_, '_> {
    fn bad(&self, r: &Relocation, reason: &'static str) -> Box<Error> {
        Box::new(Error::Relocation {
            section: self.code.name.into(),
            function: self.function.name.into(),
            offset: r.offset,
            symbol: r.symbol,
            reason: reason.into(),
        })
    }

    fn wrap(&self, r: &Relocation, error: Box<Error>) -> Box<Error> {
        match *error {
            Error::NotAMap { .. } => {
                self.bad(r, "its symbol is in a section that holds neither maps nor data")
            }
            _ => error,
        }
    }
}

/// The name of an extern, for errors and look-ups.
pub(crate) fn extern_name<'a>(spec: &ObjectSpec<'a>, symbol: SymbolIdx) -> Result<&'a str> {
    Ok(spec.elf.symbol(symbol)?.name)
}
