//! What comes from a receiver, and from the environment.

use collector::export::http::{MAX_RESPONSE, read_response};
use collector::export::{Endpoint, ExportConfig, Signal, Sink, reply, retry};
use std::time::SystemTime;

/// An HTTP answer, and any part of one by itself.
pub fn export_reply(bytes: &[u8]) {
    if let Ok(response) = read_response(&mut &bytes[..]) {
        assert!(response.status >= 200 && response.body.len() <= MAX_RESPONSE);
        if let Some(value) = &response.retry_after {
            retry::parse_retry_after(value, SystemTime::UNIX_EPOCH);
        }
        body(&response.body);
    }
    body(bytes);
    retry::parse_retry_after(&String::from_utf8_lossy(bytes), SystemTime::UNIX_EPOCH);
}

fn body(bytes: &[u8]) {
    let accepted = reply::parse_accepted(bytes);
    assert!(accepted.rejected <= i64::MAX as u64);
    let messages = [accepted.message, reply::parse_error(bytes, true), reply::parse_error(bytes, false)];
    for message in messages.into_iter().flatten() {
        assert!(!message.is_empty() && message.chars().count() <= 303);
        assert!(!message.contains(char::is_control), "{message:?}");
    }
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
