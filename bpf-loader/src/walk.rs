//! All objects of the system, by id: maps, programs, links, BTF. Each needs CAP_SYS_ADMIN.
//!
//! ```no_run
//! for map in bpf_loader::walk::maps() {
//!     println!("{}", map?.0.name);
//! }
//! # Ok::<(), Box<bpf_loader::Error>>(())
//! ```

use bpf_sys::{
    BtfFd, BtfInfo, Errno, Ids, Info, LinkFd, MapInfo, ProgFd, ProgInfo, RawLinkInfo, btf, link, prog,
};

use crate::error::Result;
use crate::map::Map;

/// Opens each object of a kind, ascending by id. Those that go meanwhile do not appear.
#[derive(Debug)]
pub struct Walk<T> {
    ids: Ids,
    open: fn(u32) -> bpf_sys::Result<T>,
}

/// Errors: `EPERM`, after which there is no more; `EMFILE`.
impl<T> Iterator for Walk<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        loop {
            match self.ids.next()?.and_then(self.open) {
                Err(error) if error.errno() == Some(Errno::ENOENT) => {}
                other => return Some(other.map_err(Into::into)),
            }
        }
    }
}

/// All maps (Linux 4.13).
pub fn maps() -> Walk<(Map, Info<MapInfo>)> {
    let open = |id| {
        let fd = bpf_sys::map::open_by_id(id, 0, None)?;
        let info = bpf_sys::map::info(&fd)?;
        Ok((Map::new(info.name.to_string(), fd), info))
    };
    Walk { ids: bpf_sys::map::ids(), open }
}

/// All programs (Linux 4.13).
pub fn programs() -> Walk<(ProgFd, Info<ProgInfo>)> {
    let open = |id| {
        let fd = prog::open_by_id(id, None)?;
        let info = prog::info(&fd)?;
        Ok((fd, info))
    };
    Walk { ids: prog::ids(), open }
}

/// All links (Linux 5.8).
pub fn links() -> Walk<(LinkFd, Info<RawLinkInfo>)> {
    let open = |id| {
        let fd = link::open_by_id(id)?;
        let info = link::info(&fd)?;
        Ok((fd, info))
    };
    Walk { ids: link::ids(), open }
}

/// The BTF of programs and maps, of the kernel and its modules (Linux 5.4; the kernel's own since 5.11).
pub fn btfs() -> Walk<(BtfFd, Info<BtfInfo>)> {
    let open = |id| {
        let fd = btf::open_by_id(id, None)?;
        let info = btf::info(&fd)?;
        Ok((fd, info))
    };
    Walk { ids: btf::ids(), open }
}
