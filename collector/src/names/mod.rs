//! Names of the kernel's numbers.

mod errno;
mod signal;

pub use errno::errno_name;
pub use signal::signal_name;
