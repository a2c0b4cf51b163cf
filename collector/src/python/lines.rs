//! Lines of instructions, by the table that a code object has. Pure; the tables are the watched process' own.

/// How a version writes its tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Pairs of steps in bytes and in lines (`co_lnotab`, before 3.10).
    Steps,
    /// Pairs of a range's bytes and its step in lines, 3.10 (PEP 626).
    Ranges,
    /// Entries of one to many bytes, 3.11 (PEP 657).
    Locations,
}

/// Code units have two bytes.
const UNIT: u64 = 2;

/// The line of an instruction of a code object that begins at `first`; `None` where the table has none.
pub fn line_of(format: Format, table: &[u8], first: i32, instruction: u32) -> Option<i32> {
    match format {
        Format::Steps => steps(table, first, u64::from(instruction) * UNIT),
        Format::Ranges => ranges(table, first, u64::from(instruction) * UNIT),
        Format::Locations => locations(table, first, instruction.into()),
    }
}

fn steps(table: &[u8], mut line: i32, wanted: u64) -> Option<i32> {
    let mut at = 0;
    for pair in table.chunks_exact(2) {
        let &[bytes, lines] = pair else { break };
        at += u64::from(bytes);
        if at > wanted {
            break;
        }
        line = line.wrapping_add(i32::from(lines as i8));
    }
    Some(line)
}

fn ranges(table: &[u8], mut line: i32, wanted: u64) -> Option<i32> {
    let mut end = 0;
    for pair in table.chunks_exact(2) {
        let &[bytes, lines] = pair else { break };
        let has_line = lines as i8 != i8::MIN;
        end += u64::from(bytes);
        if has_line {
            line = line.wrapping_add(i32::from(lines as i8));
        }
        if wanted < end {
            return has_line.then_some(line);
        }
    }
    None
}

/// First byte of an entry: a mark, four bits that tell its form, three its length in code units.
const ENTRY: u8 = 0x80;

fn locations(table: &[u8], mut line: i32, wanted: u64) -> Option<i32> {
    let mut rest = table;
    let mut end = 0;
    while let Some((&head, after)) = rest.split_first() {
        let length = after.iter().take_while(|&&byte| byte & ENTRY == 0).count();
        let (entry, next) = after.split_at_checked(length)?;
        rest = next;
        let form = head >> 3 & 15;
        let (step, has_line) = match form {
            0..=9 => (0, true),
            10..=12 => (i32::from(form) - 10, true),
            13 | 14 => (signed(entry), true),
            _ => (0, false),
        };
        line = line.wrapping_add(step);
        end += u64::from(head & 7) + 1;
        if wanted < end {
            return has_line.then_some(line);
        }
    }
    None
}

/// The number that an entry begins with: six bits a byte, the lowest first, of which another follows where bit 6 is set; its lowest bit is the sign.
fn signed(entry: &[u8]) -> i32 {
    let mut value = 0u32;
    for (n, &byte) in entry.iter().take(5).enumerate() {
        value |= u32::from(byte & 0x3f).wrapping_shl(n as u32 * 6);
        if byte & 0x40 == 0 {
            break;
        }
    }
    let size = (value >> 1) as i32;
    if value & 1 == 0 { size } else { -size }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(format: Format, table: &[u8], first: i32, instructions: u32) -> Vec<Option<i32>> {
        (0..instructions).map(|at| line_of(format, table, first, at)).collect()
    }

    #[test]
    fn steps_before_3_10() {
        // 4 bytes of line 10, 2 of line 12, then line 11.
        let table = [0, 1, 4, 2, 2, 0xff];
        assert_eq!(lines(Format::Steps, &table, 9, 5), [Some(10), Some(10), Some(12), Some(11), Some(11)]);
    }

    #[test]
    fn ranges_of_3_10() {
        let table = [4, 1, 2, 0x80, 2, 0xfe];
        assert_eq!(lines(Format::Ranges, &table, 9, 5), [Some(10), Some(10), None, Some(8), None]);
    }

    #[test]
    fn locations_of_3_11() {
        let entries: [&[u8]; 5] = [
            // Two units, one line on; one more there; one without a line.
            &[0x80 | 11 << 3 | 1, 0, 5],
            &[0x80 | 3 << 3, 0x12],
            &[0x80 | 15 << 3],
            // 40 lines back, one on for three units.
            &[0x80 | 13 << 3, 0x40 | 17, 1],
            &[0x80 | 14 << 3 | 2, 2, 0, 1, 1],
        ];
        assert_eq!(
            lines(Format::Locations, &entries.concat(), 100, 9),
            [101, 101, 101, 0, 61, 62, 62, 62, 0].map(|line| (line != 0).then_some(line))
        );
    }

    #[test]
    fn any_bytes_are_a_table() {
        let mut seed = 1u64;
        for length in 0..200 {
            let bytes: Vec<u8> = (0..length)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (seed >> 56) as u8
                })
                .collect();
            for format in [Format::Steps, Format::Ranges, Format::Locations] {
                for at in [0, 1, 100, u32::MAX] {
                    line_of(format, &bytes, i32::MAX, at);
                }
            }
        }
    }
}
