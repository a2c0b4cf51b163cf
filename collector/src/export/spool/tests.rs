//! Spools on a simulated disk, and on a real one.

use bytes::Bytes;

use crate::export::{Request, Signal};

mod bounds;
mod crashes;
mod damage;
mod disk;
mod files;

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

/// Takes all that a spool gives.
fn drain(spool: &super::Spool) -> Vec<u64> {
    let mut ids = Vec::new();
    while let Some((record, request)) = spool.oldest().unwrap() {
        let id = id_of(&request);
        assert_eq!(request, self::request(id, request.body.len() - 8));
        spool.acknowledge(record).unwrap();
        ids.push(id);
    }
    ids
}
