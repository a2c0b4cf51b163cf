//! What comes from a receiver, and from the environment.

use collector::export::grpc::frame::{PREFIX, parse_body};
use collector::export::grpc::status::{Code, Status};
use collector::export::http::read_response;
use collector::export::{Endpoint, ExportConfig, Signal, Sink, reply, retry};
use std::time::SystemTime;

/// An HTTP answer, and any part of one by itself.
pub fn export_reply(bytes: &[u8]) {
    if let Ok(response) = read_response(&mut &bytes[..]) {
        assert!(response.status >= 200 && response.body.len() <= bytes.len());
        if let Some(value) = &response.retry_after {
            retry::parse_retry_after(value, SystemTime::UNIX_EPOCH);
        }
        body(&response.body);
    }
    body(bytes);
    retry::parse_retry_after(&String::from_utf8_lossy(bytes), SystemTime::UNIX_EPOCH);
}

/// An answer of gRPC: lines with `grpc-status`, `grpc-message` and `grpc-status-details-bin`, then the body, which also
/// stands for details before base64.
pub fn export_grpc(bytes: &[u8]) {
    let mut parts = bytes.splitn(4, |byte| *byte == b'\n');
    let [code, text, details, rest] = [(); 4].map(|()| parts.next().unwrap_or_default());
    // Details at once, which fuzzing would have to find through base64.
    let encoded = base64(rest);
    for details in [details, encoded.as_bytes()] {
        let status = Status::parse(code, Some(text), Some(details));
        assert_eq!(status.code == Code::Ok, !code.is_empty() && code.iter().all(|byte| *byte == b'0'));
        status.message.iter().for_each(|message| check_message(message));
    }
    for gzip in [false, true] {
        let Ok(message) = parse_body(rest, gzip) else { continue };
        body(&message);
        if rest.first() == Some(&0) {
            assert_eq!(rest.get(PREFIX..), Some(&*message));
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | u32::from(group.get(at).copied().unwrap_or(0)));
        let digits = (0..=group.len()).map(|digit| ALPHABET[(bits >> (18 - 6 * digit) & 63) as usize]);
        text.extend(digits.map(char::from));
    }
    text
}

fn body(bytes: &[u8]) {
    let accepted = reply::parse_accepted(bytes);
    assert!(accepted.rejected <= i64::MAX as u64);
    let messages = [accepted.message, reply::parse_error(bytes, true), reply::parse_error(bytes, false)];
    messages.iter().flatten().for_each(|message| check_message(message));
}

/// What a receiver says must be fit for a terminal.
fn check_message(message: &str) {
    assert!(!message.is_empty() && message.chars().count() <= 303);
    assert!(!message.contains(char::is_control), "{message:?}");
}

/// Variables of the environment, a line each.
const VARIABLES: [&str; 6] =
    ["ENDPOINT", "PROFILES_ENDPOINT", "HEADERS", "PROTOCOL", "COMPRESSION", "TIMEOUT"];

/// An endpoint and `OTEL_EXPORTER_OTLP_*`, a line each.
pub fn export_config(text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    let mut lines = text.split('\n');
    let flags: Vec<String> =
        lines.next().filter(|flag| !flag.is_empty()).map(str::to_owned).into_iter().collect();
    let values: Vec<&str> = lines.collect();
    let env = |name: &str| {
        let name = name.strip_prefix("OTEL_EXPORTER_OTLP_")?;
        let at = VARIABLES.iter().position(|variable| *variable == name)?;
        values.get(at).map(|value| (*value).to_owned())
    };
    let Ok(config) = ExportConfig::resolve(&[Signal::Profiles], &flags, &env) else { return };
    assert!(config.warnings.iter().all(|warning| !warning.contains('\n')));
    config.sinks.iter().for_each(sink);
}

fn sink(sink: &Sink) {
    let Sink::Otlp(destination) = sink else { return };
    // Nothing can end the request line or a header early.
    let printable = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    for (_, target) in &destination.targets {
        assert!(printable(target) && target.starts_with('/'));
    }
    let endpoint = &destination.endpoint;
    assert!(printable(endpoint.authority()) && !endpoint.host().is_empty());
    for header in &destination.headers {
        assert!(printable(header.name()));
        assert!(!header.value().contains(['\r', '\n', '\0']));
    }
    let shown = endpoint.to_string();
    let again = Endpoint::parse(&shown).expect("an endpoint reads back");
    assert_eq!(again, *endpoint);
    assert_eq!(again.to_string(), shown);
}
