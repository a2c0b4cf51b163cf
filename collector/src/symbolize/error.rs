use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a file gave no symbols.
#[derive(Debug)]
#[non_exhaustive]
pub enum SymbolizeError {
    /// The file cannot be opened.
    Open {
        /// The path tried.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// Reading failed.
    Read {
        /// What was to be read.
        what: &'static str,
        /// Where in the file.
        offset: u64,
        /// What the operating system says.
        source: io::Error,
    },
    /// The file ends inside of what its headers promise.
    Truncated {
        /// What was to be read.
        what: &'static str,
        /// Where the file ended, or where the impossible range starts.
        offset: u64,
    },
    /// A size in the file is past what is accepted.
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The file is no ELF file of a class, endianness and version that is known.
    NotElf,
    /// Compressed symbols that do not decompress.
    BadCompression {
        /// What the decoder says.
        reason: String,
    },
    /// The file at the path is not the one that was mapped.
    Replaced {
        /// The path tried.
        path: PathBuf,
    },
    /// `/proc/kallsyms` shows no addresses to this user.
    KernelAddressesHidden,
}

impl fmt::Display for SymbolizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { path, source } => write!(f, "cannot open {}: {source}", path.display()),
            Self::Read { what, offset, source } => {
                write!(f, "cannot read {what} at offset {offset:#x}: {source}")
            }
            Self::Truncated { what, offset } => {
                write!(f, "{what} passes the end of the file at offset {offset:#x}")
            }
            Self::TooLarge { what, size, limit } => write!(f, "{what} has {size}, over the limit of {limit}"),
            Self::NotElf => f.write_str("not an ELF file"),
            Self::BadCompression { reason } => write!(f, ".gnu_debugdata does not decompress: {reason}"),
            Self::Replaced { path } => write!(f, "{} is no longer the file that was mapped", path.display()),
            Self::KernelAddressesHidden => f.write_str(
                "/proc/kallsyms hides addresses: run with CAP_SYSLOG, or set kernel.kptr_restrict to 0 or 1",
            ),
        }
    }
}

impl std::error::Error for SymbolizeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open { source, .. } | Self::Read { source, .. } => Some(source),
            _ => None,
        }
    }
}
