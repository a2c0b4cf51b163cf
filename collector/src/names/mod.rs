//! Names of the kernel's numbers.

mod errno;

pub use errno::errno_name;
