//! What a fuzzer calls: any bytes are fine for these, in bounded time and memory, without a panic.

use bpf_programs::events::unwind::MAX_FRAMES;
use object::elf;

use super::entry::PAGE;
use super::file::File;
use super::unwinder::rule_at;
use super::walk::{Code, Machine, Slice, Walk};
use crate::sorted::SortedMap;
use crate::spans::publishes_spans;
use crate::symbolize::elf::Elf;

/// Pages that are looked at of a file: a walk may come anywhere.
const MAX_PAGES: usize = 16;
/// Where the stack begins.
const STACK: u64 = 0x7fff_0000_0000;

/// A walk through an ELF file, by rules of its descriptions and instructions, from its entry on and over its own last bytes as a stack.
pub fn walk(file: &[u8]) {
    let Ok(elf) = Elf::read(&file) else { return };
    let machine = match elf.machine() {
        elf::EM_AARCH64 => Machine::Arm64,
        _ => Machine::X86_64,
    };
    // Neither finds anything as a rule, and both read what the process says.
    let _ = elf.thread_variable(&file, "otel_thread_ctx_v1");
    publishes_spans(&file, 0);
    let Some(mut code) = File::read(&file) else { return };
    let mut pages = SortedMap::new();
    let mut look_up = |address: u64| {
        let page = address & !(PAGE - 1);
        if pages.len() >= MAX_PAGES && !pages.contains_key(&page) {
            return Code::NotMapped;
        }
        let rows = pages.entry(page).or_insert_with(|| code.rows(&file, page));
        let Some(rows) = rows else { return Code::FramePointers };
        assert_eq!(rows.first().map(|row| row.start), Some(0), "the page's beginning has a rule");
        assert!(rows.windows(2).all(|pair| pair[0].start < pair[1].start) && rows.len() <= PAGE as usize);
        Code::Rule(rule_at(rows, (address - page) as u16))
    };
    let stack = Slice { start: STACK, bytes: file.get(file.len() - file.len() / 4..).unwrap_or_default() };
    let word = |n: u64| stack.word(STACK + n * 8).unwrap_or_default();
    for (pc, fp) in [
        (elf.entry(), 0),
        (elf.entry().wrapping_add(word(0) & 0xfff), STACK + (word(1) & 0xff8)),
        (word(2), word(3)),
    ] {
        let mut walk = Walk { pc, sp: STACK, fp, link: Some(word(4)), exact: true };
        let mut frames = Vec::new();
        walk.run(machine, &mut |address| stack.word(address), &mut frames, MAX_FRAMES, &mut look_up);
        assert!(frames.len() <= MAX_FRAMES);
    }
}
