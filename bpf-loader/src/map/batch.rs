//! Many elements in a call (Linux 5.6), or one by one where the kernel or the type of map has no batches.

use bpf_sys::map::{self, BatchCursor, BatchRead};
use bpf_sys::{Errno, Error as SysError, MapFd};
use zerocopy::IntoBytes;

use super::Pod;
use super::keys::KeyBytes;
use super::typed::Table;
use crate::error::{Error, Result};

/// A walk over the elements of a map, many at a time.
///
/// Elements that programs add or remove meanwhile may or may not appear.
#[derive(Debug)]
pub struct Batches<'m, K, V> {
    walk: Walk<'m>,
    keys: Vec<K>,
    /// `stride` for each key.
    values: Vec<V>,
    stride: usize,
}

impl<'m, K: Pod, V: Pod> Batches<'m, K, V> {
    /// `size` elements at a time, at most the map's capacity. The value of each is `stride` of `V`.
    pub(super) fn new(fd: &'m MapFd, stride: usize, size: usize, delete: bool) -> Self {
        let size = size.clamp(1, capacity(fd));
        let walk = Walk { fd, cursor: BatchCursor::new(fd), size, delete, started: false, one_by_one: None };
        Self { walk, keys: vec![K::new_zeroed(); size], values: vec![V::new_zeroed(); size * stride], stride }
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
            let (keys, values) = (self.keys.as_mut_slice(), self.values.as_mut_slice());
            match self.walk.read(keys.as_mut_bytes(), values.as_mut_bytes())? {
                Some(count) => break count,
                None => {
                    self.keys.resize(self.walk.size, K::new_zeroed());
                    self.values.resize(self.walk.size * self.stride, V::new_zeroed());
                }
            }
        };
        let elements = self.keys.get(..count).zip(self.values.get(..count * self.stride));
        Ok(elements.filter(|_| count > 0))
    }
}

/// The walk, whatever the elements are.
#[derive(Debug)]
struct Walk<'m> {
    fd: &'m MapFd,
    cursor: BatchCursor,
    /// Elements that are read at once.
    size: usize,
    delete: bool,
    started: bool,
    /// The walk where there are no batches.
    one_by_one: Option<KeyBytes<'m>>,
}

impl Walk<'_> {
    /// Fills the buffers for `size` elements; says how far. `None`: `size` has grown, and so shall they.
    fn read(&mut self, keys: &mut [u8], values: &mut [u8]) -> Result<Option<usize>> {
        loop {
            if self.one_by_one.is_some() {
                return self.read_one_by_one(keys, values).map(Some);
            }
            let read = if self.delete { map::lookup_and_delete_batch } else { map::lookup_batch };
            match read(self.fd, &mut self.cursor, keys, values, 0) {
                Ok(BatchRead { count: 0, end: false }) => {}
                Ok(read) => {
                    self.started = true;
                    return Ok(Some(read.count as usize));
                }
                Err(error) if !self.started && has_no_batches(error) => {
                    self.one_by_one = Some(KeyBytes::new(self.fd));
                }
                Err(error) if error.errno() == Some(Errno::ENOSPC) && self.size < capacity(self.fd) => {
                    self.size = (self.size * 2).min(capacity(self.fd));
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Fills the buffers from single lookups; says how far.
    fn read_one_by_one(&mut self, keys: &mut [u8], values: &mut [u8]) -> Result<usize> {
        let Some(walk) = &mut self.one_by_one else { return Ok(0) };
        let mut count = 0;
        let (key_size, value_size) = (keys.len() / self.size, values.len() / self.size);
        let places = keys.chunks_exact_mut(key_size.max(1)).zip(values.chunks_exact_mut(value_size.max(1)));
        for (to_key, to_value) in places {
            let key = loop {
                let Some(key) = walk.next().transpose()? else { return Ok(count) };
                if map::lookup(self.fd, key, to_value, 0)? {
                    break key;
                }
            };
            if self.delete {
                map::delete(self.fd, key)?;
            }
            if key.len() != to_key.len() {
                return Err(Box::new(Error::Internal("a key of another size than its map's")));
            }
            to_key.copy_from_slice(key);
            count += 1;
        }
        Ok(count)
    }
}

fn capacity(fd: &MapFd) -> usize {
    fd.max_entries().max(1) as usize
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
    match map::delete_batch(&table.fd, keys.as_bytes(), 0) {
        Err(error) if has_no_batches(error) => delete_each(&table.fd, keys),
        other => Ok(other?),
    }
}

fn delete_each<K: Pod>(fd: &MapFd, keys: &[K]) -> Result<()> {
    let missing = SysError::Call { call: "bpf(BPF_MAP_DELETE_ELEM)", errno: Errno::ENOENT };
    each(keys.iter(), |key| if map::delete(fd, key.as_bytes())? { Ok(()) } else { Err(missing) })
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

/// What a kernel without batches does, on one that has them. Needs CAP_BPF.
#[cfg(test)]
mod tests {
    use bpf_sys::MapType;
    use bpf_sys::map::MapCreate;

    use super::super::Keys;
    use super::*;

    fn hash_of_ten() -> Option<MapFd> {
        let map_type = MapType::HASH;
        let hash = MapCreate { map_type, key_size: 4, value_size: 8, max_entries: 10, ..Default::default() };
        match map::create(&hash) {
            Ok(fd) => {
                for key in 0..10u32 {
                    map::update(&fd, &key.to_ne_bytes(), &u64::from(key * 3).to_ne_bytes(), 0).unwrap();
                }
                Some(fd)
            }
            Err(e) if e.errno() == Some(Errno::EPERM) => {
                eprintln!("SKIP needs CAP_BPF");
                None
            }
            Err(e) if e.errno() == Some(Errno::ENOSYS) && std::env::var_os("EMULATED").is_some() => {
                eprintln!("SKIP the emulator has no bpf(2)");
                None
            }
            Err(e) => panic!("{e}"),
        }
    }

    #[test]
    fn one_by_one_finds_what_a_batch_finds() {
        let Some(fd) = hash_of_ten() else { return };
        for delete in [false, true] {
            let mut batches = Batches::<u32, u64>::new(&fd, 1, 4, delete);
            batches.walk.one_by_one = Some(KeyBytes::new(&fd));
            let (mut found, mut sizes) = (Vec::new(), Vec::new());
            while let Some((keys, values)) = batches.next().unwrap() {
                sizes.push(keys.len());
                found.extend(keys.iter().copied().zip(values.iter().copied()));
            }
            found.sort_unstable();
            assert_eq!(sizes, [4, 4, 2]);
            assert!(found.into_iter().eq((0..10).map(|key| (key, u64::from(key) * 3))));
        }
        assert_eq!(Keys::<u32>::new(&fd).count(), 0, "all were deleted");
    }

    #[test]
    fn an_error_in_the_middle_has_its_place() {
        let Some(fd) = hash_of_ten() else { return };
        let error = delete_each(&fd, &[1u32, 2, 2, 3]).unwrap_err();
        let Error::Kernel(SysError::Batch { errno: Errno::ENOENT, done: 2, .. }) = *error else {
            panic!("{error}");
        };
    }
}
