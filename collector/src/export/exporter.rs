//! Sends encoded requests, as often as OTLP allows and time permits.

use std::time::Duration;

use super::gzip::compress;
use super::http::{Client, Response};
use super::reply::{Accepted, parse_accepted, parse_error};
use super::retry::{RetryPolicy, SystemTiming, Timing, parse_retry_after};
use super::{Compression, Destination, Endpoint, ExportError, Failure, MAX_REQUEST, Signal};

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
    compression: Compression,
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
        let Destination { endpoint, compression, timeout, .. } = destination;
        let Some(target) = destination.target(signal) else { return Ok(None) };
        let endpoint = endpoint.clone().with_target(target);
        let client = Client::new(destination)?;
        Ok(Some(Self {
            signal,
            endpoint,
            compression: *compression,
            timeout: *timeout,
            policy,
            client,
            timing,
        }))
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
        let compressed = (self.compression == Compression::Gzip).then(|| compress(request));
        let body = compressed.as_deref().unwrap_or(request);
        let started = self.timing.now();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let left = self.left(started);
            // Some time for every attempt: what was waited for is also tried.
            let timeout = self.timeout.map(|timeout| timeout.min(left.max(Duration::from_secs(1))));
            let (failure, asked) = match self.client.post(&self.endpoint.target(), body, timeout) {
                Ok(Response { status: 200..=299, body, is_protobuf, .. }) => {
                    let accepted = if is_protobuf { parse_accepted(&body) } else { Accepted::default() };
                    return Ok(Delivery { accepted, attempts });
                }
                Ok(Response { status, retry_after, body, is_protobuf }) => {
                    let asked = retry_after.and_then(|value| parse_retry_after(&value, self.timing.wall()));
                    (Failure::Status { code: status, message: parse_error(&body, is_protobuf) }, asked)
                }
                Err(failure) => (failure, None),
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
