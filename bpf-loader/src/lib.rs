//! A BPF object loader.
#![forbid(unsafe_code)]
