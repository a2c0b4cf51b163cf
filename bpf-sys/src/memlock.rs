//! The limit of locked memory, which BPF objects are charged to before Linux 5.11.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises `RLIMIT_MEMLOCK` of this process as far as it may: to infinity with CAP_SYS_RESOURCE, else to the hard limit.
/// Whether the limit is higher now.
///
/// [`setrlimit(2)`](https://man7.org/linux/man-pages/man2/setrlimit.2.html).
pub fn raise() -> bool {
    let before = getrlimit(Resource::Memlock);
    let unlimited = Rlimit { current: None, maximum: None };
    if setrlimit(Resource::Memlock, unlimited).is_ok() {
        return before.current.is_some();
    }
    let most = Rlimit { current: before.maximum, maximum: before.maximum };
    before.current != before.maximum && setrlimit(Resource::Memlock, most).is_ok()
}
