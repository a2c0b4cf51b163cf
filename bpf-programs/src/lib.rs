//! BPF programs, prebuilt, and the decoders of their records.
#![forbid(unsafe_code)]
