//! A USDT probe of the program that includes this.

use std::arch::asm;
use std::sync::atomic::AtomicU16;

/// A count with a page of its own: where the linker has two segments in one page of the file, the kernel counts in the first.
#[repr(align(4096))]
pub struct Semaphore(pub AtomicU16);

/// Above zero while somebody watches the probe. In a section of its own, as `sys/sdt.h` has it: the kernel counts in pages of
/// the file, and of `.bss` just what shares a page with data is one.
// SAFETY: no library has a variable of that name.
#[unsafe(no_mangle)]
// SAFETY: nothing else is in the section, which is writable because the variable is.
#[unsafe(link_section = ".probes")]
pub static EBPF_OTLP_TEST_SEMAPHORE: Semaphore = Semaphore(AtomicU16::new(0));

/// A probe with four arguments: two registers, a constant and memory.
#[inline(never)]
pub fn probe(first: i32, second: u64, in_memory: &i16) {
    // SAFETY: executes nothing but `nop`; the rest describes it in a section that is not loaded.
    unsafe {
        asm!(
            "990: nop",
            ".pushsection .note.stapsdt, \"\", @note",
            ".balign 4",
            ".4byte 992f - 991f, 994f - 993f, 3",
            "991: .asciz \"stapsdt\"",
            "992: .balign 4",
            "993: .8byte 990b",
            ".8byte 0",
            ".8byte {semaphore}",
            ".asciz \"ebpf_otlp_test\"",
            ".asciz \"counted\"",
            // A dollar sign means something to the compiler.
            ".ascii \"-4@%edi 8@%rsi 4@\"",
            ".byte 36",
            ".asciz \"71 -2@0(%rdx)\"",
            "994: .balign 4",
            ".popsection",
            semaphore = sym EBPF_OTLP_TEST_SEMAPHORE,
            in("edi") first,
            in("rsi") second,
            in("rdx") in_memory,
            options(nostack, preserves_flags),
        );
    }
}
