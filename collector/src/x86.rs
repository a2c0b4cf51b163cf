//! x86-64 instructions, as far as choosing a probe's site and following a stack need them: how long they are, where they jump, and
//! whether they leave alone what a program reads.
//!
//! A whole decoder is a hundred kilobytes of tables for operands and mnemonics that nobody asks for here. Lengths follow from
//! a few rules; what they do not cover is unknown, and then the site is the function's entry.

/// The longest that the processor takes.
const MAX_LENGTH: usize = 15;

/// What an instruction does, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The kernel emulates it, so a probe on it costs one exception and not two.
    Emulated,
    /// It changes neither the flow, nor the stack pointer, nor the registers of the first four arguments.
    Harmless,
    /// Anything else.
    Other,
}

/// An instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Bytes.
    pub length: usize,
    /// What it does.
    pub effect: Effect,
    /// Of a jump or call to a fixed place: bytes from its own end to there.
    pub jump: Option<i32>,
}

/// Opcode maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Map {
    One,
    /// `0f`
    Two,
    /// `0f 38`
    Three38,
    /// `0f 3a`
    Three3a,
}

/// What stands before the opcode.
#[derive(Debug, Clone, Copy, Default)]
struct Prefixes {
    operand_size: bool,
    address_size: bool,
    repeat: bool,
    other: bool,
    rex: u8,
    vector: bool,
}

/// Decodes the instruction that `code` begins with; `None` for what is cut off, invalid or unknown.
pub fn decode(code: &[u8]) -> Option<Instruction> {
    let code = code.get(..MAX_LENGTH).unwrap_or(code);
    let mut at = 0;
    let mut prefixes = Prefixes::default();
    loop {
        match *code.get(at)? {
            0x66 => prefixes.operand_size = true,
            0x67 => prefixes.address_size = true,
            0xf2 | 0xf3 => prefixes.repeat = true,
            0xf0 | 0x2e | 0x36 | 0x3e | 0x26 | 0x64 | 0x65 => prefixes.other = true,
            _ => break,
        }
        at += 1;
    }
    if let rex @ 0x40..=0x4f = *code.get(at)? {
        prefixes.rex = rex;
        at += 1;
    }
    let map = match (*code.get(at)?, prefixes.rex) {
        (0xc5, 0) => {
            at += 2;
            prefixes.vector = true;
            Map::Two
        }
        (lead @ (0xc4 | 0x62), 0) => {
            // Three bits of the second byte; of EVEX, two more tell newer maps.
            let map = code.get(at + 1)? & if lead == 0xc4 { 0x1f } else { 0x07 };
            at += if lead == 0xc4 { 3 } else { 4 };
            prefixes.vector = true;
            match map {
                1 => Map::Two,
                2 => Map::Three38,
                3 => Map::Three3a,
                _ => return None,
            }
        }
        (0x0f, _) => {
            at += 1;
            match *code.get(at)? {
                0x38 => {
                    at += 1;
                    Map::Three38
                }
                0x3a => {
                    at += 1;
                    Map::Three3a
                }
                _ => Map::Two,
            }
        }
        _ => Map::One,
    };
    let opcode = *code.get(at)?;
    at += 1;
    let modrm = if has_modrm(map, opcode, prefixes) { Some(*code.get(at)?) } else { None };
    let operands = match modrm {
        Some(modrm) => 1 + memory_bytes(modrm, code.get(at + 1).copied())?,
        None => 0,
    };
    let immediate = immediate_bytes(map, opcode, modrm.unwrap_or(0), prefixes)?;
    let length = at + operands + immediate;
    let bytes = code.get(..length)?;
    let jump = if is_relative(map, opcode) && !prefixes.vector {
        match bytes.get(at..)? {
            [short] => Some(i32::from(*short as i8)),
            long => Some(i32::from_le_bytes(long.try_into().ok()?)),
        }
    } else {
        None
    };
    let effect = effect(map, opcode, modrm, prefixes, length);
    Some(Instruction { length, effect, jump })
}

fn has_modrm(map: Map, opcode: u8, prefixes: Prefixes) -> bool {
    match map {
        Map::One => match opcode {
            0x00..=0x3f => opcode & 7 < 4,
            0x63 | 0x69 | 0x6b | 0x80..=0x8f | 0xc0 | 0xc1 | 0xc6 | 0xc7 | 0xd0..=0xd3 | 0xd8..=0xdf => true,
            _ => matches!(opcode, 0xf6 | 0xf7 | 0xfe | 0xff),
        },
        Map::Two if prefixes.vector => opcode != 0x77,
        Map::Two => {
            let none = matches!(opcode, 0x05..=0x0c | 0x0e | 0x30..=0x37 | 0x77 | 0x80..=0x8f | 0xa0..=0xa2 | 0xa8..=0xaa);
            !none && !matches!(opcode, 0xc8..=0xcf)
        }
        Map::Three38 | Map::Three3a => true,
    }
}

