#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tests::targets::unwind_elf(data));
