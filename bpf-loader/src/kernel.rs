//! The calls that loading makes, behind a trait.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use bpf_sys::btf;
use bpf_sys::map::{self, MapCreate};
use bpf_sys::pin;
use bpf_sys::prog::{self, ProgLoad};
use bpf_sys::token;
use bpf_sys::{BtfFd, Errno, Log, MapFd, ProgFd, Result, TokenFd};

use crate::features::Features;
use crate::target::RunningTarget;

/// What [`LoadPlan::load`](crate::plan::LoadPlan::load) asks of a kernel.
pub trait Kernel {
    /// `BPF_MAP_CREATE`.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    fn create_map(&self, map: &MapCreate<'_>) -> Result<MapFd>;

    /// `BPF_MAP_UPDATE_ELEM`.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    fn update_map(&self, map: &MapFd, key: &[u8], value: &[u8]) -> Result<()>;

    /// `BPF_MAP_FREEZE`.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    fn freeze_map(&self, map: &MapFd) -> Result<()>;

    /// `BPF_OBJ_GET` of a map.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    fn open_pinned_map(&self, path: &Path) -> Result<MapFd> {
        pin::get_map(path, 0, None)
    }

    /// `BPF_OBJ_PIN` of a map, in a directory that is made, with those above it, if it isn't there.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    fn pin_map(&self, map: &MapFd, path: &Path) -> Result<()> {
        if let Some(directory) = path.parent() {
            // If it cannot be made, pinning says so.
            let _ = std::fs::create_dir_all(directory);
        }
        pin::pin(map.as_fd(), path, None)
    }

    /// The version of the kernel, if it is known: to say from which version on there is what it lacks.
    fn version(&self) -> Option<(u8, u8)> {
        None
    }

    /// `BPF_BTF_LOAD`.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    fn load_btf(&self, data: &[u8], log: Option<&mut Log<'_>>) -> Result<BtfFd>;

    /// Opens the BTF of a module (Linux 5.11). A kernel that is made up has no modules unless it says so.
    ///
    /// # Errors
    ///
    /// `ENOENT`: there is no such module, or it has none. What the kernel says.
    fn module_btf(&self, _name: &str) -> Result<BtfFd> {
        Err(bpf_sys::Error::Call { call: "bpf(BPF_BTF_GET_FD_BY_ID)", errno: Errno::ENOENT })
    }

    /// `BPF_PROG_LOAD`.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    fn load_program(&self, program: &ProgLoad<'_>, log: Option<&mut Log<'_>>) -> Result<ProgFd>;
}

/// The running kernel.
///
/// Before Linux 5.11, BPF memory is charged to `RLIMIT_MEMLOCK`: there the limit is raised before the first map or program,
/// since some of it is charged later, when a program is attached, and then refused with `ENOMEM`.
#[derive(Debug, Default)]
pub struct RunningKernel {
    memlock_raised: Cell<bool>,
    token: Option<TokenFd>,
}

/// From this version on, BPF memory is not limited by `RLIMIT_MEMLOCK`.
pub(crate) const ACCOUNTED_ELSEWHERE: (u8, u8) = (5, 11);

/// Where a BPF file system is mounted by convention.
const BPF_FS: &str = "/sys/fs/bpf";
/// The variable that says which BPF file system has rights to delegate, as for libbpf.
const TOKEN_PATH: &str = "LIBBPF_BPF_TOKEN_PATH";

impl RunningKernel {
    /// The running kernel, with the rights of a token in the user namespace that it is for (Linux 6.9): maps are created, BTF
    /// and programs loaded with it.
    pub fn with_token(token: TokenFd) -> Self {
        Self { token: Some(token), ..Self::default() }
    }

