//! Spools on a simulated disk, and on a real one.

use bytes::Bytes;

use crate::export::{Request, Signal};

mod crashes;
mod disk;

/// A request that says which one it is, with `padding` more bytes.
fn request(id: u64, padding: usize) -> Request {
    let mut body = id.to_le_bytes().to_vec();
    body.extend((0..padding).map(|at| (at as u64 ^ id) as u8));
    let signal = Signal::ALL[id as usize % 4];
    Request { signal, items: id * 3, body: Bytes::from(body) }
}

fn id_of(request: &Request) -> u64 {
    u64::from_le_bytes(*request.body.first_chunk().unwrap())
}
