//! What delivery needs of a spool.

use super::stats::{Amount, PerSignal};
use super::{Request, Signal};

/// A record of a spool. Later records have larger numbers, in all runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId(pub u64);

/// Requests that are on disk now, and what is not any more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Appended {
    /// The record of each request, in order.
    pub records: Vec<RecordId>,
    /// Records that were not acknowledged and made room, oldest first; new ones too if they found none.
    pub dropped: Vec<DroppedRecord>,
}

/// A record that was dropped to make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DroppedRecord {
    /// Its number.
    pub record: RecordId,
    /// What was in it.
    pub signal: Signal,
    /// How much was in it.
    pub amount: Amount,
}

/// Why a group was not appended.
#[derive(Debug)]
pub struct AppendError {
    /// What went wrong.
    pub error: StoreError,
    /// Records that made room for it even so, oldest first.
    pub dropped: Vec<DroppedRecord>,
}

/// What a spool held when it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Records to deliver.
    pub waiting: PerSignal<Amount>,
    /// What cannot be read any more, as far as it is known what that was.
    pub unreadable: PerSignal<Amount>,
    /// What was too much for the spool's bound, and was dropped.
    pub dropped: PerSignal<Amount>,
    /// How many of the waiting requests may be delivered already: their acknowledgements were lost with the last process.
    pub possible_duplicates: u64,
    /// Bytes that are no records.
    pub damaged_bytes: u64,
}

/// Why a spool failed.
pub type StoreError = Box<dyn std::error::Error + Send + Sync>;

/// A queue on disk. One thread appends while another reads and acknowledges.
pub trait Store: Send + Sync {
    /// Appends `requests` as one group, which is on disk when this returns, whatever happens to the machine.
    ///
    /// # Errors
    ///
    /// Nothing of the group was kept, as far as can be known.
    fn append(&self, requests: &[Request]) -> Result<Appended, AppendError>;

    /// The oldest record that is not acknowledged. What cannot be read is passed over.
    ///
    /// # Errors
    ///
    /// The disk cannot be read now; it may be later.
    fn oldest(&self) -> Result<Option<(RecordId, Request)>, StoreError>;

    /// Marks the oldest record as done; nothing happens if it is already, or is gone. It need not be on disk at once:
    /// what a power cut undoes is sent again.
    ///
    /// # Errors
    ///
    /// The record may come again.
    fn acknowledge(&self, record: RecordId) -> Result<(), StoreError>;

    /// Puts acknowledgements on disk.
    ///
    /// # Errors
    ///
    /// What was acknowledged may come again.
    fn sync(&self) -> Result<(), StoreError>;
}
