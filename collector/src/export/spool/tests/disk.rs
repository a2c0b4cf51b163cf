//! A disk that crashes.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::export::spool::{Volume, VolumeFile};

const EIO: i32 = rustix::io::Errno::IO.raw_os_error();

/// Numbers that are the same in every run (xorshift64).
#[derive(Debug, Clone)]
pub struct Numbers(pub u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit.max(1)
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// How a machine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The process is killed: all that was written stays.
    Kill,
    /// Only what was synced is sure.
    PowerCut,
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => {
                let end = *offset as usize + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset as usize..end].copy_from_slice(data);
            }
            Self::Truncate(size) => bytes.resize(*size as usize, 0),
        }
    }
}

#[derive(Debug, Default)]
struct Node {
    current: Vec<u8>,
    durable: Vec<u8>,
    /// What was changed since the last sync.
    changes: Vec<Change>,
}

#[derive(Debug)]
struct Inner {
    numbers: Numbers,
    nodes: Vec<Node>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    renames: Vec<(String, Option<usize>)>,
    /// Counts the starts: files that were opened before are of no use after.
    life: u32,
    calls_left: Option<u64>,
    room: Option<u64>,
    failing_syncs: u32,
    failing_reads: u32,
}

impl Inner {
    fn call(&mut self, life: u32) -> io::Result<()> {
        if life != self.life || self.calls_left == Some(0) {
            return Err(io::Error::other("the machine is off"));
        }
        self.calls_left = self.calls_left.map(|left| left - 1);
        Ok(())
    }

    fn used(&self) -> u64 {
        self.names.values().map(|node| self.nodes[*node].current.len() as u64).sum()
    }
}

/// The disk; clones are the same one.
#[derive(Debug, Clone)]
pub struct Disk {
    inner: Arc<Mutex<Inner>>,
}

