//! `.BTF.ext` through linking: what it says of each function, at the function's new place.

use crate::btf::Btf;
use crate::btf::ext::{FuncInfo, LineInfo, Record, Sections};
use crate::error::{Error, Result};
use crate::object::{Function, ObjectSpec};
use crate::sorted::SortedMap;
use crate::stable_sort::sort_by_number;
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

/// The records of an object by section and place, for all programs of a plan.
#[derive(Default)]
pub(crate) struct ExtIndex<'s> {
    functions: SortedMap<&'s str, Vec<FuncInfo>>,
    lines: SortedMap<&'s str, Vec<LineInfo>>,
}

impl<'s> ExtIndex<'s> {
    pub fn new(spec: &'s ObjectSpec<'_>) -> Result<Self> {
        let (Some(btf), Some(ext)) = (&spec.btf, &spec.ext) else { return Ok(Self::default()) };
        Ok(Self { functions: by_section(ext.func_info(), btf)?, lines: by_section(ext.line_info(), btf)? })
    }

    /// Collects the records of all parts of a linked program.
    pub fn relocate(&self, spec: &ObjectSpec<'_>, parts: &[Part]) -> Result<ExtInfo> {
        let mut info = ExtInfo::default();
        for (i, part) in parts.iter().enumerate() {
            let function = spec.function(part.function).ok_or(Error::Internal("function index"))?;
            let section = spec.code_section(function.section).ok_or(Error::Internal("code section"))?;
            let own = in_function(&self.functions, section.name, function).first();
            let own = own.filter(|own| own.byte_offset() / SLOT == function.insns.start);
            let Some(FuncInfo { type_id, .. }) = own else {
                // Without the entry's own record the kernel takes none; with it, it wants all.
                if i == 0 {
                    return Ok(ExtInfo::default());
                }
                return Err(Box::new(Error::MissingFuncInfo { function: function.name.into() }));
            };
            info.func_info.extend(part.start.0.to_ne_bytes());
            info.func_info.extend(type_id.0.to_ne_bytes());
            for line in in_function(&self.lines, section.name, function) {
                let at = part.start.0 + (line.byte_offset() / SLOT - function.insns.start);
                for word in [at, line.file_name, line.line, line.line_col] {
                    info.line_info.extend(word.to_ne_bytes());
                }
            }
        }
        Ok(info)
    }
}

/// The records of each section, sorted; the first of several sections of a name. The kernel takes one record a place and
/// no more; the file's others would be copied into every program.
fn by_section<'s, R: Record + Placed>(
    sections: Sections<'_, R>,
    btf: &'s Btf<'_>,
) -> Result<SortedMap<&'s str, Vec<R>>> {
    let mut found = SortedMap::new();
    for section in sections {
        found.entry(section.name(btf)?).or_insert_with(|| {
            let mut records: Vec<R> = section.records.collect();
            // Stable, and compilers write them in order.
            sort_by_number(&mut records, |record| record.byte_offset().into());
            records.dedup_by_key(|record| record.byte_offset() / SLOT);
            records
        });
    }
    Ok(found)
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

/// The records within a function.
fn in_function<'r, R: Placed>(
    sections: &'r SortedMap<&str, Vec<R>>,
    section: &str,
    function: &Function<'_>,
) -> &'r [R] {
    let Some(records) = sections.get(section) else { return &[] };
    let before = |insn: u32| records.partition_point(|r| r.byte_offset() / SLOT < insn);
    records.get(before(function.insns.start)..before(function.insns.end)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btf::encode::Builder;
    use crate::btf::ext::BtfExt;
    use crate::bytes::Endian;
    use crate::elf::SectionIdx;

    #[test]
    fn records_are_found_by_place_and_only_one_a_place() {
        let mut strings = Builder::new(Endian::Little);
        let text = strings.string(".text");
        let btf = Btf::parse(strings.build()).unwrap();
        let lines = [(32, 4), (8, 1), (16, 2), (16, 99), (24, 3)].map(|(at, line)| [at, 0, 0, line]);
        let table = [&[16, text, lines.len() as u32][..], lines.as_flattened()].concat();
        let header = [24, 0, 0, 0, 4 * table.len() as u32];
        let mut data = vec![0x9f, 0xeb, 1, 0];
        data.extend(header.iter().chain(&table).flat_map(|word| word.to_le_bytes()));
        let ext = BtfExt::parse(&data).unwrap();

        let sections = by_section(ext.line_info(), &btf).unwrap();
        let function = Function { name: "f", section: SectionIdx(1), insns: 2..4, global: true };
        let lines = |section| in_function(&sections, section, &function).iter().map(|r| r.line_col);
        assert_eq!(lines(".text").collect::<Vec<_>>(), [2, 3]);
        assert_eq!(lines("socket").count(), 0);
    }
}
