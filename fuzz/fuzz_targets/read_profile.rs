#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tests::targets::read_profile(data));
