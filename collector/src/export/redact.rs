//! Receivers repeat what they were sent, such as the key that they do not know. Here it must not be shown.

use bpf_loader::text;
use std::time::{Duration, SystemTime};

use super::net::proxy::Proxy;
use super::reply::{Accepted, CUT};
use super::transport::{Refusal, Transport};
use super::{Destination, Failure, Request};

/// Bytes of the shortest secret: shorter words are names of schemes, tenants and colors.
const MIN_SECRET: usize = 8;
/// Bytes of a secret that are hidden where the end of the message cuts it.
const MIN_BEGUN: usize = 4;
const HIDDEN: &str = "[redacted]";

/// What a destination is sent in confidence.
struct Secrets(Vec<String>);

impl Secrets {
    /// The words of headers and queries, names in queries included.
    fn of(destination: &Destination) -> Self {
        let mut words = Vec::new();
        let mut add = |text: &str, between: fn(char) -> bool| {
            words.extend(text.split(between).filter(|word| word.len() >= MIN_SECRET).map(str::to_owned));
        };
        destination.headers.iter().for_each(|header| add(header.value(), char::is_whitespace));
        if let Some(authorization) = destination.proxy.as_ref().and_then(Proxy::authorization) {
            add(authorization, char::is_whitespace);
        }
        for (_, query) in destination.targets.iter().filter_map(|(_, target)| target.split_once('?')) {
            add(query, |c| matches!(c, '&' | '='));
        }
        // One may be a part of another.
        words.sort_unstable_by_key(|word| std::cmp::Reverse(word.len()));
        Self(words)
    }

    fn hide(&self, message: &mut String) {
        for secret in &self.0 {
            if text::contains(message, secret) {
                *message = text::replace(message, secret, HIDDEN);
            }
            if let Some(shown) = message.strip_suffix(CUT) {
                let mut begins = (MIN_BEGUN..secret.len()).rev().filter_map(|end| secret.get(..end));
                if let Some(rest) = begins.find_map(|begun| shown.strip_suffix(begun)) {
                    *message = format!("{rest}{HIDDEN}{CUT}");
                }
            }
        }
    }
}

/// A transport whose receiver's words are shown without secrets.
pub(super) struct Redacted<T: ?Sized> {
    secrets: Secrets,
    transport: Box<T>,
}

impl<T: Transport + ?Sized> Redacted<T> {
    pub(super) fn new(destination: &Destination, transport: Box<T>) -> Self {
        Self { secrets: Secrets::of(destination), transport }
    }
}

impl<T: Transport + ?Sized> Transport for Redacted<T> {
    fn attempt(
        &mut self,
        request: &Request,
        timeout: Option<Duration>,
        wall: SystemTime,
    ) -> Result<Accepted, Refusal> {
        let mut outcome = self.transport.attempt(request, timeout, wall);
        let message = match &mut outcome {
            Ok(accepted) => accepted.message.as_mut(),
            Err(refusal) => match &mut *refusal.failure {
                Failure::Status { message, .. } | Failure::Grpc { message, .. } => message.as_mut(),
                _ => None,
            },
        };
        if let Some(message) = message {
            self.secrets.hide(message);
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::Signal;
    use crate::export::config::Header;
    use crate::export::http::tests::server::{Answer, answer, serve};
    use crate::export::http::tests::{destination, request};
    use crate::export::reply::message;

    fn secrets(url: &str) -> Destination {
        let mut destination = destination(url);
        destination.headers = [("authorization", "Bearer s3cret-é-token"), ("x-scope", "eu")]
            .map(|(name, value)| Header::new(name, value).unwrap())
            .to_vec();
        destination.proxy = Proxy::parse("http://me:password@proxy").ok();
        destination
    }

    #[test]
    fn words_of_headers_and_queries_are_hidden() {
        let secrets = Secrets::of(&secrets("http://h/?key=query-s3cret&a=b"));
        for (said, shown) in [
            ("bad token s3cret-é-token.", "bad token [redacted]."),
            ("Bearer s3cret-é-token of eu", "Bearer [redacted] of eu"),
            ("/v1/logs?key=query-s3cret&a=b", "/v1/logs?key=[redacted]&a=b"),
            ("bWU6cGFzc3dvcmQ=", if cfg!(feature = "proxy") { "[redacted]" } else { "bWU6cGFzc3dvcmQ=" }),
            ("nothing of it", "nothing of it"),
        ] {
            let mut message = said.to_owned();
            secrets.hide(&mut message);
            assert_eq!(message, shown);
        }
    }

    #[test]
    fn what_the_end_of_a_message_cuts_is_hidden_too() {
        let secrets = Secrets::of(&secrets("http://h"));
        for length in 0..400 {
            let mut shown =
                message(&format!("{} s3cret-é-token {}", "x".repeat(length), "y".repeat(400))).unwrap();
            secrets.hide(&mut shown);
            assert!(!shown.contains("s3cr"), "{shown}");
        }
    }

    #[test]
    fn receivers_that_repeat_secrets_are_shown_without() {
        let protobuf = "Content-Type: application/x-protobuf\r\n";
        let (url, _requests) = serve(vec![
            Answer::Keep(answer("401 x", "Content-Type: text/plain\r\n", "bad s3cret-é-token".as_bytes())),
            Answer::Keep(answer("200 x", protobuf, "\x0a\x14\x12\x12s3cret-é-token :(".as_bytes())),
        ]);
        let mut destination = secrets(&url);
        destination.proxy = None;
        let mut transport = crate::export::transport::new(&destination).unwrap();
        let mut attempt = || transport.attempt(&request(Signal::Logs, "x"), None, SystemTime::UNIX_EPOCH);
        let text = attempt().unwrap_err().failure.to_string();
        assert_eq!(text, "the receiver answered 401 Unauthorized: bad [redacted]");
        assert_eq!(attempt().unwrap().message.as_deref(), Some("[redacted] :("));
    }
}
