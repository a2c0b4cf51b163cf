//! The head of a request.

use std::fmt;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE, USER_AGENT};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};

use crate::export::config::Header;
use crate::export::{Compression, ExportError, Signal, http as http1};

/// What the heads of all requests to a destination have in common.
pub(super) struct Template {
    scheme: Scheme,
    authority: Authority,
    headers: HeaderMap,
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The headers hold secrets.
        f.debug_struct("Template").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl Template {
    /// The head of requests to `authority` with these headers as metadata.
    pub(super) fn new(
        tls: bool,
        authority: Authority,
        metadata: &[Header],
        compression: Compression,
    ) -> Result<Self, Box<ExportError>> {
        let mut headers = HeaderMap::new();
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(USER_AGENT, HeaderValue::from_static(http1::USER_AGENT));
        if let Compression::Gzip(_) = compression {
            headers.insert("grpc-encoding", HeaderValue::from_static("gzip"));
        }
        headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity,gzip"));
        for header in metadata {
            let (name, value) = parse_metadata(header)
                .ok_or_else(|| ExportError::Metadata { name: header.name().to_owned() })?;
            headers.insert(name, value);
        }
        Ok(Self { scheme: if tls { Scheme::HTTPS } else { Scheme::HTTP }, authority, headers })
    }

    /// The head of a call that exports `signal` and may take `timeout`.
    pub(super) fn request(&self, signal: Signal, timeout: Option<Duration>) -> http::Request<()> {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(PathAndQuery::from_static(signal.grpc_path()));
        let mut request = http::Request::new(());
        *request.method_mut() = http::Method::POST;
        // It has all three parts, which is all that can be wrong.
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        *request.headers_mut() = self.headers.clone();
        if let Some(value) = timeout.and_then(|timeout| HeaderValue::try_from(format_timeout(timeout)).ok()) {
            request.headers_mut().insert("grpc-timeout", value);
        }
        request
    }
}

/// A header as metadata, if it can be; the value is marked so that no table of HPACK, here or at a proxy, keeps it.
fn parse_metadata(header: &Header) -> Option<(HeaderName, HeaderValue)> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let printable = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    if !header.name().bytes().all(allowed) || !header.value().bytes().all(printable) {
        return None;
    }
    let name = HeaderName::from_bytes(header.name().as_bytes()).ok()?;
    let mut value = HeaderValue::from_str(header.value()).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

/// `grpc-timeout`: at most eight digits and a unit, rounded up.
fn format_timeout(timeout: Duration) -> String {
    const MOST: u128 = 99_999_999;
    let milliseconds = timeout.as_nanos().div_ceil(1_000_000).max(1);
    [(1, 'm'), (1_000, 'S'), (60_000, 'M')]
        .into_iter()
        .map(|(size, unit)| (milliseconds.div_ceil(size), unit))
        .find(|(number, _)| *number <= MOST)
        .map_or_else(
            || format!("{}H", milliseconds.div_ceil(3_600_000).min(MOST)),
            |(number, unit)| format!("{number}{unit}"),
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::built_in::GzipBuiltIn;

    fn template(metadata: &[(&str, &str)]) -> Result<Template, Box<ExportError>> {
        let metadata: Vec<Header> =
            metadata.iter().map(|(name, value)| Header::new(name, value).unwrap()).collect();
        Template::new(
            false,
            Authority::from_static("h:4317"),
            &metadata,
            Compression::Gzip(GzipBuiltIn::HERE),
        )
    }

    #[test]
    fn head_is_what_grpc_asks_for() {
        let request = template(&[]).unwrap().request(Signal::Logs, Some(Duration::from_secs(10)));
        assert_eq!(request.uri(), "http://h:4317/opentelemetry.proto.collector.logs.v1.LogsService/Export");
        let header = |name: &str| request.headers().get(name).unwrap().to_str().unwrap().to_owned();
        assert_eq!(header("te"), "trailers");
        assert_eq!(header("content-type"), "application/grpc");
        assert_eq!(header("grpc-encoding"), "gzip");
        assert_eq!(header("grpc-accept-encoding"), "identity,gzip");
        assert_eq!(header("grpc-timeout"), "10000m");
        assert_eq!(header("user-agent"), http1::USER_AGENT);
        let request = template(&[]).unwrap().request(Signal::Logs, None);
        assert!(request.headers().get("grpc-timeout").is_none());
    }

    #[test]
    fn metadata_is_lower_case_and_sensitive() {
        let template =
            template(&[("Api-Key", "s3cret"), ("trace-bin", "AQID"), ("User-Agent", "me")]).unwrap();
        assert!(!format!("{template:?}").contains("s3cret"));
        let request = template.request(Signal::Metrics, None);
        for (name, value) in [("api-key", "s3cret"), ("trace-bin", "AQID"), ("user-agent", "me")] {
            let found = &request.headers()[name];
            assert_eq!((found.to_str().unwrap(), found.is_sensitive()), (value, true));
        }
    }

    #[test]
    fn what_cannot_be_metadata_is_named_without_its_value() {
        for (name, value) in [("a*b", "s3cret"), ("key", "s3crét"), ("key", "s3cret\t")] {
            let error = template(&[(name, value)]).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("s3cr"));
            assert!(
                error.to_string().starts_with(&format!("cannot send the header {name} over gRPC")),
                "{error}"
            );
        }
        // What is gRPC's own is refused for all protocols.
        assert!(Header::new("Grpc-Timeout", "1S").is_none() && Header::new("TE", "gzip").is_none());
    }

    #[test]
    fn timeouts_have_at_most_eight_digits() {
        for (timeout, text) in [
            (Duration::ZERO, "1m"),
            (Duration::from_nanos(1), "1m"),
            (Duration::from_micros(1_001), "2m"),
            (Duration::from_secs(10), "10000m"),
            (Duration::from_millis(99_999_999), "99999999m"),
            (Duration::from_millis(100_000_001), "100001S"),
            (Duration::from_secs(99_999_999), "99999999S"),
            (Duration::from_secs(100_000_000), "1666667M"),
            (Duration::from_secs(6_000_000_000), "1666667H"),
            (Duration::MAX, "99999999H"),
        ] {
            assert_eq!(format_timeout(timeout), text);
        }
    }
}
