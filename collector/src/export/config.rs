//! The export configuration, from a flag and `OTEL_EXPORTER_OTLP_*`.
//!
//! As the OpenTelemetry specification (1.60) has it: a signal's own variable comes before the general one, empty
//! is unset, and a value that makes no sense is warned of and ignored.

use std::fmt;
use std::time::Duration;

use super::{Endpoint, ExportError, Signal};

/// How long one attempt may take where nothing says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Headers that belong to the exporter: another value would break the request.
const RESERVED: [&str; 6] =
    ["connection", "content-encoding", "content-length", "content-type", "host", "transfer-encoding"];

/// Where and how one signal is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportConfig {
    /// What is sent.
    pub signal: Signal,
    /// Where to.
    pub endpoint: Endpoint,
    /// Headers added to every request, often with credentials.
    pub headers: Vec<Header>,
    /// Compression of request bodies.
    pub compression: Compression,
    /// How long one attempt may take; `None` for as long as it takes.
    pub timeout: Option<Duration>,
}

/// Compression of request bodies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// gzip.
    Gzip,
}

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
        let reserved = RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name));
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

/// A configuration, and what was ignored on the way to it.
#[derive(Debug)]
pub struct Resolved {
    /// `None` where neither the flag nor a variable names an endpoint: nothing is exported then.
    pub config: Option<ExportConfig>,
    /// A line for each value that was ignored; header values are not in them.
    pub warnings: Vec<String>,
}

