//! Walking over the keys of a map.

use std::marker::PhantomData;

use bpf_sys::{MapFd, map};

use super::typed::Pod;
use crate::error::{Error, Result};

/// A walk over the keys of a map, as bytes.
///
/// When the key that a walk stands at is deleted, the kernel starts over. So the walk stands one key ahead of what it
/// gives: who deletes each key that he is given disturbs nothing. Others who delete may make it start over, and keys come
/// twice; after twice as many keys as the map can hold, and a thousand more, it gives up.
#[derive(Debug)]
pub(super) struct KeyBytes<'m> {
    fd: &'m MapFd,
    ahead: Ahead,
    next: Vec<u8>,
    current: Vec<u8>,
    steps: u64,
}

#[derive(Debug)]
enum Ahead {
    /// Nothing was asked yet.
    Start,
    /// `next` is the next key.
    Key,
    /// That is what the next call gives.
    Failed(bpf_sys::Error),
    End,
}

/// For maps so small that programs may change all of them while a walk takes a step.
const SLACK: u64 = 1000;

impl<'m> KeyBytes<'m> {
    pub(super) fn new(fd: &'m MapFd) -> Self {
        let key = vec![0; fd.key_size()];
        Self { fd, ahead: Ahead::Start, next: key.clone(), current: key, steps: 0 }
    }

    pub(super) fn next(&mut self) -> Option<Result<&[u8]>> {
        if matches!(self.ahead, Ahead::Start) {
            self.look_ahead(true);
        }
        match std::mem::replace(&mut self.ahead, Ahead::End) {
            Ahead::Start | Ahead::End => None,
            Ahead::Failed(error) => Some(Err(error.into())),
            Ahead::Key => {
                let most = u64::from(self.fd.max_entries()) * 2 + SLACK;
                if self.steps == most {
                    return Some(Err(Box::new(Error::MapWalk { steps: most })));
                }
                self.steps += 1;
                std::mem::swap(&mut self.next, &mut self.current);
                self.look_ahead(false);
                Some(Ok(&self.current))
            }
        }
    }

    fn look_ahead(&mut self, first: bool) {
        let after = if first { None } else { Some(self.current.as_slice()) };
        self.ahead = match map::next_key(self.fd, after, &mut self.next) {
            Ok(true) => Ahead::Key,
            Ok(false) => Ahead::End,
            Err(error) => Ahead::Failed(error),
        };
    }
}

/// The keys of a map, in no order.
///
/// Keys that come and go meanwhile may or may not appear, and where others delete, some may appear twice. Who deletes what
/// he is given sees each once.
#[derive(Debug)]
pub struct Keys<'m, K> {
    bytes: KeyBytes<'m>,
    types: PhantomData<fn() -> K>,
}

impl<'m, K: Pod> Keys<'m, K> {
    pub(super) fn new(fd: &'m MapFd) -> Self {
        Self { bytes: KeyBytes::new(fd), types: PhantomData }
    }
}

/// Errors: those of the kernel, and [`Error::MapWalk`] when others delete so much that the walk does not end.
impl<K: Pod> Iterator for Keys<'_, K> {
    type Item = Result<K>;

    fn next(&mut self) -> Option<Result<K>> {
        let key = self.bytes.next()?;
        Some(key.and_then(|bytes| {
            K::read_from_bytes(bytes)
                .map_err(|_| Box::new(Error::Internal("a key of another size than its map's")))
        }))
    }
}