/// Bytes of SIB and displacement behind a ModRM byte; `next` is the byte after it.
fn memory_bytes(modrm: u8, next: Option<u8>) -> Option<usize> {
    let (mode, rm) = (modrm >> 6, modrm & 7);
    let sib = mode != 3 && rm == 4;
    let displacement = match mode {
        0 if rm == 5 => 4,
        0 if sib && next? & 7 == 5 => 4,
        1 => 1,
        2 => 4,
        _ => 0,
    };
    Some(usize::from(sib) + displacement)
}

fn immediate_bytes(map: Map, opcode: u8, modrm: u8, prefixes: Prefixes) -> Option<usize> {
    let wide = prefixes.rex & 8 != 0;
    // REX.W goes before 66.
    let word = if prefixes.operand_size && !wide { 2 } else { 4 };
    let bytes = match map {
        Map::One => match opcode {
            // Not of 64-bit mode.
            0x06 | 0x07 | 0x0e | 0x16 | 0x17 | 0x1e | 0x1f | 0x27 | 0x2f | 0x37 | 0x3f => return None,
            0x60..=0x62 | 0x82 | 0x9a | 0xc4 | 0xc5 | 0xce | 0xd4..=0xd6 | 0xea => return None,
            0x00..=0x3f if opcode & 7 == 4 => 1,
            0x00..=0x3f if opcode & 7 == 5 => word,
            0x68 | 0x69 | 0x81 | 0xa9 | 0xc7 => word,
            0x6a | 0x6b | 0x70..=0x7f | 0x80 | 0x83 | 0xa8 | 0xb0..=0xb7 | 0xc0 | 0xc1 | 0xc6 | 0xcd => 1,
            0xe0..=0xe7 | 0xeb => 1,
            0xb8..=0xbf if wide => 8,
            0xb8..=0xbf => word,
            0xa0..=0xa3 if prefixes.address_size => 4,
            0xa0..=0xa3 => 8,
            0xc2 | 0xca => 2,
            0xc8 => 3,
            // Processors of the two makers differ in what 66 means here.
            0xe8 | 0xe9 if prefixes.operand_size => return None,
            0xe8 | 0xe9 => 4,
            0xf6 if modrm >> 3 & 7 < 2 => 1,
            0xf7 if modrm >> 3 & 7 < 2 => word,
            // XOP, of processors long gone.
            0x8f if modrm >> 3 & 7 != 0 => return None,
            _ => 0,
        },
        Map::Two => match opcode {
            0x04 | 0x0a | 0x0c | 0x24..=0x27 | 0x36 | 0x39 | 0x3b..=0x3f if !prefixes.vector => return None,
            0x0f | 0x70..=0x73 | 0xa4 | 0xac | 0xba if !prefixes.vector => 1,
            0x70..=0x73 => 1,
            0x80..=0x8f if prefixes.vector => 0,
            0x80..=0x8f if prefixes.operand_size => return None,
            0x80..=0x8f => 4,
            0xc2 | 0xc4..=0xc6 => 1,
            _ => 0,
        },
        Map::Three38 => 0,
        Map::Three3a => 1,
    };
    Some(bytes)
}

/// Jumps and calls to a fixed place.
fn is_relative(map: Map, opcode: u8) -> bool {
    match map {
        Map::One => matches!(opcode, 0x70..=0x7f | 0xe0..=0xe3 | 0xe8 | 0xe9 | 0xeb),
        Map::Two => matches!(opcode, 0x80..=0x8f),
        _ => false,
    }
}

/// `rsp`, and the registers of the first four arguments: `rdi`, `rsi`, `rdx`, `rcx`.
fn is_needed(register: u8) -> bool {
    matches!(register, 1 | 2 | 4 | 6 | 7)
}

