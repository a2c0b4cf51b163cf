//! Names of the kernel's functions: what of `/proc/kallsyms` was asked for, and when to read it again.

use std::ops::Range;
use std::sync::Arc;

use object::Endianness;

use super::elf::build_id_in_notes;
use super::error::SymbolizeError;
use super::host::{Host, read_limited};
use super::host_symbolizer::missed;
use super::kernel::KernelSymbols;
use super::sideband::Record;
use super::{Miss, Resolved, line_of};
use crate::model::{FrameKind, Mapping};
use crate::sorted::SortedMap;

/// Nanoseconds between two readings of `/proc/kallsyms`: at first, and after many that found nothing new.
const RETRY: (u64, u64) = (5_000_000_000, 300_000_000_000);

/// What a record says of the kernel's code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KernelChange {
    /// Code came or went there.
    Code(Range<u64>),
    /// Nobody knows which.
    Unknown,
}

impl KernelChange {
    /// That of a record.
    pub fn of(record: &Record<'_>) -> Option<Self> {
        match record {
            Record::KernelSymbol { address, length, .. } => {
                Some(Self::Code(*address..address.saturating_add(u64::from(*length).max(1))))
            }
            Record::Lost { .. } => Some(Self::Unknown),
            _ => None,
        }
    }
}

/// Kernel symbols, and when to read them again.
pub(crate) struct KernelNames {
    host: Host,
    symbols: Option<Result<KernelSymbols, Box<SymbolizeError>>>,
    now: u64,
    read_at: u64,
    retry: u64,
    /// A record told that code came or went.
    stale: bool,
    build_ids: SortedMap<Arc<str>, Option<Arc<[u8]>>>,
}

impl KernelNames {
    /// Nothing known yet.
    pub fn new(host: Host) -> Self {
        Self { host, symbols: None, now: 0, read_at: 0, retry: 0, stale: false, build_ids: SortedMap::new() }
    }

    /// Begins a batch of addresses; `now` is in nanoseconds of a clock that only goes forward.
    pub fn begin_window(&mut self, now: u64) {
        self.now = now;
    }

    /// New code can lie where old one was. What is elsewhere keeps its name: to read all names takes 20 ms.
    pub fn change(&mut self, change: &KernelChange) {
        self.stale = true;
        match (change, &mut self.symbols) {
            (KernelChange::Code(addresses), Some(Ok(symbols))) => symbols.forget(addresses.clone()),
            (KernelChange::Unknown, Some(Ok(symbols))) => symbols.forget_programs(),
            _ => {}
        }
    }

    /// Looks up, in one reading of `/proc/kallsyms`, the addresses that have no name yet. Give all of a window at once:
    /// another reading is only made after a while.
    pub fn prepare(&mut self, mut addresses: Vec<u64>) {
        let known =
            |address: &u64| matches!(&self.symbols, Some(Ok(symbols)) if symbols.find(*address).is_some());
        addresses.retain(|address| !known(address));
        if addresses.is_empty() || matches!(&self.symbols, Some(Err(_))) {
            return;
        }
        if self.symbols.is_some() && !self.stale && self.now.saturating_sub(self.read_at) < self.retry {
            return;
        }
        addresses.sort_unstable();
        addresses.dedup();
        let read = KernelSymbols::read(&self.host, &addresses);
        let found = read.as_ref().is_ok_and(|symbols| !symbols.is_empty());
        let (first, last) = RETRY;
        self.retry = if found { first } else { (self.retry * 2).clamp(first, last) };
        self.read_at = self.now;
        self.stale = false;
        match (&mut self.symbols, read) {
            (Some(Ok(symbols)), Ok(read)) => symbols.absorb(read),
            (symbols, read) => *symbols = Some(read),
        }
    }

    /// Names one address.
    pub fn resolve(&mut self, address: u64) -> Resolved {
        self.prepare(vec![address]);
        let symbols = match &self.symbols {
            Some(Ok(symbols)) => symbols,
            Some(Err(error)) if matches!(**error, SymbolizeError::KernelAddressesHidden) => {
                return missed(FrameKind::Kernel, None, address, Miss::KernelHidden);
            }
            _ => return missed(FrameKind::Kernel, None, address, Miss::KernelUnknown),
        };
        let Some(function) = symbols.find(address) else {
            return missed(FrameKind::Kernel, None, address, Miss::KernelUnknown);
        };
        let path: Arc<str> = function.module.map_or("[kernel]".into(), |module| format!("[{module}]").into());
        let build_id = self.build_ids.entry(Arc::clone(&path));
        let build_id = build_id.or_insert_with(|| read_build_id(&self.host, function.module));
        let mapping = Mapping {
            path,
            build_id: build_id.clone(),
            memory_start: function.range_start,
            memory_limit: function.range_end,
            file_offset: 0,
        };
        let lines = Arc::from([line_of(function.name.to_owned())]);
        Resolved { kind: FrameKind::Kernel, mapping: Some(mapping), address, lines, miss: None }
    }

    /// Heap memory, in bytes.
    pub fn memory(&self) -> usize {
        self.symbols.as_ref().and_then(|symbols| symbols.as_ref().ok()).map_or(0, KernelSymbols::memory)
    }

    /// Why there are no names, once one was asked for.
    pub fn error(&self) -> Option<&SymbolizeError> {
        self.symbols.as_ref()?.as_ref().err().map(Box::as_ref)
    }
}

/// The build id of the kernel, or of a module.
fn read_build_id(host: &Host, module: Option<&Arc<str>>) -> Option<Arc<[u8]>> {
    let path = match module {
        None => host.sys.join("kernel/notes"),
        Some(module) if module.as_bytes().contains(&b'/') => return None,
        Some(module) => host.sys.join("module").join(&**module).join("notes/.note.gnu.build-id"),
    };
    let notes = read_limited(&path, 64 * 1024).ok()?;
    build_id_in_notes(&notes, Endianness::default()).map(Into::into)
}
