use super::*;
use crate::btf::encode::Builder;

/// Records of one ELF section: offset of its name, and the words of each record.
type Listed<'a> = (u32, &'a [&'a [u32]]);

/// A table: size of a record in bytes, then the sections.
fn table(record_size: u32, sections: &[Listed<'_>]) -> Vec<u32> {
    let mut words = vec![record_size];
    for (name, records) in sections {
        words.extend([*name, records.len() as u32]);
        words.extend(records.iter().copied().flatten());
    }
    words
}

/// A file of these tables, two or three, with `extra` more bytes of header.
fn file(endian: Endian, tables: &[Vec<u32>], extra: u32) -> Vec<u8> {
    let header = 8 + tables.len() as u32 * 8 + extra;
    let mut words = vec![header];
    let mut offset = 0;
    for table in tables {
        let len = table.len() as u32 * 4;
        words.extend([offset, len]);
        offset += len;
    }
    words.extend(core::iter::repeat_n(0, extra as usize / 4));
    words.extend(tables.iter().flatten());
    let mut out = endian.put_u16(0xeb9f).to_vec();
    out.extend([1, 0]);
    out.extend(words.iter().flat_map(|&word| endian.put_u32(word)));
    out
}

#[test]
fn reads_all_tables_of_either_byte_order() {
    for (endian, extra) in [(Endian::Little, 0), (Endian::Big, 8)] {
        let mut strings = Builder::new(endian);
        let (text, xdp) = (strings.string(".text"), strings.string("xdp"));
        let btf = Btf::parse(strings.build()).unwrap();
        let data = file(
            endian,
            &[
                table(8, &[(text, &[&[0, 5]]), (xdp, &[&[0, 6], &[16, 7]])]),
                table(16, &[(xdp, &[&[8, 1, 2, 3]])]),
                table(16, &[(xdp, &[&[24, 9, 4, 12]])]),
            ],
            extra,
        );
        let ext = BtfExt::parse(&data).unwrap();
        let functions: Vec<_> =
            ext.func_info().map(|s| (s.name(&btf).unwrap(), s.records.collect::<Vec<_>>())).collect();
        let at = |insn_offset, id| FuncInfo { insn_offset, type_id: BtfId(id) };
        assert_eq!(functions, [(".text", vec![at(0, 5)]), ("xdp", vec![at(0, 6), at(16, 7)])]);
        let lines: Vec<_> = ext.line_info().flat_map(|s| s.records).collect();
        assert_eq!(lines, [LineInfo { insn_offset: 8, file_name: 1, line: 2, line_col: 3 }]);
        let relos: Vec<_> = ext.core_relos().flat_map(|s| s.records).collect();
        assert_eq!(relos, [CoreRelo { insn_offset: 24, type_id: BtfId(9), access: 4, kind: 12 }]);
    }
}

#[test]
fn longer_records_and_a_header_without_relocations_are_accepted() {
    let long = table(12, &[(0, &[&[0, 5, 99], &[8, 6, 98]])]);
    let data = file(Endian::Little, &[long, vec![]], 0);
    let ext = BtfExt::parse(&data).unwrap();
    let section = ext.func_info().next().unwrap();
    assert_eq!((section.records.record_size(), section.records.as_bytes().data.len()), (12, 24));
    let ids: Vec<_> = section.records.map(|record| record.type_id.0).collect();
    assert_eq!((ids, ext.line_info().count(), ext.core_relos().count()), (vec![5, 6], 0, 0));
}

#[test]
fn broken_tables_are_refused() {
    let refused = |functions: Vec<u32>| {
        let data = file(Endian::Little, &[functions, vec![]], 0);
        matches!(BtfExt::parse(&data).map_err(|e| *e), Err(Error::BtfSection { section: "func_info", .. }))
    };
    assert!(refused(table(4, &[])), "record shorter than known");
    assert!(refused(table(9, &[])), "record of no whole words");
    assert!(refused(vec![8, 1]), "half a section");
    assert!(refused(vec![8, 1, 2, 0, 0]), "fewer records than stated");
    assert!(refused(vec![0xffff_fffc, 1, 0xffff_ffff]), "more than memory");

    let good = file(Endian::Big, &[table(8, &[(0, &[&[0, 5]])]), vec![], vec![]], 0);
    assert!(BtfExt::parse(&good).is_ok());
    for len in 0..good.len() {
        assert!(BtfExt::parse(&good[..len]).is_err(), "{len}");
    }
}
