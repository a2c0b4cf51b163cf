//! The readers, each used as its documentation says.

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;

use aya::maps::{Map, MapData, RingBuf};
use bpf_loader::ring::RingReader;
use bpf_sys::MapFd;
use rustix::event::{Timespec, epoll};

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What was read: how many records, and the sum of their first words.
#[derive(Default)]
pub struct Read {
    pub records: u64,
    pub sum: u64,
}

impl Read {
    #[inline]
    fn add(&mut self, record: &[u8]) {
        self.records += 1;
        if let Some(word) = record.first_chunk() {
            self.sum += u64::from_ne_bytes(*word);
        }
    }

    /// Is it `records` records, numbered from 0?
    pub fn check(&self, who: &str, records: u64) -> Result<()> {
        if records != 0 && self.records == records && self.sum == records * (records - 1) / 2 {
            Ok(())
        } else {
            Err(format!("{who} read {} of {records} records, with sum {}", self.records, self.sum).into())
        }
    }
}

/// What a reader does before it reads.
#[derive(Clone, Copy, PartialEq)]
pub enum Wait {
    /// Nothing.
    No,
    /// Asks epoll, level-triggered, while records are there.
    Readable,
    /// Sleeps until a record comes.
    Asleep,
}

pub trait Peer {
    fn name(&self) -> &'static str;
    /// Waits until the ring is readable.
    fn wait(&mut self, wait: Wait) -> Result<()>;
    /// Reads all that is there; `next` is what comes then.
    fn drain(&mut self, next: Wait) -> Read;
}

/// An epoll descriptor that watches a ring.
struct Watch(OwnedFd);

impl Watch {
    fn new(ring: impl AsFd, flags: epoll::EventFlags) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, ring, epoll::EventData::new_u64(0), flags | epoll::EventFlags::IN)?;
        Ok(Self(epoll))
    }

    fn wait(&self) -> Result<()> {
        let mut events = [MaybeUninit::uninit(); 1];
        let long = Timespec { tv_sec: 5, tv_nsec: 0 };
        let (events, _) = epoll::wait(&self.0, &mut events, Some(&long))?;
        if events.is_empty() { Err("no wake-up".into()) } else { Ok(()) }
    }
}

/// Edge-triggered where it sleeps, as mio registers it. The others are level-triggered: they have no other way to see what
/// came between the last read and the sleep.
pub struct Ours {
    reader: RingReader,
    edge: Watch,
    level: Watch,
    may_sleep: bool,
}

impl Ours {
    pub fn new(ring: &MapFd) -> Result<Self> {
        let reader = RingReader::open(ring)?;
        let edge = Watch::new(&reader, epoll::EventFlags::ET)?;
        let level = Watch::new(&reader, epoll::EventFlags::empty())?;
        Ok(Self { reader, edge, level, may_sleep: true })
    }
}

impl Peer for Ours {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn wait(&mut self, wait: Wait) -> Result<()> {
        match wait {
            Wait::Asleep if self.may_sleep => self.edge.wait(),
            Wait::Readable if self.may_sleep => self.level.wait(),
            _ => Ok(()),
        }
    }

    fn drain(&mut self, next: Wait) -> Read {
        let mut read = Read::default();
        self.reader.drain(usize::MAX, |record| read.add(record)).expect("the ring is sound");
        if next != Wait::No {
            self.may_sleep = self.reader.prepare_to_sleep();
        }
        read
    }
}

pub struct Libbpf {
    ring: NonNull<libbpf_sys::ring_buffer>,
    read: Box<Read>,
}

unsafe extern "C" fn sample(ctx: *mut c_void, data: *mut c_void, size: libbpf_sys::size_t) -> i32 {
    // SAFETY: libbpf passes a record of `size` bytes.
    let record = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), size as usize) };
    // SAFETY: the context is the box of `Libbpf`, which nobody else uses during the call.
    let read = unsafe { &mut *ctx.cast::<Read>() };
    read.add(record);
    0
}

impl Libbpf {
    pub fn new(ring: &MapFd) -> Result<Self> {
        let mut read = Box::<Read>::default();
        let ctx = std::ptr::from_mut(read.as_mut()).cast();
        // SAFETY: the descriptor is a ring's; the context outlives the ring buffer, which `Drop` frees.
        let ring =
            unsafe { libbpf_sys::ring_buffer__new(ring.as_raw_fd(), Some(sample), ctx, std::ptr::null()) };
        let ring = NonNull::new(ring).ok_or("ring_buffer__new failed")?;
        Ok(Self { ring, read })
    }
}

impl Drop for Libbpf {
    fn drop(&mut self) {
        // SAFETY: made by `ring_buffer__new`, freed once.
        unsafe { libbpf_sys::ring_buffer__free(self.ring.as_ptr()) };
    }
}

impl Peer for Libbpf {
    fn name(&self) -> &'static str {
        "libbpf"
    }

    fn wait(&mut self, _: Wait) -> Result<()> {
        // SAFETY: the ring buffer is alive. This also reads, as is its way.
        match unsafe { libbpf_sys::ring_buffer__poll(self.ring.as_ptr(), 5000) } {
            // 0 is a time-out, or a wake-up for a record that is not finished.
            n if n < 0 => Err("ring_buffer__poll failed".into()),
            _ => Ok(()),
        }
    }

    fn drain(&mut self, _: Wait) -> Read {
        if self.read.records == 0 {
            // SAFETY: the ring buffer is alive.
            unsafe { libbpf_sys::ring_buffer__consume(self.ring.as_ptr()) };
        }
        std::mem::take(self.read.as_mut())
    }
}

pub struct Aya {
    ring: RingBuf<MapData>,
    watch: Watch,
}

impl Aya {
    pub fn new(ring: &MapFd) -> Result<Self> {
        let map = MapData::from_fd(ring.try_clone()?.into())?;
        let ring = RingBuf::try_from(Map::RingBuf(map))?;
        // SAFETY: the ring owns the descriptor and is open.
        let watch = Watch::new(
            unsafe { std::os::fd::BorrowedFd::borrow_raw(ring.as_raw_fd()) },
            epoll::EventFlags::empty(),
        )?;
        Ok(Self { ring, watch })
    }
}

impl Peer for Aya {
    fn name(&self) -> &'static str {
        "aya"
    }

    fn wait(&mut self, _: Wait) -> Result<()> {
        self.watch.wait()
    }

    fn drain(&mut self, _: Wait) -> Read {
        let mut read = Read::default();
        while let Some(record) = self.ring.next() {
            read.add(&record);
        }
        read
    }
}
