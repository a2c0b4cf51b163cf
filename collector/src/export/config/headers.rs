//! Headers that are added to requests.

use bpf_loader::text;
use std::fmt;

use super::env::Env;
use crate::export::Signal;
use crate::percent;

/// Headers that belong to the exporter: another value would break the request.
const RESERVED: [&str; 12] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Beginning of the headers that belong to gRPC.
const RESERVED_PREFIX: &str = "grpc-";

/// A header whose value `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    name: String,
    value: String,
}

impl Header {
    /// A header; `None` where the name is no token, the value holds control characters, or the exporter sets
    /// it itself.
    pub fn new(name: &str, value: &str) -> Option<Self> {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let name_ok = !name.is_empty() && name.bytes().all(token);
        let lower = name.to_ascii_lowercase();
        let reserved = RESERVED.contains(&lower.as_str()) || lower.starts_with(RESERVED_PREFIX);
        let value_ok = !value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t');
        (name_ok && value_ok && !reserved).then(|| Self { name: name.to_owned(), value: value.to_owned() })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its value, maybe a secret: for the request alone.
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: [redacted]", self.name)
    }
}

/// The headers of a signal: the list in its own variable, or else in the general one. Of one name, the last counts.
pub(super) fn read(env: &mut Env<'_>, signal: Signal) -> Vec<Header> {
    let Some((variable, list)) = env.first(super::names(signal, "HEADERS")) else { return Vec::new() };
    let mut headers: Vec<Header> = Vec::new();
    for (position, pair) in list.split(',').enumerate().filter(|(_, pair)| !pair.trim().is_empty()) {
        match parse(pair) {
            Some(header) => {
                headers.retain(|other| !other.name.eq_ignore_ascii_case(&header.name));
                headers.push(header);
            }
            // Not even the name is shown: without a `=`, it is the value.
            None => env.warn(format!(
                "ignoring entry {} of {variable}: it is no name=value that can be sent as a header",
                position + 1
            )),
        }
    }
    headers
}

/// `name=value`, percent-encoded as in W3C baggage.
fn parse(pair: &str) -> Option<Header> {
    let (name, value) = pair.split_once('=')?;
    let value = String::from_utf8(percent::decode(value.trim().as_bytes())).ok()?;
    // A variable that is not UTF-8 comes with U+FFFD in it.
    Header::new(name.trim(), &value).filter(|_| !text::contains(&value, "\u{fffd}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_list(list: &str) -> (Vec<Header>, Vec<String>) {
        let lookup = |name: &str| (name == "OTEL_EXPORTER_OTLP_HEADERS").then(|| list.to_owned());
        let mut env = Env::new(&lookup);
        (read(&mut env, Signal::Logs), env.warnings)
    }

    #[test]
    fn headers_are_decoded_checked_and_hidden() {
        let (headers, warnings) = read_list("api-key=s3cret%3D%2C%20x , b = 100% ,,x=1,X=2;m=1");
        let pairs: Vec<_> = headers.iter().map(|header| (header.name(), header.value())).collect();
        assert_eq!(pairs, [("api-key", "s3cret=, x"), ("b", "100%"), ("X", "2;m=1")]);
        assert!(warnings.is_empty());
        assert!(!format!("{headers:?}").contains("s3cret"));

        let bad = "s3cret,a b=s3cret,c=s3cret%0d%0aHost: x,=s3cret,Content-Length=3,d=%ff,GRPC-Timeout=1S,e=\u{fffd}";
        let (headers, warnings) = read_list(bad);
        assert!(headers.is_empty());
        assert_eq!(warnings.len(), 8);
        assert!(!warnings.concat().contains("s3cret"));
        assert!(warnings[1].starts_with("ignoring entry 2 of OTEL_EXPORTER_OTLP_HEADERS"));
    }

    #[test]
    fn a_signals_own_list_replaces_the_general_one() {
        let lookup = |name: &str| match name {
            "OTEL_EXPORTER_OTLP_HEADERS" => Some("a=1,b=2".to_owned()),
            "OTEL_EXPORTER_OTLP_LOGS_HEADERS" => Some("c=3".to_owned()),
            _ => None,
        };
        let names = |signal| -> Vec<String> {
            read(&mut Env::new(&lookup), signal).iter().map(|header| header.name().to_owned()).collect()
        };
        assert_eq!(names(Signal::Logs), ["c"]);
        assert_eq!(names(Signal::Traces), ["a", "b"]);
    }
}
