//! Many elements in a call (Linux 5.6), or one by one where the kernel or the type of map has no batches.

use bpf_sys::map::{self, BatchCursor, BatchRead};
use bpf_sys::{Errno, Error as SysError};
use zerocopy::IntoBytes;

use super::typed::Table;
use super::{Keys, Pod};
use crate::error::Result;

/// A walk over the elements of a map, many at a time.
///
/// Elements that programs add or remove meanwhile may or may not appear.
#[derive(Debug)]
pub struct Batches<'m, K, V> {
    table: &'m Table<K, V>,
    cursor: BatchCursor,
    keys: Vec<K>,
    values: Vec<V>,
    delete: bool,
    started: bool,
    /// The walk where there are no batches.
    one_by_one: Option<Keys<'m, K>>,
}

impl<'m, K: Pod, V: Pod> Batches<'m, K, V> {
    /// `size` elements at a time, at most the map's capacity.
    pub(super) fn new(table: &'m Table<K, V>, size: usize, delete: bool) -> Self {
        let size = size.clamp(1, capacity(table));
        Self {
            cursor: BatchCursor::new(&table.fd),
            keys: vec![K::new_zeroed(); size],
            values: vec![V::new_zeroed(); size],
            table,
            delete,
            started: false,
            one_by_one: None,
        }
    }

    /// The next elements; `None` at the end.
    ///
    /// # Errors
    ///
    /// What the kernel says. As many elements as asked for are too few when one bucket of a hash table has more: the walk
    /// takes more memory then.
    #[expect(clippy::should_implement_trait, reason = "lends from the walk, which an Iterator cannot")]
    pub fn next(&mut self) -> Result<Option<(&[K], &[V])>> {
        let count = loop {
            if let Some(keys) = &mut self.one_by_one {
                break one_by_one(self.table, keys, &mut self.keys, &mut self.values, self.delete)?;
            }
            match self.read() {
                Ok(BatchRead { count: 0, end: false }) => {}
                Ok(read) => {
                    self.started = true;
                    break read.count as usize;
                }
                Err(error) if !self.started && has_no_batches(error) => {
                    self.one_by_one = Some(self.table.keys());
                }
                Err(error)
                    if error.errno() == Some(Errno::ENOSPC) && self.keys.len() < capacity(self.table) =>
                {
                    let size = (self.keys.len() * 2).min(capacity(self.table));
                    self.keys.resize(size, K::new_zeroed());
                    self.values.resize(size, V::new_zeroed());
                }
                Err(error) => return Err(error.into()),
            }
        };
        let elements = self.keys.get(..count).zip(self.values.get(..count));
        Ok(elements.filter(|_| count > 0))
    }

    fn read(&mut self) -> bpf_sys::Result<BatchRead> {
        let read = if self.delete { map::lookup_and_delete_batch } else { map::lookup_batch };
        let (keys, values) = (self.keys.as_mut_slice(), self.values.as_mut_slice());
        read(&self.table.fd, &mut self.cursor, keys.as_mut_bytes(), values.as_mut_bytes(), 0)
    }
}

fn capacity<K, V>(table: &Table<K, V>) -> usize {
    table.fd.max_entries().max(1) as usize
}

/// Fills the buffers from single lookups; says how far.
fn one_by_one<K: Pod, V: Pod>(
    table: &Table<K, V>,
    walk: &mut Keys<'_, K>,
    keys: &mut [K],
    values: &mut [V],
    delete: bool,
) -> Result<usize> {
    let mut count = 0;
    for (to_key, to_value) in keys.iter_mut().zip(values) {
        let (key, value) = loop {
            let Some(key) = walk.next().transpose()? else { return Ok(count) };
            if let Some(value) = table.get(&key, 0)? {
                break (key, value);
            }
        };
        if delete {
            table.delete(&key)?;
        }
        (*to_key, *to_value) = (key, value);
        count += 1;
    }
    Ok(count)
}

/// The command is unknown, or the type of map has no batches of this kind.
fn has_no_batches(error: SysError) -> bool {
    matches!(error.errno(), Some(Errno::EINVAL | Errno::ENOTSUPP | Errno::EOPNOTSUPP))
        && !matches!(error, SysError::Batch { done: 1.., .. })
}

pub(super) fn update<K: Pod, V: Pod>(
    table: &Table<K, V>,
    keys: &[K],
    values: &[V],
    flags: u64,
) -> Result<()> {
    match map::update_batch(&table.fd, keys.as_bytes(), values.as_bytes(), flags) {
        Err(error) if has_no_batches(error) => each(keys.iter().zip(values), |(key, value)| {
            map::update(&table.fd, key.as_bytes(), value.as_bytes(), flags)
        }),
        other => Ok(other?),
    }
}

pub(super) fn delete<K: Pod, V: Pod>(table: &Table<K, V>, keys: &[K]) -> Result<()> {
    let missing = SysError::Call { call: "bpf(BPF_MAP_DELETE_ELEM)", errno: Errno::ENOENT };
    match map::delete_batch(&table.fd, keys.as_bytes(), 0) {
        Err(error) if has_no_batches(error) => {
            each(
                keys.iter(),
                |key| {
                    if map::delete(&table.fd, key.as_bytes())? { Ok(()) } else { Err(missing) }
                },
            )
        }
        other => Ok(other?),
    }
}

/// Calls for each, and tells an error's place as a batch does.
fn each<T>(of: impl Iterator<Item = T>, mut call: impl FnMut(T) -> bpf_sys::Result<()>) -> Result<()> {
    for (done, element) in of.enumerate() {
        call(element).map_err(|error| match error {
            SysError::Call { call, errno } => SysError::Batch { call, errno, done: done as u32 },
            other => other,
        })?;
    }
    Ok(())
}
