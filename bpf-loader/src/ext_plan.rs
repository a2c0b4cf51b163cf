//! `.BTF.ext` through linking: what it says of each function, at the function's new place.

use std::collections::HashMap;

use crate::btf::ext::{FuncInfo, LineInfo, Record, Records};
use crate::error::{Error, Result};
use crate::object::{Function, ObjectSpec};
use crate::subprog::Part;

/// Records for `BPF_PROG_LOAD`, in host byte order; empty where the object has none.
#[derive(Debug, Default)]
pub(crate) struct ExtInfo {
    /// `struct bpf_func_info`.
    pub func_info: Vec<u8>,
    /// `struct bpf_line_info`.
    pub line_info: Vec<u8>,
}

/// Bytes of an instruction, which `.BTF.ext` counts in.
const SLOT: u32 = 8;

/// Collects the records of all parts of a linked program.
pub(crate) fn relocate(spec: &ObjectSpec<'_>, parts: &[Part]) -> Result<ExtInfo> {
    let (Some(btf), Some(ext)) = (&spec.btf, &spec.ext) else { return Ok(ExtInfo::default()) };
    let mut func_sections = HashMap::new();
    for section in ext.func_info() {
        func_sections.entry(section.name(btf)?).or_insert(section.records);
    }
    let mut line_sections = HashMap::new();
    for section in ext.line_info() {
        line_sections.entry(section.name(btf)?).or_insert(section.records);
    }
    let mut info = ExtInfo::default();
    for (i, part) in parts.iter().enumerate() {
        let function = spec.function(part.function).ok_or(Error::Internal("function index"))?;
        let section = spec.code_section(function.section).ok_or(Error::Internal("code section"))?;
        let own =
            func_sections.get(section.name).and_then(|r| in_function(r, function).find(|(at, _)| *at == 0));
        let Some((_, FuncInfo { type_id, .. })) = own else {
            // Without the entry's own record the kernel takes none; with it, it wants all.
            if i == 0 {
                return Ok(ExtInfo::default());
            }
            return Err(Error::MissingFuncInfo { function: function.name.into() });
        };
        info.func_info.extend(part.start.0.to_ne_bytes());
        info.func_info.extend(type_id.0.to_ne_bytes());
        for (at, line) in line_sections.get(section.name).into_iter().flat_map(|r| in_function(r, function)) {
            for word in [part.start.0 + at, line.file_name, line.line, line.line_col] {
                info.line_info.extend(word.to_ne_bytes());
            }
        }
    }
    Ok(info)
}

/// A record that stands for a place in its section.
trait Placed {
    fn byte_offset(&self) -> u32;
}

impl Placed for FuncInfo {
    fn byte_offset(&self) -> u32 {
        self.insn_offset
    }
}

impl Placed for LineInfo {
    fn byte_offset(&self) -> u32 {
        self.insn_offset
    }
}

/// The records within a function, with the instruction that they stand for, counted from the function's first.
fn in_function<'r, R: Record + Placed + Clone>(
    records: &Records<'r, R>,
    function: &Function<'_>,
) -> impl Iterator<Item = (u32, R)> + use<'r, R> {
    let range = function.insns.clone();
    records.clone().filter_map(move |record| {
        let insn = record.byte_offset() / SLOT;
        range.contains(&insn).then(|| (insn - range.start, record))
    })
}
