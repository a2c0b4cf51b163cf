//! Names of the kernel's numbers.

mod errno;
mod signal;
mod syscall;
#[rustfmt::skip]
mod syscall_tables;

pub use errno::errno_name;
pub use signal::signal_name;
pub use syscall::SyscallAbi;
