//! Errors of system calls: which call, and which errno.

use std::fmt::{self, Write as _};

/// A Linux error number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(i32);

macro_rules! errnos {
    ($($name:ident)*) => {
        impl Errno {
            $(#[doc = concat!("`", stringify!($name), "`.")] pub const $name: Self = Self(libc::$name);)*

            /// The C name, as `EPERM`.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $(libc::$name => Some(stringify!($name)),)*
                    524 => Some("ENOTSUPP"),
                    _ => None,
                }
            }
        }
    };
}

errnos! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY EEXIST
    EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE
    EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP ENOMSG EIDRM ECHRNG EL2NSYNC EL3HLT EL3RST ELNRNG EUNATCH ENOCSI
    EL2HLT EBADE EBADR EXFULL ENOANO EBADRQC EBADSLT EBFONT ENOSTR ENODATA ETIME ENOSR ENONET ENOPKG EREMOTE ENOLINK
    EADV ESRMNT ECOMM EPROTO EMULTIHOP EDOTDOT EBADMSG EOVERFLOW ENOTUNIQ EBADFD EREMCHG ELIBACC ELIBBAD ELIBSCN ELIBMAX
    ELIBEXEC EILSEQ ERESTART ESTRPIPE EUSERS ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT
    ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET
    ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN ETOOMANYREFS ETIMEDOUT ECONNREFUSED EHOSTDOWN
    EHOSTUNREACH EALREADY EINPROGRESS ESTALE EUCLEAN ENOTNAM ENAVAIL EISNAM EREMOTEIO EDQUOT ENOMEDIUM EMEDIUMTYPE
    ECANCELED ENOKEY EKEYEXPIRED EKEYREVOKED EKEYREJECTED EOWNERDEAD ENOTRECOVERABLE ERFKILL EHWPOISON
}

impl Errno {
    /// "Not supported", which the kernel uses inside and BPF commands return; libc does not know it.
    pub const ENOTSUPP: Self = Self(524);

    /// From a number as the kernel gives it, positive.
    pub const fn from_raw(number: i32) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn raw(self) -> i32 {
        self.0
    }

    /// The error of the calling thread's last system call.
    pub(crate) fn last() -> Self {
        Self(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }
}

impl From<rustix::io::Errno> for Errno {
    fn from(e: rustix::io::Errno) -> Self {
        Self(e.raw_os_error())
    }
}

/// As `EPERM (Operation not permitted)`.
impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(name) = self.name() else { return write!(f, "errno {}", self.0) };
        if *self == Self::ENOTSUPP {
            return write!(f, "{name} (Operation not supported by this kernel)");
        }
        let text = std::io::Error::from_raw_os_error(self.0).to_string();
        // The standard library adds " (os error N)" to the C library's text.
        write!(f, "{name} ({})", text.strip_suffix(&format!(" (os error {})", self.0)).unwrap_or(&text))
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A short text of the kernel's, cut to 55 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Message([u8; 55]);

impl Message {
    /// Up to the first zero byte.
    pub(crate) fn new(text: &[u8]) -> Self {
        let mut out = [0; 55];
        for (to, from) in out.iter_mut().zip(text.iter().take_while(|b| **b != 0)) {
            *to = *from;
        }
        Self(out)
    }

