//! What the kernel said.

use super::Error;

impl From<bpf_sys::Error> for Box<Error> {
    fn from(e: bpf_sys::Error) -> Self {
        Box::new(Error::Kernel(e))
    }
}

impl Error {
    /// A copy. For generic functions: their own would be compiled once more, with 2.4 KB, in each crate that has instances.
    pub(crate) fn boxed(&self) -> Box<Self> {
        Box::new(self.clone())
    }

    /// A descriptor could not be duplicated.
    pub(crate) fn descriptor(error: std::io::Error) -> Box<Self> {
        let errno = bpf_sys::Errno::from_raw(error.raw_os_error().unwrap_or(0));
        bpf_sys::Error::Call { call: "fcntl(F_DUPFD_CLOEXEC)", errno }.into()
    }

    /// The kernel's error number, if it was the kernel that refused.
    pub fn errno(&self) -> Option<bpf_sys::Errno> {
        match self {
            Self::InnerMap { error, .. } | Self::MapPin { error, .. } => error.errno(),
            Self::ModuleBtf { error, .. }
            | Self::BtfLoad { error, .. }
            | Self::MapCreate { error, .. }
            | Self::ProgramLoad { error, .. } => error.errno(),
            Self::Unsupported { error, .. } | Self::Token { error, .. } | Self::Kernel(error) => {
                error.errno()
            }
            Self::InMap { error, .. } | Self::InProgram { error, .. } => error.errno(),
            _ => None,
        }
    }
}
