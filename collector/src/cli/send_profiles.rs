//! Exporting profiles beside sampling.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use collector::convert::profiles::{DEFAULT_MAX_REQUEST, ProfilesEncoder};
use collector::export::config::SharedAttributes;
use collector::export::delivery::Limits;
use collector::export::pipeline::DEFAULT_FLUSH;
use collector::export::{Exporter, Request, Signal, Sink};
use collector::model::Profile;

use super::one_line;
use super::send::{Sender, Sent, Spool, random_id};

/// How long to send at the end, retries included: a person waits, and there is no other chance.
const LAST_FLUSH: Duration = Duration::from_secs(15);

/// Sends the profiles that are handed to it to all sinks.
pub struct ProfileSender {
    sender: Sender,
    encoder: ProfilesEncoder,
    flush_for: Duration,
    /// Profiles that could not be encoded.
    errors: Vec<String>,
}

impl ProfileSender {
    /// Starts the threads that send.
    ///
    /// # Errors
    ///
    /// As [`Sender::start`].
    pub fn start(
        sinks: &[Sink],
        spool: Option<Spool<'_>>,
        attributes: SharedAttributes,
    ) -> Result<Self, Box<dyn Error>> {
        let sender = Sender::start(sinks, spool, Limits::default(), Vec::new(), Exporter::start)?;
        let encoder =
            ProfilesEncoder::new(random_id() as u64, DEFAULT_MAX_REQUEST).with_attributes(attributes);
        let flush_for = if spool.is_some() { DEFAULT_FLUSH } else { LAST_FLUSH };
        Ok(Self { sender, encoder, flush_for, errors: Vec::new() })
    }

    /// As [`Sender::news`].
    pub fn news(&mut self) -> Vec<String> {
        self.sender.news()
    }

    /// Queues a profile.
    pub fn send(&mut self, profile: &Profile) {
        let Self { sender, encoder, errors, .. } = self;
        let encoded = encoder.encode(profile, random_id().to_be_bytes(), |request, items| {
            let body = Bytes::copy_from_slice(request);
            sender.push(&Request { signal: Signal::Profiles, items, body });
        });
        errors.extend(encoded.err().map(|error| one_line(&error)));
    }

    /// Sends what is left, for a bounded time.
    pub fn finish(self) -> Sent {
        Sent { errors: self.errors, ..self.sender.finish_within(self.flush_for) }
    }
}