/// See `branch_setup_xol_ops` and `push_setup_xol_ops` in arch/x86/kernel/uprobes.c; the same since Linux 4.16. Of the nops of
/// several bytes, which newer kernels emulate too, only the two of them that every kernel does.
fn effect(map: Map, opcode: u8, modrm: Option<u8>, prefixes: Prefixes, length: usize) -> Effect {
    let Prefixes { operand_size, repeat, other, rex, vector, .. } = prefixes;
    if vector {
        return Effect::Other;
    }
    let bare = !operand_size && !repeat && !other && !prefixes.address_size;
    let register = |bits: u8, extension: u8| bits & 7 | u8::from(rex & extension != 0) << 3;
    // Whether what an instruction writes to is not needed: its register, or its register or memory.
    let to_register = || modrm.is_some_and(|m| !is_needed(register(m >> 3, 4)));
    let to_rm = || modrm.is_some_and(|m| m >> 6 != 3 || !is_needed(register(m, 1)));
    let harmless = |is: bool| if is { Effect::Harmless } else { Effect::Other };
    match (map, opcode) {
        (Map::One, 0x50..=0x57) if bare && length <= 2 && matches!(rex, 0 | 0x41) => Effect::Emulated,
        (Map::One, 0x90) if rex == 0 && !repeat && !other => Effect::Emulated,
        (Map::One, 0x70..=0x7f | 0xe8 | 0xe9 | 0xeb) if bare => Effect::Emulated,
        (Map::Two, 0x80..=0x8f) if bare => Effect::Emulated,
        // endbr64, and nops with a ModRM byte.
        (Map::Two, 0x1e) if repeat => harmless(modrm == Some(0xfa)),
        (Map::Two, 0x1f) => Effect::Harmless,
        _ if repeat => Effect::Other,
        // cmp, test
        (Map::One, 0x38..=0x3d | 0x84 | 0x85 | 0xa8 | 0xa9) => Effect::Harmless,
        (Map::One, 0x80 | 0x81 | 0x83) if modrm.is_some_and(|m| m >> 3 & 7 == 7) => Effect::Harmless,
        (Map::One, 0xf6 | 0xf7) if modrm.is_some_and(|m| m >> 3 & 7 < 2) => Effect::Harmless,
        // add, or, adc, sbb, and, sub, xor, in both directions; those of al and eax.
        (Map::One, 0x00..=0x37) => match opcode & 7 {
            0 | 1 => harmless(to_rm() && !byte_register(opcode, rex)),
            2 | 3 => harmless(to_register() && !byte_register(opcode, rex)),
            _ => Effect::Harmless,
        },
        // The same with a constant.
        (Map::One, 0x81 | 0x83) => harmless(to_rm()),
        // mov in both directions, lea, movsxd
        (Map::One, 0x89) => harmless(to_rm()),
        (Map::One, 0x8b | 0x8d | 0x63) => harmless(to_register()),
        (Map::One, 0xc7) if modrm.is_some_and(|m| m >> 3 & 7 == 0) => harmless(to_rm()),
        (Map::One, 0xb8..=0xbf) => harmless(!is_needed(register(opcode, 1))),
        // movzx, movsx
        (Map::Two, 0xb6 | 0xb7 | 0xbe | 0xbf) => harmless(to_register()),
        _ => Effect::Other,
    }
}

