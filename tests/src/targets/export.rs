//! What comes from a receiver, and from the environment.

use collector::export::config::{AgentResource, BatchSettings, SdkSettings};
use collector::export::grpc::frame::{PREFIX, parse_body};
use collector::export::grpc::status::{Code, Status};
use collector::export::http::download::read_file;
use collector::export::http::{MAX_RESPONSE, read_response};
use collector::export::{Endpoint, ExportConfig, Signal, Sink, reply, retry};
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

/// An HTTP answer, and any part of one by itself.
pub fn export_reply(bytes: &[u8]) {
    if let Ok(response) = read_response(&mut &bytes[..]) {
        assert!(response.status >= 200 && response.body.len() <= MAX_RESPONSE);
        if let Some(value) = &response.retry_after {
            retry::parse_retry_after(value, SystemTime::UNIX_EPOCH);
        }
        body(&response.body);
        let mut file = Vec::new();
        let read = read_file(bytes, MAX_RESPONSE as u64, &mut |piece| {
            file.extend_from_slice(piece);
            Ok(())
        });
        // What is whole is the same, however it is read.
        if read.is_ok() {
            assert!(response.status == 200 && file == response.body);
        }
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

/// `--endpoint=URL` and variables, `NAME=VALUE`, a line each.
pub fn export_config(text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    let pairs: Vec<(&str, &str)> = text.split('\n').filter_map(|line| line.split_once('=')).collect();
    let flags: Vec<String> = pairs
        .iter()
        .filter(|(name, _)| *name == "--endpoint")
        .map(|(_, value)| (*value).to_owned())
        .take(3)
        .collect();
    let env = |name: &str| pairs.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
    sdk(&SdkSettings::from_env(&env));
    let (resource, warnings) = AgentResource::from_env(&env, "agent", 7);
    resource_attributes(&resource);
    one_line_each(&warnings);

    let Ok(config) = ExportConfig::resolve(&Signal::ALL, &flags, &env) else { return };
    one_line_each(&config.warnings);
    for signal in Signal::ALL {
        let taken =
            config.sinks.iter().filter(|sink| sink.takes(signal) && !matches!(sink, Sink::Console(_)));
        assert!(taken.count() <= flags.len().max(1));
    }
    config.sinks.iter().for_each(sink);
}

fn one_line_each(warnings: &[String]) {
    for (index, warning) in warnings.iter().enumerate() {
        assert!(!warning.is_empty() && !warning.contains(['\n', '\r', '\x1b']), "{warning:?}");
        assert!(!warnings[..index].contains(warning), "{warning} is there twice");
    }
}

fn sdk(settings: &SdkSettings) {
    one_line_each(&settings.warnings);
    for BatchSettings { max_queue_items, max_batch_items, .. } in [settings.spans, settings.logs] {
        assert!((1..=max_queue_items).contains(&max_batch_items));
    }
    assert!(settings.metrics.interval >= Duration::from_secs(1));
}

fn resource_attributes(resource: &AgentResource) {
    let attributes: HashMap<&str, &str> = resource.attributes().collect();
    assert_eq!(attributes.len(), resource.attributes().len(), "keys are unique");
    assert!(!attributes["service.name"].is_empty() && !attributes["service.instance.id"].is_empty());
    assert_eq!(attributes["telemetry.sdk.name"], "ebpf-otlp");
    let mut size = 0;
    for (key, value) in resource.shared().iter() {
        assert!(attributes.contains_key(key), "what is shared is the agent's too");
        for prefix in ["service.", "process.", "container.", "telemetry."] {
            assert!(!key.is_empty() && !key.starts_with(prefix));
        }
        size += key.len() + value.len();
    }
    assert!(size <= 8192);
}

fn sink(sink: &Sink) {
    let destination = match sink {
        Sink::Otlp(destination) => destination,
        Sink::File(settings) => {
            assert!(settings.max_bytes > 0 && settings.files.iter().all(|(_, path)| path.is_absolute()));
            return;
        }
        Sink::Console(signals) => return assert!(!signals.is_empty()),
    };
    let mut signals: Vec<Signal> = destination.targets.iter().map(|(signal, _)| *signal).collect();
    signals.dedup();
    assert!(signals.is_sorted() && signals.len() == destination.targets.len() && !signals.is_empty());
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
