//! A ring, and a program that writes records of 64 bytes to it.

use std::os::fd::AsRawFd;

use bpf_sys::map::{self, MapCreate};
use bpf_sys::prog::{self, ProgLoad, TestRun};
use bpf_sys::uapi::flags::{BPF_F_TEST_RUN_ON_CPU, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use bpf_sys::uapi::insn::{self, Insn};
use bpf_sys::{MapFd, MapType, ProgFd, ProgType};

pub const NO_WAKEUP: u64 = BPF_RB_NO_WAKEUP;
pub const FORCE_WAKEUP: u64 = BPF_RB_FORCE_WAKEUP;

const RING_SIZE: u32 = 1 << 18;
/// More than fit the ring, and few enough for the verifier.
const MOST: i32 = 4096;
const RINGBUF_OUTPUT: i32 = 130;

pub struct Writer {
    ring: MapFd,
    prog: ProgFd,
    cpu: u32,
}

impl Writer {
    pub fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let ring = map::create(&MapCreate {
            map_type: MapType::RINGBUF,
            max_entries: RING_SIZE,
            ..Default::default()
        })?;
        let load = ProgLoad {
            prog_type: ProgType::RAW_TRACEPOINT,
            insns: &instructions(&ring),
            license: c"GPL",
            ..Default::default()
        };
        let prog = prog::load(&load, None)?;
        // Another CPU than the reader's, if there is one: records are then not in the reader's cache.
        let cpu = u32::from(bpf_sys::possible_cpus()? > 1);
        Ok(Self { ring, prog, cpu })
    }

    pub fn ring(&self) -> &MapFd {
        &self.ring
    }

    /// The CPU that the program runs on.
    pub fn cpu(&self) -> u32 {
        self.cpu
    }

    /// Writes `count` records, numbered from 0, or as many as fit.
    pub fn write(&self, count: u64, flags: u64) -> bpf_sys::Result<()> {
        let mut ctx = [count.to_ne_bytes(), flags.to_ne_bytes()].concat();
        let mut run =
            TestRun { ctx_in: &mut ctx, flags: BPF_F_TEST_RUN_ON_CPU, cpu: self.cpu, ..Default::default() };
        prog::test_run(&self.prog, &mut run).map(drop)
    }
}

/// `for (i = 0; i < ctx[0] && i < MOST; i++) { record[0] = i; bpf_ringbuf_output(ring, record, 64, ctx[1]); }`
fn instructions(ring: &MapFd) -> Vec<Insn> {
    const LDX_DW: u8 = insn::LDX | insn::MEM | insn::DW;
    const STX_DW: u8 = insn::STX | insn::MEM | insn::DW;
    const ST_DW: u8 = insn::ST | insn::MEM | insn::DW;
    const MOV64_REG: u8 = 0xbf;
    const ADD64_IMM: u8 = 0x07;
    const JGE_REG: u8 = 0x3d;
    const JLT_IMM: u8 = 0xa5;
    let i = Insn::new;
    let mut insns = vec![i(LDX_DW, 6, 1, 0, 0), i(LDX_DW, 7, 1, 8, 0)];
    insns.extend((0..8).map(|word| i(ST_DW, 10, 0, -64 + 8 * word, 0)));
    insns.extend([
        i(insn::MOV64_IMM, 8, 0, 0, 0),
        i(JGE_REG, 8, 6, 10, 0),
        i(STX_DW, 10, 8, -64, 0),
        i(insn::LD_IMM64, 1, insn::PSEUDO_MAP_FD, 0, ring.as_raw_fd()),
        i(0, 0, 0, 0, 0),
        i(MOV64_REG, 2, 10, 0, 0),
        i(ADD64_IMM, 2, 0, 0, -64),
        i(insn::MOV64_IMM, 3, 0, 0, 64),
        i(MOV64_REG, 4, 7, 0, 0),
        i(insn::CALL, 0, 0, 0, RINGBUF_OUTPUT),
        i(ADD64_IMM, 8, 0, 0, 1),
        i(JLT_IMM, 8, 0, -11, MOST),
        i(insn::MOV64_IMM, 0, 0, 0, 0),
        i(insn::EXIT, 0, 0, 0, 0),
    ]);
    insns
}
