//! A small BPF machine: enough to run straight C code that reads and writes its own globals and stack.

use bpf_sys::uapi::insn::{self, Insn};

/// Top of the stack.
const STACK: u64 = 0x1000;
const STACK_SIZE: usize = 512;

/// Why a program stopped early.
#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    /// At an instruction that must not be reached, by its position.
    Call(usize, i32),
    /// At a bad address.
    Memory(usize, u64),
    /// At an opcode that this machine doesn't have.
    Opcode(usize, u8),
    /// After too many instructions.
    Endless,
}

/// Memory of a program: its data sections and its stack.
pub struct Machine {
    regions: Vec<(u64, Vec<u8>)>,
    regs: [u64; 11],
}

impl Machine {
    pub fn new(data: &[(u64, Vec<u8>)]) -> Self {
        let mut regions = data.to_vec();
        regions.push((STACK - STACK_SIZE as u64, vec![0; STACK_SIZE]));
        Self { regions, regs: [0; 11] }
    }

    pub fn memory(&mut self, at: u64, len: usize) -> Option<&mut [u8]> {
        self.regions.iter_mut().find_map(|(start, bytes)| {
            let from = usize::try_from(at.checked_sub(*start)?).ok()?;
            bytes.get_mut(from..from.checked_add(len)?)
        })
    }

    fn load(&mut self, at: u64, len: usize) -> Option<u64> {
        let mut word = [0; 8];
        word[..len].copy_from_slice(self.memory(at, len)?);
        Some(u64::from_le_bytes(word))
    }

    /// The helpers that the programs call: bpf_probe_read_kernel, bpf_get_current_pid_tgid.
    fn call(&mut self, helper: i32) -> Option<u64> {
        match helper {
            14 => Some(0),
            113 => {
                let [_, to, len, from, ..] = self.regs;
                let read = self.memory(from, len as usize).map(|bytes| bytes.to_vec());
                let failed = read.is_none();
                let bytes = read.unwrap_or_else(|| vec![0; len as usize]);
                self.memory(to, len as usize)?.copy_from_slice(&bytes);
                Some(if failed { -14i64 as u64 } else { 0 })
            }
            _ => None,
        }
    }

    /// Runs a program to its end.
    pub fn run(&mut self, insns: &[Insn]) -> Result<u64, Stop> {
        self.regs[10] = STACK;
        let mut at = 0;
        for _ in 0..100_000 {
            let i = insns[at];
            let bad = |address| Stop::Memory(at, address);
            let (dst, src) = (usize::from(i.dst()), usize::from(i.src()));
            let size = [4, 2, 1, 8][usize::from(i.code >> 3 & 3)];
            let offset = i.off as i64 as u64;
            let operand = if i.code & 8 == 0 { i.imm as i64 as u64 } else { self.regs[src] };
            match i.class() {
                insn::LD if i.is_ld_imm64() => {
                    self.regs[dst] = u64::from(i.imm as u32) | u64::from(insns[at + 1].imm as u32) << 32;
                    at += 1;
                }
                insn::LDX => {
                    let from = self.regs[src].wrapping_add(offset);
                    self.regs[dst] = self.load(from, size).ok_or(bad(from))?;
                }
                class @ (insn::ST | insn::STX) => {
                    let to = self.regs[dst].wrapping_add(offset);
                    let value = if class == insn::ST { i.imm as i64 as u64 } else { self.regs[src] };
                    let place = self.memory(to, size).ok_or(bad(to))?;
                    place.copy_from_slice(&value.to_le_bytes()[..size]);
                }
                insn::ALU64 => {
                    self.regs[dst] =
                        alu(i.code, self.regs[dst], operand, 63).ok_or(Stop::Opcode(at, i.code))?;
                }
                insn::ALU => {
                    let (a, b) = (u64::from(self.regs[dst] as u32), u64::from(operand as u32));
                    let a = if i.code >> 4 == 12 { a as i32 as i64 as u64 } else { a };
                    let result = alu(i.code, a, b, 31).ok_or(Stop::Opcode(at, i.code))?;
                    self.regs[dst] = u64::from(result as u32);
                }
                insn::JMP if i.code == insn::EXIT => return Ok(self.regs[0]),
                insn::JMP if i.is_call() => {
                    self.regs[0] = self.call(i.imm).ok_or(Stop::Call(at, i.imm))?;
                }
                class @ (insn::JMP | insn::JMP32) => {
                    let (mut a, mut b) = (self.regs[dst], operand);
                    if class == insn::JMP32 {
                        // Sign-extended both, unsigned order stays as it is.
                        (a, b) = (a as i32 as i64 as u64, b as i32 as i64 as u64);
                    }
                    if jumps(i.code, a, b).ok_or(Stop::Opcode(at, i.code))? {
                        at = at.wrapping_add_signed(isize::from(i.off));
                    }
                }
                _ => return Err(Stop::Opcode(at, i.code)),
            }
            at += 1;
        }
        Err(Stop::Endless)
    }
}

fn alu(code: u8, a: u64, b: u64, shift_mask: u64) -> Option<u64> {
    Some(match code >> 4 {
        0 => a.wrapping_add(b),
        1 => a.wrapping_sub(b),
        2 => a.wrapping_mul(b),
        3 => a.checked_div(b).unwrap_or(0),
        4 => a | b,
        5 => a & b,
        6 => a << (b & shift_mask),
        7 => a >> (b & shift_mask),
        8 => a.wrapping_neg(),
        10 => a ^ b,
        11 => b,
        12 => ((a as i64) >> (b & shift_mask)) as u64,
        _ => return None,
    })
}

fn jumps(code: u8, a: u64, b: u64) -> Option<bool> {
    let (signed_a, signed_b) = (a as i64, b as i64);
    Some(match code >> 4 {
        0 => true,
        1 => a == b,
        2 => a > b,
        3 => a >= b,
        4 => a & b != 0,
        5 => a != b,
        6 => signed_a > signed_b,
        7 => signed_a >= signed_b,
        10 => a < b,
        11 => a <= b,
        12 => signed_a < signed_b,
        13 => signed_a <= signed_b,
        _ => return None,
    })
}
