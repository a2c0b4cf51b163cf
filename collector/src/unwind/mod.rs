//! How to get from a frame to its caller's without frame pointers: by the descriptions that compilers write for exceptions.

mod convert;
mod entry;
pub mod frames;
pub mod rule;
#[cfg(test)]
mod tests;
