//! How to get from a frame to its caller's without frame pointers: by the descriptions that compilers write for exceptions.
//!
//! | file | what it does |
//! |---|---|
//! | `frames.rs`, `entry.rs` | reads a file's descriptions (`.eh_frame`), page by page |
//! | `convert.rs`, `rule.rs` | what they say, in 8 bytes |
//! | `analyze.rs`, `analyze_arm64.rs` | rules of code without descriptions, from its instructions |
//! | `file.rs` | both, of a file |
//! | `walk.rs`, `later.rs` | a walk by rules in user space, over a copy of the stack and what is beyond |
//! | `tables.rs` | the tables that the BPF program walks by |
//! | `unwinder.rs` | finishes walks that have missed a page, and fills the tables |

mod analyze;
mod analyze_arm64;
mod convert;
mod entry;
mod file;
pub mod frames;
#[doc(hidden)]
pub mod fuzz;
mod later;
pub mod rule;
pub(crate) mod tables;
#[cfg(test)]
mod tests;
pub(crate) mod unwinder;
pub mod walk;
