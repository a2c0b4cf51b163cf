//! Maps of operations (`struct_ops`): a structure of functions that programs implement for the kernel, as a congestion
//! control of TCP or a scheduler. [`spec`] takes them from an object, [`plan`] fits them to a kernel.

mod operations;
pub mod plan;
pub mod spec;

pub use operations::Operations;
pub use plan::{FunctionSlot, KernelOps};
pub use spec::StructOps;
