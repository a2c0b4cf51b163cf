//! An OTLP receiver that misbehaves on command, and counts what it takes.
//!
//! A test says what happens to each request: by a script, by a closure, or at random. Every item of a request carries a
//! number ([`crate::generate`] puts it there), so that the [`Log`] tells how often each one arrived.
//!
//! | fault | how |
//! |---|---|
//! | statuses, headers, bodies | [`Behaviour::answer`], [`answers`] |
//! | slow, cut, reset, silent | [`Behaviour::slowly`], [`Behaviour::cut`], [`End`] |
//! | nothing that a client can talk to | [`Behaviour::raw`], [`Deaf`], [`Security::HangUp`], [`gone`] |
//! | TLS | [`tls`] |
//! | gRPC | [`grpc`] |

use std::hash::{BuildHasher, RandomState};
use std::net::{SocketAddr, TcpListener, TcpStream};

pub mod answers;
mod behaviour;
pub mod grpc;
mod received;
mod server;
pub mod tls;

pub use behaviour::{Behaviour, End};
pub use received::{Log, NUMBER, Received};
pub use server::{Head, Options, Security, Server};

/// Behaviours one after the other, and acceptance after the last.
pub fn script<H, B: Clone + Default>(behaviours: Vec<B>) -> impl FnMut(&H) -> B {
    let mut behaviours = behaviours.into_iter();
    move |_| behaviours.next().unwrap_or_default()
}

/// Acceptance, except that `share` of all requests meet one of `faults`; equal seeds, equal sequences.
pub fn at_random<H, B: Clone + Default>(seed: u64, share: f64, faults: Vec<B>) -> impl FnMut(&H) -> B {
    let mut random = Random(seed);
    move |_| {
        let unlucky = random.fraction() < share;
        let fault = (random.fraction() * faults.len() as f64) as usize;
        faults.get(fault).filter(|_| unlucky).cloned().unwrap_or_default()
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    /// In 0..1.
    fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) as f64 / u64::MAX as f64
    }
}

/// A port that takes no more connections: its backlog is full, and nobody accepts.
#[derive(Debug)]
pub struct Deaf {
    listener: TcpListener,
    _waiting: TcpStream,
}

impl Deaf {
    /// Listens, and fills the backlog.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        // A backlog of 0 has room for one connection.
        rustix::net::listen(&listener, 0).expect("a smaller backlog");
        let address = listener.local_addr().expect("an address");
        Self { listener, _waiting: TcpStream::connect(address).expect("room for one") }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("an address")
    }
}

/// An address at which nobody listens. Whoever takes a free port of 127.0.0.1 meanwhile does not take this one.
pub fn gone() -> SocketAddr {
    let [a, b, ..] = RandomState::new().hash_one(0).to_le_bytes();
    let listener = TcpListener::bind(SocketAddr::from(([127, 83, a, b], 0))).expect("a port");
    listener.local_addr().expect("an address")
}
