//! `struct bpf_insn` and the opcode fields (include/uapi/linux/bpf_common.h, bpf.h; RFC 9669).

/// One BPF instruction, laid out as `struct bpf_insn`. The two registers share a byte whose nibble order follows the
/// host's endianness, as the C bit-fields do.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Insn {
    /// Opcode: class in the low three bits.
    pub code: u8,
    regs: u8,
    /// Signed offset: of a jump in instructions, of a memory access in bytes.
    pub off: i16,
    /// Signed immediate.
    pub imm: i32,
}

const _: () = assert!(size_of::<Insn>() == 8 && align_of::<Insn>() == 4);

impl Insn {
    /// Size in bytes of an instruction slot.
    pub const SIZE: usize = 8;

    /// Builds an instruction; registers are taken modulo 16.
    pub const fn new(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Self {
        let regs = if cfg!(target_endian = "little") {
            (dst & 0xf) | (src & 0xf) << 4
        } else {
            (src & 0xf) | (dst & 0xf) << 4
        };
        Self { code, regs, off, imm }
    }

    /// Destination register.
    pub const fn dst(self) -> u8 {
        if cfg!(target_endian = "little") { self.regs & 0xf } else { self.regs >> 4 }
    }

    /// Source register, or the pseudo kind of a 64-bit load or a call.
    pub const fn src(self) -> u8 {
        if cfg!(target_endian = "little") { self.regs >> 4 } else { self.regs & 0xf }
    }

    /// The same instruction with another source register.
    #[must_use]
    pub const fn with_src(self, src: u8) -> Self {
        Self::new(self.code, self.dst(), src, self.off, self.imm)
    }

    /// Decodes a slot as an object file of the given byte order has it.
    pub const fn from_bytes(b: [u8; 8], big_endian: bool) -> Self {
        let (off, imm) = ([b[2], b[3]], [b[4], b[5], b[6], b[7]]);
        if big_endian {
            Self::new(b[0], b[1] >> 4, b[1] & 0xf, i16::from_be_bytes(off), i32::from_be_bytes(imm))
        } else {
            Self::new(b[0], b[1] & 0xf, b[1] >> 4, i16::from_le_bytes(off), i32::from_le_bytes(imm))
        }
    }

    /// Instruction class: `code & 7`.
    pub const fn class(self) -> u8 {
        self.code & 7
    }

    /// First half of a 64-bit immediate load (two slots)?
    pub const fn is_ld_imm64(self) -> bool {
        self.code == LD_IMM64
    }

    /// A call: helper, subprogram or kfunc, told apart by [`src`](Self::src)?
    pub const fn is_call(self) -> bool {
        self.code == CALL
    }
}

/// Classes.
pub const LD: u8 = 0;
/// Register load from memory.
pub const LDX: u8 = 1;
/// Store of an immediate.
pub const ST: u8 = 2;
/// Store of a register, or atomic.
pub const STX: u8 = 3;
/// 32-bit arithmetic.
pub const ALU: u8 = 4;
/// 64-bit jump.
pub const JMP: u8 = 5;
/// 32-bit jump.
pub const JMP32: u8 = 6;
/// 64-bit arithmetic.
pub const ALU64: u8 = 7;

/// Access width field (`code & 0x18`): 4 bytes.
pub const W: u8 = 0x00;
/// 2 bytes.
pub const H: u8 = 0x08;
/// 1 byte.
pub const B: u8 = 0x10;
/// 8 bytes.
pub const DW: u8 = 0x18;

/// Addressing mode field (`code & 0xe0`): memory.
pub const MEM: u8 = 0x60;
/// Memory, sign-extending (Linux 6.6).
pub const MEMSX: u8 = 0x80;

/// `BPF_LD | BPF_IMM | BPF_DW`.
pub const LD_IMM64: u8 = 0x18;
/// `BPF_JMP | BPF_CALL`.
pub const CALL: u8 = 0x85;
/// `BPF_JMP | BPF_EXIT`.
pub const EXIT: u8 = 0x95;
/// `BPF_ALU64 | BPF_MOV | BPF_K`.
pub const MOV64_IMM: u8 = 0xb7;

/// Source field of a 64-bit load: map by fd.
pub const PSEUDO_MAP_FD: u8 = 1;
/// Address inside a map's value, by fd.
pub const PSEUDO_MAP_VALUE: u8 = 2;
/// Kernel variable by BTF id.
pub const PSEUDO_BTF_ID: u8 = 3;
/// Address of a subprogram.
pub const PSEUDO_FUNC: u8 = 4;
/// Map by index into `fd_array`.
pub const PSEUDO_MAP_IDX: u8 = 5;
/// Address inside a map's value, by index into `fd_array`.
pub const PSEUDO_MAP_IDX_VALUE: u8 = 6;
/// Source field of a call: subprogram.
pub const PSEUDO_CALL: u8 = 1;
/// kfunc by BTF id.
pub const PSEUDO_KFUNC_CALL: u8 = 2;