impl Disk {
    pub fn new(seed: u64) -> Self {
        Self {
            inner: Arc::new(Mutex::new(Inner {
                numbers: Numbers::new(seed),
                nodes: Vec::new(),
                names: BTreeMap::new(),
                durable_names: BTreeMap::new(),
                renames: Vec::new(),
                life: 0,
                calls_left: None,
                room: None,
                failing_syncs: 0,
                failing_reads: 0,
            })),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The volume as it is after the last start.
    pub fn volume(&self) -> Box<dyn Volume> {
        Box::new(SimulatedVolume { disk: self.clone(), life: self.inner().life })
    }

    /// Turns the machine off after so many calls.
    pub fn crash_after(&self, calls: u64) {
        self.inner().calls_left = Some(calls);
    }

    pub fn is_off(&self) -> bool {
        self.inner().calls_left == Some(0)
    }

    /// Leaves so many bytes free; `None` for any number.
    pub fn leave_free(&self, bytes: Option<u64>) {
        let mut inner = self.inner();
        inner.room = bytes.map(|bytes| inner.used() + bytes);
    }

    pub fn fail_syncs(&self, syncs: u32) {
        self.inner().failing_syncs = syncs;
    }

    pub fn used(&self) -> u64 {
        self.inner().used()
    }

    pub fn fail_reads(&self, reads: u32) {
        self.inner().failing_reads = reads;
    }

    pub fn names(&self) -> Vec<String> {
        self.inner().names.keys().cloned().collect()
    }

    /// Changes a file behind the back of everyone, on the medium.
    pub fn edit(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.inner();
        let node = inner.names[name];
        change(&mut inner.nodes[node].current);
        inner.nodes[node].durable = inner.nodes[node].current.clone();
    }

    /// Ends the machine, however it is, and starts it again.
    pub fn restart(&self, crash: Crash) {
        let mut inner = self.inner();
        inner.life += 1;
        inner.calls_left = None;
        inner.failing_syncs = 0;
        if crash == Crash::PowerCut {
            inner.lose();
        }
    }
}

impl Inner {
    /// Loses any part of what was not synced, whatever the order it was written in.
    fn lose(&mut self) {
        let mut numbers = self.numbers.clone();
        let keep_all = numbers.one_in(4);
        let keep_none = numbers.one_in(4);
        let kept = |numbers: &mut Numbers| keep_all || (!keep_none && numbers.one_in(2));
        for (name, node) in self.renames.drain(..) {
            if kept(&mut numbers) {
                match node {
                    Some(node) => self.durable_names.insert(name, node),
                    None => self.durable_names.remove(&name),
                };
            }
        }
        self.names = self.durable_names.clone();
        for node in &mut self.nodes {
            for change in node.changes.drain(..) {
                if !kept(&mut numbers) {
                    continue;
                }
                match change {
                    Change::Write(offset, mut data) if !keep_all && numbers.one_in(3) => {
                        data.truncate(numbers.below(data.len() as u64 + 1) as usize);
                        Change::Write(offset, data).apply(&mut node.durable);
                    }
                    change => change.apply(&mut node.durable),
                }
            }
            node.current = node.durable.clone();
        }
        self.numbers = numbers;
    }
}

struct SimulatedVolume {
    disk: Disk,
    life: u32,
}

impl SimulatedVolume {
    fn file(&self, node: usize) -> Arc<dyn VolumeFile> {
        Arc::new(SimulatedFile { disk: self.disk.clone(), life: self.life, node })
    }
}

impl Volume for SimulatedVolume {
    fn path(&self) -> &Path {
        Path::new("/disk")
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut inner = self.disk.inner();
        inner.call(self.life)?;
        Ok(inner.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn VolumeFile>> {
        let mut inner = self.disk.inner();
        inner.call(self.life)?;
        if inner.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let node = inner.nodes.len();
        inner.nodes.push(Node::default());
        inner.names.insert(name.to_owned(), node);
        inner.renames.push((name.to_owned(), Some(node)));
        drop(inner);
        Ok(self.file(node))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn VolumeFile>> {
        let mut inner = self.disk.inner();
        inner.call(self.life)?;
        let node = *inner.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        drop(inner);
        Ok(self.file(node))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.disk.inner();
        inner.call(self.life)?;
        inner.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        inner.renames.push((name.to_owned(), None));
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut inner = self.disk.inner();
        inner.call(self.life)?;
        inner.renames.clear();
        inner.durable_names = inner.names.clone();
        Ok(())
    }
}

struct SimulatedFile {
    disk: Disk,
    life: u32,
    node: usize,
}

impl VolumeFile for SimulatedFile {
    fn size(&self) -> io::Result<u64> {
        let mut inner = self.disk.inner();
        inner.call(self.life)?;
        Ok(inner.nodes[self.node].current.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut inner = self.disk.inner();
        inner.call(self.life)?;
        if inner.failing_reads > 0 {
            inner.failing_reads -= 1;
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let from = inner.nodes[self.node].current.get(offset as usize..).unwrap_or_default();
        let read = from.len().min(buffer.len());
        buffer[..read].copy_from_slice(&from[..read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut inner = self.disk.inner();
        let called = inner.call(self.life);
        if called.is_err() && self.life != inner.life {
            return called;
        }
        let growth =
            (offset + bytes.len() as u64).saturating_sub(inner.nodes[self.node].current.len() as u64);
        let free = inner.room.map_or(u64::MAX, |room| room.saturating_sub(inner.used()));
        // At the end of the machine, any part may be written.
        let written = match called {
            Ok(()) if growth <= free => bytes.len(),
            Ok(()) => bytes.len() - (growth - free) as usize,
            Err(_) => 0,
        };
        let is_last = inner.calls_left == Some(0) && called.is_ok();
        let written = if is_last { inner.numbers.below(written as u64 + 1) as usize } else { written };
        if written > 0 {
            let change = Change::Write(offset, bytes[..written].to_vec());
            change.apply(&mut inner.nodes[self.node].current);
            inner.nodes[self.node].changes.push(change);
        }
        called?;
        if is_last {
            return Err(io::Error::other("the machine is off"));
        }
        if written < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        let mut inner = self.disk.inner();
        inner.call(self.life)?;
        let change = Change::Truncate(size);
        change.apply(&mut inner.nodes[self.node].current);
        inner.nodes[self.node].changes.push(change);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.disk.inner();
        inner.call(self.life)?;
        if inner.failing_syncs > 0 {
            inner.failing_syncs -= 1;
            // The kernel takes what it could not write for written.
            inner.nodes[self.node].changes.clear();
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let node = &mut inner.nodes[self.node];
        let mut durable = std::mem::take(&mut node.durable);
        node.changes.drain(..).for_each(|change| change.apply(&mut durable));
        node.durable = durable;
        Ok(())
    }
}
