//! Functions of Python programs in stacks, of CPython 3.9 to 3.14.
//!
//! `python.h` reads frames at the moment of the sample; what they are of is read from the process' memory a little later.
//!
//! | file | what it does |
//! |---|---|
//! | `processes.rs` | which processes run CPython, and what their frames are of |
//! | `version.rs` | where each version has what |
//! | `code.rs`, `lines.rs` | code objects: names, files and lines |
//! | `merge.rs` | native frames and Python's in one stack |

mod code;
mod lines;
mod merge;
mod processes;
mod version;

pub(crate) use merge::{Merged, merge};
pub(crate) use processes::{EVAL, Pythons};

#[cfg(test)]
mod tests;
