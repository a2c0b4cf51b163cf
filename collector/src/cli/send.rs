//! Exporting beside sampling: one thread sends, so that a slow receiver holds nothing up.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread::{self, JoinHandle};

use collector::convert::profiles::{DEFAULT_MAX_REQUEST, ProfilesEncoder};
use collector::export::retry::{RetryPolicy, SystemTiming};
use collector::export::{Exporter, Signal, Sink};
use collector::model::Profile;

use super::one_line;

/// Requests that wait for a slow receiver; each is at most 4 MiB. Past this they are dropped and counted.
const MAX_WAITING: usize = 8;
/// Errors that are reported one by one.
const MAX_ERRORS: usize = 4;

/// Sends what is handed to it, in order.
pub struct Sender {
    queue: SyncSender<Vec<u8>>,
    thread: JoinHandle<Sent>,
    encoder: ProfilesEncoder,
    sent: Sent,
}

/// What became of the requests.
#[derive(Debug, Default)]
pub struct Sent {
    /// Requests that a receiver took.
    pub delivered: u64,
    /// Requests that are lost.
    pub failed: u64,
    /// Samples that the receiver refused.
    pub rejected: u64,
    /// The first few errors and messages, a line each.
    pub errors: Vec<String>,
}

impl Sent {
    fn error(&mut self, text: String) {
        if self.errors.len() < MAX_ERRORS && !self.errors.contains(&text) {
            self.errors.push(text);
        }
    }
}

/// A number that nobody can guess and no other run has.
pub fn random_id() -> u128 {
    let half = || u128::from(RandomState::new().hash_one(std::process::id()));
    (half() << 64 | half()).max(1)
}

impl Sender {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The system has no thread left.
    pub fn start(sinks: &[Sink]) -> io::Result<Self> {
        let (queue, requests) = mpsc::sync_channel(MAX_WAITING);
        let exporters = sinks.iter().map(exporter).collect::<io::Result<Vec<_>>>()?;
        let thread =
            thread::Builder::new().name("ebpf-export".into()).spawn(move || deliver(exporters, &requests))?;
        let encoder = ProfilesEncoder::new(random_id() as u64, DEFAULT_MAX_REQUEST);
        Ok(Self { queue, thread, encoder, sent: Sent::default() })
    }

    /// Queues a profile; what finds no room is counted as failed.
    pub fn send(&mut self, profile: &Profile) {
        let Self { queue, encoder, sent, .. } = self;
        let encoded = encoder.encode(profile, random_id().to_be_bytes(), |request| {
            match queue.try_send(request.to_vec()) {
                Ok(()) => {}
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                    sent.failed += 1;
                    sent.error(format!(
                        "a profile was dropped: {MAX_WAITING} requests already wait for the receiver"
                    ));
                }
            }
        });
        if let Err(e) = encoded {
            sent.failed += 1;
            sent.error(one_line(&e));
        }
    }

    /// Waits until everything is sent or has failed.
    pub fn finish(self) -> Sent {
        drop(self.queue);
        let mut sent = self.sent;
        match self.thread.join() {
            Ok(delivered) => {
                sent.delivered += delivered.delivered;
                sent.failed += delivered.failed;
                sent.rejected += delivered.rejected;
                delivered.errors.into_iter().for_each(|e| sent.error(e));
            }
            Err(_) => {
                sent.failed += 1;
                sent.error("the exporting thread panicked".into());
            }
        }
        sent
    }
}

fn exporter(sink: &Sink) -> io::Result<Exporter> {
    let exporter = match sink {
        Sink::Otlp(destination) => {
            Exporter::new(destination, Signal::Profiles, RetryPolicy::ONE_SHOT, SystemTiming)
                .map_err(io::Error::other)?
        }
        Sink::File(_) | Sink::Console(_) => None,
    };
    exporter.ok_or_else(|| io::Error::other("only receivers can be sent to yet"))
}

fn deliver(mut exporters: Vec<Exporter>, requests: &Receiver<Vec<u8>>) -> Sent {
    let mut sent = Sent::default();
    for request in requests {
        for exporter in &mut exporters {
            match exporter.send(&request, |_, _| {}) {
                Ok(delivery) => {
                    sent.delivered += 1;
                    sent.rejected += delivery.accepted.rejected;
                    if let Some(message) = delivery.accepted.message {
                        sent.error(format!("the receiver says: {message}"));
                    }
                }
                Err(e) => {
                    sent.failed += 1;
                    sent.error(one_line(&e));
                }
            }
        }
    }
    sent
}
