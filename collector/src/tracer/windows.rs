//! Tables that programs fill in turns, so that taking one out neither loses a count nor takes it twice.

use std::os::fd::{AsFd, AsRawFd};
use std::thread;

use bpf_loader::kernel::RunningKernel;
use bpf_loader::load::Object;
use bpf_loader::machine::Machine;
use bpf_loader::map::{Global, Map};
use bpf_loader::object::ObjectSpec;
use bpf_sys::MapFd;
use bpf_sys::uapi::flags::BPF_ANY;

use super::cost;
use crate::error::{Error, Result};

/// Bytes of stack of a thread that makes one system call.
const STACK: usize = 32 << 10;

/// The two tables of a map of maps, of which programs fill the one that their variable `active` names.
#[derive(Debug)]
pub(crate) struct Windows<T> {
    pair: Pair,
    tables: [T; 2],
}

/// The two tables, whatever is in them.
#[derive(Debug)]
struct Pair {
    outer: Map,
    active: Global<u32>,
    filling: u32,
    maps: [Map; 2],
}

impl Pair {
    fn create(spec: &ObjectSpec<'_>, object: &Object, outer: &str) -> Result<Self> {
        let no_map = || Error::no_map(outer);
        let inner = spec.map(outer).and_then(|map| map.inner.as_deref()).ok_or_else(no_map)?;
        let create = || -> Result<Map> {
            let fd = inner.create(&RunningKernel::default()).map_err(Error::load)?;
            Ok(Map::new(outer.to_owned(), fd))
        };
        let maps = [create()?, create()?];
        let outer = object.map(outer).and_then(Map::try_clone).map_err(Error::load)?;
        let active = object.global("active").map_err(Error::load)?;
        let [first, second] = &maps;
        put_in(&[(&outer.fd, 0, &first.fd), (&outer.fd, 1, &second.fd)])?;
        Ok(Self { outer, active, filling: 0, maps })
    }

    fn swap(&mut self) -> Result<u32> {
        let full = self.filling;
        self.active.set(&(full ^ 1)).map_err(Error::kernel)?;
        self.filling = full ^ 1;
        // Updating a map of maps returns only after every program that may have read the old value has ended
        // (`maybe_wait_bpf_programs`, Linux 5.0), so setting what is already there is a wait for our own flip.
        self.set(full)?;
        Ok(full)
    }

    fn set(&self, index: u32) -> Result<()> {
        let [first, second] = &self.maps;
        set(&self.outer.fd, index, if index == 0 { &first.fd } else { &second.fd })
    }
}

impl<T> Windows<T> {
    /// Creates the tables, as `spec` has their sizes, and puts them in the map of maps. `open` makes a handle for one.
    ///
    /// # Errors
    ///
    /// There is no such map of maps, which is a defect; the kernel does not create the tables.
    pub fn create(
        spec: &ObjectSpec<'_>,
        object: &Object,
        outer: &str,
        open: impl Fn(&Map) -> bpf_loader::Result<T>,
    ) -> Result<Self> {
        let pair = Pair::create(spec, object, outer)?;
        let [first, second] = &pair.maps;
        let tables = [open(first).map_err(Error::load)?, open(second).map_err(Error::load)?];
        Ok(Self { pair, tables })
    }

    /// Makes programs fill the other table, waits until none is still in the old one, and lends that. It has to be emptied
    /// before the next call.
    ///
    /// # Errors
    ///
    /// The kernel does not take the update that waits.
    pub fn swap(&mut self) -> Result<&T> {
        let full = self.pair.swap()?;
        let [first, second] = &self.tables;
        Ok(if full == 0 { first } else { second })
    }

    /// Which of the two is being filled: 0 or 1.
    pub fn filling(&self) -> u32 {
        self.pair.filling
    }

    /// Waits until every program that runs now has ended.
    ///
    /// # Errors
    ///
    /// The kernel does not take the update that waits.
    pub fn wait(&self) -> Result<()> {
        self.pair.set(self.pair.filling)
    }

    /// Kernel memory of the tables, in bytes.
    pub fn map_bytes(&self) -> u64 {
        self.pair.maps.iter().map(|map| cost::map_bytes(&map.fd)).sum()
    }
}

/// Entries that a map of maps needs for two tables.
pub(super) fn entries() -> u32 {
    if is_apart() { 3 } else { 2 }
}

/// Whether the kernel finds its second table where the third is put: kernels of 32 bits put pointers side by side
/// (`bpf_fd_array_map_update_elem`), and let programs look for them eight bytes apart (`array_of_map_lookup_elem`).
fn is_apart() -> bool {
    Machine::running().is_some_and(|machine| !machine.is_64())
}

/// Puts a map in a map of maps, for programs to find.
pub(super) fn set(outer: &MapFd, index: u32, inner: &MapFd) -> Result<()> {
    let value = inner.as_fd().as_raw_fd().to_ne_bytes();
    let put = |index: u32| {
        let put = bpf_sys::map::update(outer, &index.to_ne_bytes(), &value, BPF_ANY);
        put.map_err(Error::kernel)
    };
    put(index)?;
    if index == 0 || !is_apart() { Ok(()) } else { put(2 * index) }
}

/// Puts maps in maps of maps at once. Each update waits until all CPUs have been seen outside programs, for ten milliseconds or more:
/// they wait together.
pub(super) fn put_in(maps: &[(&MapFd, u32, &MapFd)]) -> Result<()> {
    thread::scope(|scope| {
        let put = |&(outer, index, inner): &_| set(outer, index, inner);
        let started = maps.iter().map(|map| {
            let builder = thread::Builder::new().stack_size(STACK);
            builder.spawn_scoped(scope, move || put(map)).map_err(|_| map)
        });
        let started: Vec<_> = started.collect();
        started.into_iter().try_for_each(|thread| match thread {
            Ok(thread) => thread.join().unwrap_or_else(|_| Err(Box::new(Error::ThreadPanicked))),
            // No thread is to be had.
            Err(map) => put(map),
        })
    })
}