impl ExportConfig {
    /// The configuration of `signal`. `flag` is the value of `--endpoint`: a base, like
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`, and stronger than any variable. `env` looks up a variable.
    ///
    /// # Errors
    ///
    /// [`ExportError::Endpoint`] and [`ExportError::Protocol`]: what was asked for and cannot be done.
    pub fn resolve(
        signal: Signal,
        flag: Option<&str>,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Resolved, ExportError> {
        let mut reader = Reader { signal, env, warnings: Vec::new() };
        let Some(endpoint) = reader.endpoint(flag)? else {
            return Ok(Resolved { config: None, warnings: reader.warnings });
        };
        reader.check_protocol()?;
        let config = Self {
            signal,
            endpoint,
            headers: reader.headers(),
            compression: reader.compression(),
            timeout: reader.timeout(),
        };
        Ok(Resolved { config: Some(config), warnings: reader.warnings })
    }
}

struct Reader<E> {
    signal: Signal,
    env: E,
    warnings: Vec<String>,
}

impl<E: Fn(&str) -> Option<String>> Reader<E> {
    /// The signal's own variable and the general one, as far as set, with their names.
    fn set(&self, suffix: &str) -> Vec<(String, String)> {
        [
            format!("OTEL_EXPORTER_OTLP_{}_{suffix}", self.signal.variable_part()),
            format!("OTEL_EXPORTER_OTLP_{suffix}"),
        ]
        .into_iter()
        .filter_map(|name| {
            let value = (self.env)(&name)?.trim().to_owned();
            Some((name, value)).filter(|(_, value)| !value.is_empty())
        })
        .collect()
    }

    fn endpoint(&self, flag: Option<&str>) -> Result<Option<Endpoint>, ExportError> {
        let (name, url) = match flag {
            Some(url) => ("--endpoint".to_owned(), url.to_owned()),
            None => match self.set("ENDPOINT").into_iter().next() {
                Some(variable) => variable,
                None => return Ok(None),
            },
        };
        let is_base = flag.is_some() || name == "OTEL_EXPORTER_OTLP_ENDPOINT";
        match Endpoint::parse(&url) {
            Ok(endpoint) if is_base => Ok(Some(endpoint.join(self.signal.path()))),
            Ok(endpoint) => Ok(Some(endpoint)),
            Err(problem) => Err(ExportError::Endpoint { source_name: name, problem }),
        }
    }

    fn check_protocol(&mut self) -> Result<(), ExportError> {
        for (variable, value) in self.set("PROTOCOL") {
            match value.to_ascii_lowercase().as_str() {
                "http/protobuf" => return Ok(()),
                protocol @ ("grpc" | "http/json") => {
                    return Err(ExportError::Protocol { variable, protocol: protocol.to_owned() });
                }
                _ => self.ignore(&variable, &value, "use http/protobuf"),
            }
        }
        Ok(())
    }

    fn compression(&mut self) -> Compression {
        for (variable, value) in self.set("COMPRESSION") {
            match value.to_ascii_lowercase().as_str() {
                "gzip" => return Compression::Gzip,
                "none" => return Compression::None,
                _ => self.ignore(&variable, &value, "use gzip or none"),
            }
        }
        Compression::default()
    }

    fn timeout(&mut self) -> Option<Duration> {
        for (variable, value) in self.set("TIMEOUT") {
            match value.parse() {
                Ok(0) => return None,
                Ok(milliseconds) => return Some(Duration::from_millis(milliseconds)),
                Err(_) => self.ignore(&variable, &value, "use milliseconds"),
            }
        }
        Some(DEFAULT_TIMEOUT)
    }

    fn headers(&mut self) -> Vec<Header> {
        let Some((variable, list)) = self.set("HEADERS").into_iter().next() else { return Vec::new() };
        let mut headers: Vec<Header> = Vec::new();
        for (position, pair) in list.split(',').enumerate().filter(|(_, pair)| !pair.trim().is_empty()) {
            match parse_header(pair) {
                Some(header) => {
                    headers.retain(|other| !other.name.eq_ignore_ascii_case(&header.name));
                    headers.push(header);
                }
                None => self.warnings.push(format!(
                    "ignoring entry {} of {variable}: it is no name=value that can be sent as a header",
                    position + 1
                )),
            }
        }
        headers
    }

    fn ignore(&mut self, variable: &str, value: &str, remedy: &str) {
        self.warnings.push(format!("ignoring {variable}={}; {remedy}", value.escape_debug()));
    }
}

/// `name=value`, percent-encoded as in W3C baggage.
fn parse_header(pair: &str) -> Option<Header> {
    let (name, value) = pair.split_once('=')?;
    Header::new(name.trim(), &percent_decode(value.trim())?)
}

/// `text` with `%XX` replaced; a `%` that begins no such thing stays. `None` where the result is not UTF-8.
pub(super) fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let digits = after.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(b'%');
                rest = after;
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::EndpointProblem;

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://base:4318/otlp/");

    fn resolve(flag: Option<&str>, vars: &[(&str, &str)]) -> Result<Resolved, ExportError> {
        ExportConfig::resolve(Signal::Profiles, flag, |name| {
            vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    /// The configuration with a base endpoint and `vars`, and the warnings.
    fn with(vars: &[(&str, &str)]) -> (ExportConfig, Vec<String>) {
        let resolved = resolve(None, &[&[ENDPOINT], vars].concat()).unwrap();
        (resolved.config.unwrap(), resolved.warnings)
    }

    #[test]
    fn endpoints_by_precedence() {
        let own = ("OTEL_EXPORTER_OTLP_PROFILES_ENDPOINT", "http://own");
        let url =
            |flag, vars: &[_]| resolve(flag, vars).unwrap().config.map(|config| config.endpoint.to_string());
        assert_eq!(url(None, &[]), None);
        assert_eq!(url(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), None);
        let base = Some("http://base:4318/otlp/v1development/profiles".to_owned());
        assert_eq!(url(None, &[ENDPOINT]), base);
        assert_eq!(url(None, &[("OTEL_EXPORTER_OTLP_PROFILES_ENDPOINT", ""), ENDPOINT]), base);
        assert_eq!(url(None, &[ENDPOINT, own]), Some("http://own/".to_owned()));
        let flag = Some("http://flag/v1development/profiles".to_owned());
        assert_eq!(url(Some("http://flag"), &[ENDPOINT, own]), flag);
    }

    #[test]
    fn unusable_endpoints_name_their_source() {
        let error = resolve(Some("localhost:4318"), &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot use the URL in --endpoint: it must begin with http://, https:// or unix://, as in http://localhost:4318"
        );
        let error = resolve(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://k:s3cret@h")]).unwrap_err();
        assert!(matches!(error, ExportError::Endpoint { problem: EndpointProblem::Credentials, .. }));
        assert!(!format!("{error} {error:?}").contains("s3cret"));
    }

    #[test]
    fn protocols_that_are_not_built_in_are_refused() {
        for protocol in ["grpc", "http/json", "GRPC"] {
            let vars = [ENDPOINT, ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)];
            assert!(matches!(resolve(None, &vars).unwrap_err(), ExportError::Protocol { .. }));
        }
        let own = ("OTEL_EXPORTER_OTLP_PROFILES_PROTOCOL", "http/protobuf");
        assert!(with(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), own]).1.is_empty());
        assert_eq!(with(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "smoke")]).1.len(), 1);
        // Without an endpoint nothing is exported, and nothing can be wrong with how.
        assert!(resolve(None, &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).unwrap().config.is_none());
    }

    #[test]
    fn numbers_and_names_that_make_no_sense_are_ignored_and_told() {
        let (config, warnings) = with(&[]);
        assert_eq!((config.timeout, config.compression), (Some(DEFAULT_TIMEOUT), Compression::None));
        assert!(warnings.is_empty());
        let own = |value| {
            with(&[("OTEL_EXPORTER_OTLP_PROFILES_TIMEOUT", value), ("OTEL_EXPORTER_OTLP_TIMEOUT", "7")])
        };
        assert_eq!(own("250").0.timeout, Some(Duration::from_millis(250)));
        assert_eq!(own("0").0.timeout, None);
        for nonsense in ["-1", "1.5", "10s", "99999999999999999999"] {
            let (config, warnings) = own(nonsense);
            assert_eq!(config.timeout, Some(Duration::from_millis(7)));
            assert!(warnings[0].contains("OTEL_EXPORTER_OTLP_PROFILES_TIMEOUT"), "{warnings:?}");
        }
        assert_eq!(with(&[("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")]).0.compression, Compression::Gzip);
        let (config, warnings) = with(&[("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd")]);
        assert_eq!((config.compression, warnings.len()), (Compression::None, 1));
    }

    #[test]
    fn headers_are_decoded_checked_and_hidden() {
        let list = "api-key=s3cret%3D%2C%20x , b = 100% ,,x=1,X=2";
        let (config, warnings) = with(&[("OTEL_EXPORTER_OTLP_HEADERS", list)]);
        let headers: Vec<_> = config.headers.iter().map(|header| (header.name(), header.value())).collect();
        assert_eq!(headers, [("api-key", "s3cret=, x"), ("b", "100%"), ("X", "2")]);
        assert!(warnings.is_empty());
        assert!(!format!("{config:?}").contains("s3cret"));

        let bad = "novalue,a b=s3cret,c=s3cret%0d%0aHost: x,=s3cret,Content-Length=3,d=%ff";
        let (config, warnings) = with(&[("OTEL_EXPORTER_OTLP_HEADERS", bad)]);
        assert!(config.headers.is_empty());
        assert_eq!(warnings.len(), 6);
        assert!(!warnings.concat().contains("s3cret"));
        assert!(warnings[1].starts_with("ignoring entry 2 of OTEL_EXPORTER_OTLP_HEADERS"));
    }

    #[test]
    fn percent_signs_at_the_end_stay() {
        for text in ["%", "%4", "a%zz", "%é", "%+1"] {
            assert_eq!(percent_decode(text).as_deref(), Some(text));
        }
        assert_eq!(percent_decode("%41%c3%a9").as_deref(), Some("Aé"));
    }
}
