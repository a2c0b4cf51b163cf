//! Offsets of a BPF object's records as differences from the record before, which compress to less: a tenth of all programs.
//! `build.rs` takes them, and unpacking adds them up again. Pure.

/// Lengths of the records of `SHT_REL` sections, which begin with an offset.
const RELOCATION: usize = 16;
const SHT_REL: u32 = 9;
/// What `.BTF.ext` begins with: magic, version, flags, and the length of a header that says where CO-RE relocations are.
const EXT_START: [u8; 8] = [0x9f, 0xeb, 1, 0, 32, 0, 0, 0];
/// Where that header says where functions and CO-RE relocations are.
const EXT_TABLES: [usize; 2] = [8, 24];

/// Which way.
#[derive(Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "build.rs goes one way, and the agent the other")]
pub enum Change {
    ToDifferences,
    ToOffsets,
}

/// Changes a little-endian ELF64 file in place. `None`: it is cut, or another kind of file.
pub fn change(object: &mut [u8], way: Change) -> Option<()> {
    let headers = u64_at(object, 40)?;
    let count = usize::from(u16::from_le_bytes(*object.get(60..)?.first_chunk()?));
    for index in 0..count {
        let header = object.get(headers..)?.get(index * 64..)?;
        let (kind, start, length) = (u32_at(header, 4)?, u64_at(header, 24)?, u64_at(header, 32)?);
        // Those of data that are all zeros have no bytes.
        let Some(section) = object.get_mut(start..).and_then(|rest| rest.get_mut(..length)) else { continue };
        if kind == SHT_REL {
            change_records(section, RELOCATION, way);
        } else if section.starts_with(&EXT_START) {
            for table in EXT_TABLES {
                let start = (EXT_START[4] as usize).checked_add(u32_at(section, table)? as usize)?;
                let length = u32_at(section, table + 4)? as usize;
                change_table(section.get_mut(start..)?.get_mut(..length)?, way)?;
            }
        }
    }
    Some(())
}

/// The length of records, then of each section of the program its name, the number of its records, and them.
fn change_table(table: &mut [u8], way: Change) -> Option<()> {
    let Some(size) = u32_at(table, 0) else { return Some(()) };
    let mut rest = &mut table[4..];
    while !rest.is_empty() {
        let records = (u32_at(rest, 4)? as usize).checked_mul(size as usize)?;
        let (section, others) = rest.get_mut(8..)?.split_at_mut_checked(records)?;
        change_records(section, size as usize, way);
        rest = others;
    }
    Some(())
}

/// Each begins with an offset, of which 32 bits count.
fn change_records(records: &mut [u8], size: usize, way: Change) {
    let mut before = 0u32;
    for record in records.chunks_exact_mut(size.max(4)) {
        let Some(word) = record.first_chunk_mut() else { return };
        let old = u32::from_le_bytes(*word);
        let new = if way == Change::ToOffsets { old.wrapping_add(before) } else { old.wrapping_sub(before) };
        before = if way == Change::ToOffsets { new } else { old };
        *word = new.to_le_bytes();
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_comes_back() {
        for original in [bpf_programs::TCP, bpf_programs::PROFILE] {
            let mut object = original.to_vec();
            change(&mut object, Change::ToDifferences).unwrap();
            let changed =
                object.iter().zip(original).filter(|(changed, original)| changed != original).count();
            assert!(changed > original.len() / 200, "{changed}");
            change(&mut object, Change::ToOffsets).unwrap();
            assert!(object == original);
        }
    }

    #[test]
    fn offsets_become_differences() {
        let mut records = [8u8, 0, 0, 0, 7, 7, 16, 1, 0, 0, 7, 7, 0, 0, 0, 0, 7, 7];
        change_records(&mut records, 6, Change::ToDifferences);
        assert_eq!(records, [8, 0, 0, 0, 7, 7, 8, 1, 0, 0, 7, 7, 0xf0, 0xfe, 0xff, 0xff, 7, 7]);
    }

    #[test]
    fn whatever_is_cut_or_changed_is_no_panic() {
        let object = bpf_programs::PROFILE;
        assert_eq!(change(&mut [], Change::ToOffsets), None);
        let header = 40..48;
        let sections = u64_at(object, 40).unwrap()..object.len();
        for at in header.chain(sections).chain((0..object.len()).step_by(61)) {
            let mut bytes = object.to_vec();
            bytes[at] ^= 0xff;
            change(&mut bytes, Change::ToOffsets);
            bytes.truncate(at);
            change(&mut bytes, Change::ToOffsets);
        }
    }
}
