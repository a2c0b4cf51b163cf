//! Mirrors of the kernel ABI.
pub mod insn;