/// Without a REX prefix, the byte registers 4 to 7 are the second bytes of 0 to 3: not worth telling apart.
fn byte_register(opcode: u8, rex: u8) -> bool {
    opcode & 1 == 0 && rex == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use Effect::{Emulated, Harmless, Other};

    #[test]
    fn lengths_and_effects() {
        let cases: &[(&[u8], Effect)] = &[
            (&[0x55], Emulated),                                              // push rbp
            (&[0x41, 0x57], Emulated),                                        // push r15
            (&[0x48, 0x55], Other),    // push rbp, with a prefix for nothing
            (&[0x90], Emulated),       // nop
            (&[0x66, 0x90], Emulated), // nop of two bytes
            (&[0xf3, 0x90], Other),    // pause
            (&[0x74, 0x07], Emulated), // je
            (&[0x0f, 0x84, 0xbf, 0, 0, 0], Emulated), // je
            (&[0xe9, 0x32, 0xf6, 0xff, 0xff], Emulated), // jmp
            (&[0xe8, 0x73, 0xbc, 0xff, 0xff], Emulated), // call
            (&[0xff, 0x25, 0x5a, 0xcc, 0x1a, 0], Other), // jmp through memory
            (&[0xc3], Other),          // ret
            (&[0xf3, 0x0f, 0x1e, 0xfa], Harmless), // endbr64
            (&[0x48, 0x85, 0xff], Harmless), // test rdi, rdi
            (&[0x80, 0x3d, 0x71, 0x0e, 0x14, 0, 0], Harmless), // cmp byte [rip + ...], 0
            (&[0x48, 0x89, 0xfb], Harmless), // mov rbx, rdi
            (&[0x48, 0x89, 0xf7], Other), // mov rdi, rsi
            (&[0x49, 0x89, 0xd4], Harmless), // mov r12, rdx
            (&[0x48, 0x8b, 0x05, 0x34, 0x98, 0x13, 0], Harmless), // mov rax, [rip + ...]
            (&[0x48, 0x83, 0xec, 0x18], Other), // sub rsp, 0x18
            (&[0x48, 0xf7, 0xe2], Other), // mul rdx
            (&[0x31, 0xc0], Harmless), // xor eax, eax
            (&[0x31, 0xff], Other),    // xor edi, edi
            (&[0x64, 0x48, 0x8b, 0x04, 0x25, 0x28, 0, 0, 0], Harmless), // mov rax, fs:0x28
            (&[0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8], Harmless), // mov rax, constant
            (&[0xc5, 0xf8, 0x77], Other), // vzeroupper
            (&[0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0], Harmless), // nop of eleven bytes
            (&[0x62, 0xf1, 0x7c, 0x48, 0x11, 0x47, 0x01], Other), // vmovups [rdi + 0x40], zmm0
        ];
        for (bytes, effect) in cases {
            let decoded = decode(bytes).unwrap_or_else(|| panic!("{bytes:02x?}"));
            assert_eq!((decoded.length, decoded.effect), (bytes.len(), *effect), "{bytes:02x?}");
            for cut in 0..bytes.len() {
                assert_ne!(decode(&bytes[..cut]).map(|i| i.length), Some(bytes.len()), "{bytes:02x?}");
            }
        }
        assert_eq!(decode(&[0xeb, 0xfe]).unwrap().jump, Some(-2));
        assert_eq!(decode(&[0xe8, 0x73, 0xbc, 0xff, 0xff]).unwrap().jump, Some(-0x438d));
    }

    #[test]
    fn nothing_panics() {
        let mut state = 1u64;
        for _ in 0..200_000 {
            let mut bytes = [0; 16];
            for byte in &mut bytes {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (state >> 56) as u8;
            }
            if let Some(instruction) = decode(&bytes) {
                assert!((1..=MAX_LENGTH).contains(&instruction.length));
            }
        }
    }

    /// Instructions of the C library as objdump has them: bytes and text.
    fn disassembled() -> Vec<(Vec<u8>, String)> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let Some(libc) =
            maps.lines().find_map(|line| line.split_whitespace().nth(5).filter(|p| p.contains("/libc.so")))
        else {
            eprintln!("SKIP this test is linked without a C library of its own file");
            return Vec::new();
        };
        let Ok(output) =
            std::process::Command::new("objdump").args(["-d", "-w", "-j", ".text", libc]).output()
        else {
            eprintln!("SKIP objdump is not installed");
            return Vec::new();
        };
        let text = String::from_utf8_lossy(&output.stdout);
        let instructions = text.lines().filter_map(|line| {
            let mut columns = line.split('\t').skip(1);
            let bytes = columns
                .next()?
                .split_whitespace()
                .map(|byte| u8::from_str_radix(byte, 16).unwrap())
                .collect();
            Some((bytes, columns.next().unwrap_or_default().trim().to_owned()))
        });
        instructions.collect()
    }

    #[test]
    fn objdump_agrees_on_the_system_library() {
        let needed = |operand: &str| {
            let registers = ["rsp", "esp", "sp", "spl", "rdi", "edi", "di", "dil", "rsi", "esi", "si", "sil"];
            let more = ["rdx", "edx", "dx", "dl", "dh", "rcx", "ecx", "cx", "cl", "ch"];
            operand.strip_prefix('%').is_some_and(|name| registers.contains(&name) || more.contains(&name))
        };
        let all = disassembled();
        let (mut unknown, mut emulated, mut harmless) = (0, 0, 0);
        for (bytes, text) in &all {
            let Some(decoded) = decode(bytes) else {
                unknown += 1;
                continue;
            };
            assert_eq!(decoded.length, bytes.len(), "{bytes:02x?} {text}");
            let name = text.split_whitespace().next().unwrap_or_default();
            let last = text
                .split('#')
                .next()
                .unwrap_or_default()
                .trim()
                .rsplit([' ', ','])
                .next()
                .unwrap_or_default();
            match decoded.effect {
                Emulated => {
                    emulated += 1;
                    let known = ["push", "nop", "xchg", "call", "jmp", "bnd", "notrack"];
                    assert!(known.contains(&name) || name.starts_with('j'), "{bytes:02x?} {text}");
                }
                Harmless => {
                    harmless += 1;
                    let only_reads =
                        name.starts_with("cmp") || name.starts_with("test") || name.contains("nop");
                    assert!(only_reads || !needed(last), "{bytes:02x?} {text}");
                    let flow = ["ret", "call", "jmp", "push", "pop", "leave", "syscall"];
                    assert!(!flow.iter().any(|f| name.starts_with(f)), "{bytes:02x?} {text}");
                }
                Other => {}
            }
        }
        if !all.is_empty() {
            assert!(unknown * 1000 < all.len(), "{unknown} of {} are unknown", all.len());
            assert!(
                emulated * 10 > all.len() && harmless * 10 > all.len(),
                "{emulated} and {harmless} of {}",
                all.len()
            );
        }
    }
}