    /// Did the kernel say nothing?
    pub fn is_empty(&self) -> bool {
        self.0[0] == 0
    }
}

impl Default for Message {
    fn default() -> Self {
        Self([0; 55])
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.iter().take_while(|b| **b != 0) {
            match byte {
                b' '..=b'~' => f.write_char(char::from(*byte))?,
                _ => write!(f, "{}", byte.escape_ascii())?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// What went wrong in a call of this crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused.
    Call {
        /// The call, as `bpf(BPF_MAP_CREATE)`.
        call: &'static str,
        /// Why.
        errno: Errno,
    },
    /// The kernel refused in the middle of a batch.
    Batch {
        /// The call, as `bpf(BPF_MAP_UPDATE_BATCH)`.
        call: &'static str,
        /// Why.
        errno: Errno,
        /// How many elements were done before.
        done: u32,
    },
    /// The kernel refused a netlink request.
    Netlink {
        /// What was asked, as `RTM_SETLINK (IFLA_XDP)`.
        call: &'static str,
        /// Why.
        errno: Errno,
        /// Why, in the kernel's words (`NLMSGERR_ATTR_MSG`); often empty.
        message: Message,
    },
    /// A buffer has the wrong length; the kernel was not called.
    Length {
        /// The call, as `bpf(BPF_MAP_LOOKUP_ELEM)`.
        call: &'static str,
        /// Which buffer.
        what: &'static str,
        /// Its length in bytes or elements.
        actual: usize,
        /// What it must be.
        expected: usize,
    },
    /// An argument that the kernel would misread; the kernel was not called.
    Argument {
        /// The call.
        call: &'static str,
        /// What is wrong with which argument.
        what: &'static str,
    },
    /// A descriptor is of another kind.
    WrongKind {
        /// What `/proc/self/fd` shows for the right kind.
        expected: &'static str,
    },
    /// The type of map is unknown, and so is how many bytes the kernel copies for a value.
    UnknownMapType(crate::MapType),
    /// `/sys/devices/system/cpu/possible` could not be read, so the size of per-CPU values is unknown.
    PossibleCpus,
    /// The ring of this map or event is already mapped in this process; a second reader would free what the first reads.
    AlreadyMapped,
}

impl Error {
    /// The kernel's error number, if the kernel was asked.
    pub const fn errno(&self) -> Option<Errno> {
        match self {
            Self::Call { errno, .. } | Self::Batch { errno, .. } | Self::Netlink { errno, .. } => {
                Some(*errno)
            }
            _ => None,
        }
    }

    pub(crate) fn last(call: &'static str) -> Self {
        Self::Call { call, errno: Errno::last() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call { call, errno } => write!(f, "{call}: {errno}"),
            Self::Batch { call, errno, done } => write!(f, "{call}: {errno} after {done} elements"),
            Self::Netlink { call, errno, message } if message.is_empty() => write!(f, "{call}: {errno}"),
            Self::Netlink { call, errno, message } => write!(f, "{call}: {errno}: {message}"),
            Self::Length { call, what, actual, expected } => {
                write!(f, "{call}: {what} has length {actual}, not {expected}")
            }
            Self::Argument { call, what } => write!(f, "{call}: {what}"),
            Self::WrongKind { expected } => write!(f, "the descriptor is no {expected}"),
            Self::UnknownMapType(t) => write!(f, "{t}: the size of its values is unknown"),
            Self::PossibleCpus => f.write_str("/sys/devices/system/cpu/possible cannot be read"),
            Self::AlreadyMapped => f.write_str("this ring already has a reader in this process"),
        }
    }
}

impl std::error::Error for Error {}

/// Result of a call of this crate.
pub type Result<T> = core::result::Result<T, Error>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_call_name_and_text() {
        let e = Error::Call { call: "bpf(BPF_MAP_CREATE)", errno: Errno::EPERM };
        assert_eq!(e.to_string(), "bpf(BPF_MAP_CREATE): EPERM (Operation not permitted)");
        assert_eq!(e.errno(), Some(Errno::EPERM));
        let e = Error::Call { call: "bpf(BPF_LINK_CREATE)", errno: Errno::from_raw(524) };
        assert_eq!(e.to_string(), "bpf(BPF_LINK_CREATE): ENOTSUPP (Operation not supported by this kernel)");
    }

    #[test]
    fn the_kernels_words_follow_the_errno() {
        let error = |text: &[u8]| Error::Netlink {
            call: "RTM_SETLINK",
            errno: Errno::EINVAL,
            message: Message::new(text),
        };
        assert_eq!(error(b"").to_string(), "RTM_SETLINK: EINVAL (Invalid argument)");
        assert_eq!(error(b"No \xff\0x").to_string(), "RTM_SETLINK: EINVAL (Invalid argument): No \\xff");
        assert_eq!(Message::new(&[b'a'; 80]).to_string().len(), 55);
        assert_eq!(error(b"").errno(), Some(Errno::EINVAL));
    }

    #[test]
    fn number_without_a_name_is_shown_as_number() {
        assert_eq!(Errno::from_raw(4000).to_string(), "errno 4000");
        assert_eq!(Errno::from_raw(4000).name(), None);
    }
}
