//! Files that a spool finds.

use super::input::Input;
use super::memory::peak_of;
use bytes::Bytes;
use collector::export::spool::{Spool, SpoolError, Volume, VolumeFile};
use collector::export::{Request, Signal};
use flate2::Crc;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

const SEGMENT_HEADER: usize = 36;
const RECORD_HEADER: usize = 32;
/// No spool writes so many records, but a file can claim it. Later ones are taken for damage.
const LAST_RECORD: u64 = u64::MAX >> 2;
/// Enough that what is appended at the end always has room.
const MAX_BYTES: u64 = 1 << 20;

/// Segment files: a byte for the number and for what to repair, a length, and the content.
pub fn export_spool(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut files = Vec::new();
    while !input.is_empty() && files.len() < 64 {
        let (number, repair, len) = (u64::from(input.u8()), input.u8(), usize::from(input.u16()));
        let mut content = input.bytes(len).to_vec();
        if repair & 1 != 0 {
            repair_checksums(&mut content, number, repair & 2 != 0);
        }
        files.push((format!("{number:016x}.spool"), content));
    }
    let ((), peak) = peak_of(|| use_spool(&Memory::new(files)));
    // Nothing is reserved for what a length claims.
    assert!(peak <= (1 << 20) + 16 * bytes.len(), "{peak} bytes of heap for {} of input", bytes.len());
}

fn use_spool(memory: &Memory) {
    let size = memory.size();
    let Some(spool) = open(memory) else { return };
    let most = size / RECORD_HEADER + 1;
    let found = drain(&spool, most);
    assert!(found.iter().map(Bytes::len).sum::<usize>() <= size, "more than there was");
    // Whatever was there, what is appended now comes back.
    let bodies: Vec<Bytes> = (1..4).map(|n| Bytes::from(vec![n; 100])).collect();
    let own: Vec<Request> =
        bodies.iter().map(|body| Request { signal: Signal::Logs, items: 1, body: body.clone() }).collect();
    let appended = spool.append(&own).expect("memory cannot fail");
    assert!(appended.dropped.is_empty());
    if appended.records.iter().any(|record| record.0 > LAST_RECORD) {
        return;
    }
    drop(spool);
    let spool = open(memory).expect("what was opened once opens again");
    assert_eq!(drain(&spool, 3), bodies);
    drop(spool);
    assert_eq!(memory.size(), 0, "an empty spool has no files");
}

fn open(memory: &Memory) -> Option<Spool> {
    match Spool::open_on(Box::new(memory.clone()), MAX_BYTES, MAX_BYTES).map_err(|e| *e) {
        Ok((spool, recovered)) => {
            let waiting: u64 = recovered.held.waiting.iter().map(|(_, amount)| amount.requests).sum();
            assert_eq!(spool.stats().waiting, waiting);
            assert!(spool.stats().bytes <= MAX_BYTES && spool.stats().bytes >= memory.size() as u64);
            Some(spool)
        }
        Err(SpoolError::Version { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// All bodies, of which there are `most`.
fn drain(spool: &Spool, most: usize) -> Vec<Bytes> {
    let mut bodies = Vec::new();
    while let Some((record, request)) = spool.oldest().expect("memory cannot fail") {
        spool.acknowledge(record).expect("it is the oldest");
        bodies.push(request.body);
        assert!(bodies.len() <= most, "it never ends");
    }
    bodies
}

/// Makes the checksums of headers, and of bodies, right, so that more than them is tested.
fn repair_checksums(content: &mut [u8], number: u64, bodies: bool) {
    fn put(content: &mut [u8], at: usize, crc: &Crc) {
        if let Some(place) = content.get_mut(at..at + 4) {
            place.copy_from_slice(&crc.sum().to_le_bytes());
        }
    }
    if content.len() < SEGMENT_HEADER {
        return;
    }
    let mut crc = Crc::new();
    content[8..16].copy_from_slice(&number.to_le_bytes());
    crc.update(&content[..SEGMENT_HEADER - 4]);
    put(content, SEGMENT_HEADER - 4, &crc);
    let mut rest = &mut content[SEGMENT_HEADER..];
    while rest.len() >= RECORD_HEADER {
        let length = rest.first_chunk().map_or(0, |length| u32::from_le_bytes(*length) as usize);
        let end = RECORD_HEADER.saturating_add(length).min(rest.len());
        let (record, others) = rest.split_at_mut(end);
        if bodies && length > 0 {
            let mut crc = Crc::new();
            crc.update(&record[RECORD_HEADER..]);
            put(record, 4, &crc);
        }
        let mut crc = Crc::new();
        crc.update(&number.to_le_bytes());
        crc.update(&record[..RECORD_HEADER - 4]);
        put(record, RECORD_HEADER - 4, &crc);
        rest = others;
    }
}

/// A directory in memory.
#[derive(Clone)]
struct Memory(Arc<Mutex<BTreeMap<String, Arc<Contents>>>>);

struct Contents(Mutex<Vec<u8>>);

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    fn new(files: Vec<(String, Vec<u8>)>) -> Self {
        let files = files.into_iter().map(|(name, content)| (name, Arc::new(Contents(Mutex::new(content)))));
        Self(Arc::new(Mutex::new(files.collect())))
    }

    fn size(&self) -> usize {
        lock(&self.0).values().map(|file| lock(&file.0).len()).sum()
    }
}

impl Volume for Memory {
    fn path(&self) -> &Path {
        Path::new("/memory")
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(lock(&self.0).keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn VolumeFile>> {
        let file = Arc::new(Contents(Mutex::new(Vec::new())));
        match lock(&self.0).insert(name.to_owned(), file.clone()) {
            Some(_) => panic!("{name} exists"),
            None => Ok(file),
        }
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn VolumeFile>> {
        Ok(lock(&self.0).get(name).ok_or(io::ErrorKind::NotFound)?.clone())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        lock(&self.0).remove(name).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }
}

impl VolumeFile for Contents {
    fn size(&self) -> io::Result<u64> {
        Ok(lock(&self.0).len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = lock(&self.0);
        let from = content.get(offset as usize..).unwrap_or_default();
        let read = from.len().min(buffer.len());
        buffer[..read].copy_from_slice(&from[..read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut content = lock(&self.0);
        assert_eq!(offset, content.len() as u64, "a spool only appends");
        content.extend_from_slice(bytes);
        Ok(())
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        lock(&self.0).truncate(size as usize);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