    /// The running kernel, with the rights that a BPF file system delegates to the caller's user namespace: the one at `bpffs`,
    /// or else at the path in the environment variable `LIBBPF_BPF_TOKEN_PATH`; or else, if it delegates any, the one at
    /// `/sys/fs/bpf`. An empty path means no token.
    ///
    /// # Errors
    ///
    /// [`Error::Token`](crate::Error::Token): a path was given, and there is no token to be had.
    pub fn delegated(bpffs: Option<&Path>) -> crate::Result<Self> {
        let variable = std::env::var_os(TOKEN_PATH);
        match bpffs.or(variable.as_deref().map(Path::new)) {
            Some(none) if none.as_os_str().is_empty() => Ok(Self::default()),
            Some(path) => match create_token(path) {
                Ok(token) => Ok(Self::with_token(token)),
                Err(error) => Err(Box::new(crate::Error::Token { bpffs: path.display().to_string(), error })),
            },
            None => Ok(create_token(Path::new(BPF_FS)).map(Self::with_token).unwrap_or_default()),
        }
    }

    /// The same kernel to plan for. With a token, features are tried with its rights, at once; else when they are asked for.
    pub fn target(&self) -> RunningTarget {
        let target = RunningTarget::new();
        match self.token {
            Some(_) => target.with_features(Features::probe_through(self)),
            None => target,
        }
    }

    fn token(&self) -> Option<BorrowedFd<'_>> {
        self.token.as_ref().map(AsFd::as_fd)
    }

    fn raise_memlock(&self) {
        if !self.memlock_raised.replace(true) && self.version().is_none_or(|v| v < ACCOUNTED_ELSEWHERE) {
            // If it cannot be raised, it may still do.
            bpf_sys::memlock::raise();
        }
    }
}

/// A token of the BPF file system at `path`.
fn create_token(path: &Path) -> Result<TokenFd> {
    let bpffs = std::fs::File::open(path).map_err(|e| bpf_sys::Error::Call {
        call: "open",
        errno: Errno::from_raw(e.raw_os_error().unwrap_or_default()),
    })?;
    token::create(bpffs.as_fd(), 0)
}

impl Kernel for RunningKernel {
    fn create_map(&self, map: &MapCreate<'_>) -> Result<MapFd> {
        let map = MapCreate { token: map.token.or(self.token()), ..map.clone() };
        self.raise_memlock();
        map::create(&map)
    }

    fn update_map(&self, map: &MapFd, key: &[u8], value: &[u8]) -> Result<()> {
        map::update(map, key, value, bpf_sys::uapi::flags::BPF_ANY)
    }

    fn freeze_map(&self, map: &MapFd) -> Result<()> {
        map::freeze(map)
    }

    fn version(&self) -> Option<(u8, u8)> {
        parse_version(&std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?)
    }

    fn load_btf(&self, data: &[u8], log: Option<&mut Log<'_>>) -> Result<BtfFd> {
        self.raise_memlock();
        btf::load(data, 0, self.token(), log)
    }

    fn module_btf(&self, name: &str) -> Result<BtfFd> {
        let mut last = bpf_sys::Error::Call { call: "bpf(BPF_BTF_GET_FD_BY_ID)", errno: Errno::ENOENT };
        for id in btf::ids() {
            let found = btf::open_by_id(id?, self.token()).and_then(|fd| {
                // Names of modules have at most 56 bytes (MODULE_NAME_LEN).
                let mut buffer = [0; 64];
                let info = btf::info_data(&fd, &mut [], &mut buffer)?;
                let own = buffer.split(|&b| b == 0).next().unwrap_or_default();
                Ok((info.kernel_btf != 0 && own == name.as_bytes()).then_some(fd))
            });
            match found {
                Ok(Some(fd)) => return Ok(fd),
                Ok(None) => {}
                // Others' BTF comes and goes meanwhile.
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn load_program(&self, program: &ProgLoad<'_>, log: Option<&mut Log<'_>>) -> Result<ProgFd> {
        let program = ProgLoad { token: program.token.or(self.token()), ..program.clone() };
        self.raise_memlock();
        prog::load(&program, log)
    }
}

/// The first two numbers of a release such as `6.12.0-rc1+`.
fn parse_version(release: &str) -> Option<(u8, u8)> {
    let (major, rest) = release.split_once('.')?;
    let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        assert_eq!(parse_version("5.10.0-32-amd64\n"), Some((5, 10)));
        assert_eq!(parse_version("6.18-rc3"), Some((6, 18)));
        for bad in ["", "6", "six.1", "6.x"] {
            assert_eq!(parse_version(bad), None, "{bad}");
        }
    }
}
