//! The same program as every compiler makes it, in either byte order: `objects/build` says how.

/// Compiler and byte order, and the object.
pub type Sample = (&'static str, &'static [u8]);

macro_rules! samples {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("../objects/", $name, ".o")))),*]
    };
}

/// In the order of bytes that x86 has.
pub const LITTLE: &[Sample] = samples![
    "clang-11-bpfel",
    "clang-13-bpfel",
    "clang-14-bpfel",
    "clang-15-bpfel",
    "clang-16-bpfel",
    "clang-17-bpfel",
    "clang-18-bpfel",
    "clang-19-bpfel",
    "clang-21-bpfel",
    "clang-22-bpfel",
    "rustc-bpfel",
];

/// In the other.
pub const BIG: &[Sample] = samples![
    "clang-11-bpfeb",
    "clang-13-bpfeb",
    "clang-14-bpfeb",
    "clang-15-bpfeb",
    "clang-16-bpfeb",
    "clang-17-bpfeb",
    "clang-18-bpfeb",
    "clang-19-bpfeb",
    "clang-21-bpfeb",
    "clang-22-bpfeb",
    "rustc-bpfeb",
];
