//! Sends encoded requests, as often as OTLP allows and time permits.

use std::time::Duration;

use bytes::Bytes;

use super::http::Client;
use super::reply::Accepted;
use super::retry::{RetryPolicy, SystemTiming, Timing};
use super::transport::Transport;
use super::{Destination, Endpoint, ExportError, Failure, MAX_REQUEST, Request, Signal};

/// What became of a request that a receiver took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// What it accepted of it. What it rejected is lost, and must be counted.
    pub accepted: Accepted,
    /// How often it was sent.
    pub attempts: u32,
}

/// Sends requests of one signal to one endpoint.
#[derive(Debug)]
pub struct Exporter<T = SystemTiming> {
    signal: Signal,
    endpoint: Endpoint,
    timeout: Option<Duration>,
    policy: RetryPolicy,
    client: Client,
    timing: T,
}

impl<T: Timing> Exporter<T> {
    /// An exporter; nothing is connected before the first request. `None` where the signal is not sent there.
    ///
    /// # Errors
    ///
    /// As [`Client::new`].
    pub fn new(
        destination: &Destination,
        signal: Signal,
        policy: RetryPolicy,
        timing: T,
    ) -> Result<Option<Self>, ExportError> {
        let Destination { endpoint, timeout, .. } = destination;
        let Some(target) = destination.target(signal) else { return Ok(None) };
        let endpoint = endpoint.clone().with_target(target);
        let client = Client::new(destination)?;
        Ok(Some(Self { signal, endpoint, timeout: *timeout, policy, client, timing }))
    }

    /// Sends an encoded export request. `on_retry` hears of every failure that is tried again, with the delay.
    ///
    /// # Errors
    ///
    /// [`ExportError::RequestTooLarge`], and [`ExportError::Delivery`] where no receiver took it.
    pub fn send(
        &mut self,
        request: &[u8],
        mut on_retry: impl FnMut(&Failure, Duration),
    ) -> Result<Delivery, ExportError> {
        let signal = self.signal;
        if request.len() > MAX_REQUEST {
            return Err(ExportError::RequestTooLarge { signal, bytes: request.len(), limit: MAX_REQUEST });
        }
        let request = Request { signal, items: 0, body: Bytes::copy_from_slice(request) };
        let started = self.timing.now();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let left = self.left(started);
            // Some time for every attempt: what was waited for is also tried.
            let timeout = self.timeout.map(|timeout| timeout.min(left.max(Duration::from_secs(1))));
            let (failure, asked) = match self.client.attempt(&request, timeout, self.timing.wall()) {
                Ok(accepted) => return Ok(Delivery { accepted, attempts }),
                Err(refusal) => (refusal.failure, refusal.asked_to_wait),
            };
            let jitter = self.timing.jitter();
            let delay = asked.unwrap_or_else(|| self.policy.backoff(attempts, jitter));
            let retryable = failure.is_retryable();
            if !retryable || delay > self.left(started) {
                return Err(ExportError::Delivery {
                    signal,
                    endpoint: self.endpoint.to_string(),
                    attempts,
                    failure,
                    asked_to_wait: asked.filter(|_| retryable),
                });
            }
            on_retry(&failure, delay);
            self.timing.sleep(delay);
        }
    }

    /// What is left of the time for all attempts.
    fn left(&self, started: std::time::Instant) -> Duration {
        self.policy.total.saturating_sub(self.timing.now().saturating_duration_since(started))
    }
}

#[cfg(test)]
mod tests;
