//! Exporting beside sampling: one thread sends, so that a slow receiver holds nothing up.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

use bytes::Bytes;
use collector::convert::profiles::{DEFAULT_MAX_REQUEST, ProfilesEncoder};
use collector::export::config::SharedAttributes;
use collector::export::file::{ConsoleExporter, FileExporter};
use collector::export::reply::Accepted;
use collector::export::retry::{RetryPolicy, SystemTiming};
use collector::export::transport::Transport;
use collector::export::{Exporter, Request, Signal, Sink};
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
    pub fn start(sinks: &[Sink], attributes: SharedAttributes) -> io::Result<Self> {
        let (queue, requests) = mpsc::sync_channel(MAX_WAITING);
        let exporters = sinks.iter().filter_map(|sink| Out::new(sink).transpose()).collect::<Result<_, _>>();
        let exporters = exporters.map_err(io::Error::other)?;
        let thread =
            thread::Builder::new().name("ebpf-export".into()).spawn(move || deliver(exporters, &requests))?;
        let encoder =
            ProfilesEncoder::new(random_id() as u64, DEFAULT_MAX_REQUEST).with_attributes(attributes);
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

/// Where requests go.
enum Out {
    Otlp(Box<Exporter>),
    Lines(Box<dyn Transport + Send>),
}

impl Out {
    /// `None` where profiles do not go there.
    fn new(sink: &Sink) -> Result<Option<Self>, collector::export::ExportError> {
        Ok(Some(match sink {
            Sink::Otlp(destination) => {
                let policy = RetryPolicy::ONE_SHOT;
                match Exporter::new(destination, Signal::Profiles, policy, SystemTiming)? {
                    Some(exporter) => Self::Otlp(Box::new(exporter)),
                    None => return Ok(None),
                }
            }
            Sink::File(settings) => Self::Lines(Box::new(FileExporter::new(settings))),
            Sink::Console(_) => Self::Lines(Box::new(ConsoleExporter::stdout())),
        }))
    }

    fn send(&mut self, body: &Bytes) -> Result<Accepted, String> {
        match self {
            Self::Otlp(exporter) => match exporter.send(body, |_, _| {}) {
                Ok(delivery) => Ok(delivery.accepted),
                Err(e) => Err(one_line(&e)),
            },
            Self::Lines(lines) => {
                let request = Request { signal: Signal::Profiles, items: 0, body: body.clone() };
                lines
                    .attempt(&request, None, SystemTime::now())
                    .map_err(|refusal| format!("cannot write profiles: {}", refusal.failure))
            }
        }
    }
}

fn deliver(mut outs: Vec<Out>, requests: &Receiver<Vec<u8>>) -> Sent {
    let mut sent = Sent::default();
    for request in requests {
        let request = Bytes::from(request);
        for out in &mut outs {
            match out.send(&request) {
                Ok(accepted) => {
                    sent.delivered += 1;
                    sent.rejected += accepted.rejected;
                    if let Some(message) = accepted.message {
                        sent.error(format!("the receiver says: {message}"));
                    }
                }
                Err(error) => {
                    sent.failed += 1;
                    sent.error(error);
                }
            }
        }
    }
    sent
}
