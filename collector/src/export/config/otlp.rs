//! `OTEL_EXPORTER_OTLP_*`: where one signal goes, and how.

use bpf_loader::text;
use std::path::PathBuf;
use std::time::Duration;

use super::env::Env;
use super::headers;
use crate::built_in::GzipBuiltIn;
use crate::export::destination::{Destination, Protocol, TlsFiles};
use crate::export::file::FileSettings;
use crate::export::net::proxy;
use crate::export::{Endpoint, EndpointProblem, ExportError, Scheme, Signal};

/// How long one attempt may take where nothing says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// What to do about a name that is not known.
const COMPRESSION_REMEDY: &str = if cfg!(feature = "gzip") {
    "use gzip or none"
} else {
    "nothing is compressed, as this build has no gzip (feature `gzip`)"
};
/// Scheme of endpoints that are files.
const FILE_SCHEME: &str = "file:";

/// Compression of request bodies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// gzip.
    Gzip(GzipBuiltIn),
}

/// A URL, and who says so.
pub(super) struct Place {
    /// The flag or the variable, for errors.
    pub source: String,
    pub url: String,
    /// Whether the signals' paths come after its own.
    pub is_base: bool,
}

impl Place {
    pub fn flag(url: &str) -> Self {
        Self { source: "--endpoint".to_owned(), url: url.to_owned(), is_base: true }
    }

    /// What the signal's own variable says, or else the general one.
    pub fn from_env(env: &Env<'_>, signal: Signal) -> Option<Self> {
        let (source, url) = env.first(names(signal, "ENDPOINT"))?;
        let is_base = source == "OTEL_EXPORTER_OTLP_ENDPOINT";
        Some(Self { source, url, is_base })
    }

    /// Where OTLP is received unless anyone says otherwise.
    pub fn default(protocol: Protocol) -> Self {
        let port = if protocol == Protocol::Grpc { 4317 } else { 4318 };
        Self { source: "the default".to_owned(), url: format!("http://localhost:{port}"), is_base: true }
    }

    /// The settings of the file that this names for one of `signals` signals, if it names one.
    pub fn file(&self, signal: Signal, signals: usize) -> Option<Result<FileSettings, Box<ExportError>>> {
        let is_file = self.url.get(..FILE_SCHEME.len())?.eq_ignore_ascii_case(FILE_SCHEME);
        let base = self.is_base.then_some(signals);
        is_file.then(|| FileSettings::parse(&self.url, signal, base).map_err(|problem| self.error(problem)))
    }

    fn error(&self, problem: EndpointProblem) -> Box<ExportError> {
        Box::new(ExportError::Endpoint { source_name: self.source.clone(), problem })
    }

    /// The server, and the request target there.
    fn address(
        &self,
        env: &mut Env<'_>,
        signal: Signal,
        protocol: Protocol,
    ) -> Result<(Endpoint, String), Box<ExportError>> {
        let parse = |url: &str| Endpoint::parse(url).map_err(|problem| self.error(problem));
        if protocol != Protocol::Grpc {
            let endpoint = parse(&self.url)?;
            // The URL of a unix socket has no room for a path.
            let joined = self.is_base || endpoint.scheme() == Scheme::Unix;
            let endpoint = if joined { endpoint.join(signal.path()) } else { endpoint };
            return Ok((endpoint.origin(), endpoint.target()));
        }
        let endpoint = match text::contains(&self.url, "://") {
            true => parse(&self.url)?,
            // A target of gRPC: what other schemes say, it says by another variable.
            false => match self.url.strip_prefix("unix:") {
                Some(path) => parse(&format!("unix://{path}"))?,
                None if env.boolean(names(signal, "INSECURE")) => parse(&format!("http://{}", self.url))?,
                None => parse(&format!("https://{}", self.url))?,
            },
        };
        if endpoint.target() != "/" {
            env.warn(format!("ignoring the path of the URL in {}: gRPC has its own", self.source));
        }
        Ok((endpoint.origin(), signal.grpc_path().to_owned()))
    }
}

/// The signal's own variable and the general one.
pub(super) fn names(signal: Signal, suffix: &str) -> [String; 2] {
    [
        format!("OTEL_EXPORTER_OTLP_{}_{suffix}", signal.variable_part()),
        format!("OTEL_EXPORTER_OTLP_{suffix}"),
    ]
}

/// The protocol of a signal, and the variable that asks for it.
pub(super) fn protocol(env: &mut Env<'_>, signal: Signal) -> (Option<String>, Protocol) {
    let remedy = "use http/protobuf, http/json or grpc";
    match env.pick(names(signal, "PROTOCOL"), remedy, parse_protocol) {
        Some((name, protocol)) => (Some(name), protocol),
        None => (None, Protocol::default()),
    }
}

/// Everything about sending `signal` to `place`.
pub(super) fn destination(
    env: &mut Env<'_>,
    signal: Signal,
    place: &Place,
) -> Result<Destination, Box<ExportError>> {
    let (_, protocol) = protocol(env, signal);
    let (endpoint, target) = place.address(env, signal, protocol)?;
    let tls = match endpoint.scheme() {
        Scheme::Https => tls_files(env, signal)?,
        Scheme::Http | Scheme::Unix => {
            // Who sets these expects that nobody can listen.
            for suffix in ["CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"] {
                if let Some((name, _)) = env.first(names(signal, suffix)) {
                    let scheme = endpoint.scheme().name();
                    env.warn(format!("ignoring {name}: {} is a {scheme}:// URL, without TLS", place.source));
                }
            }
            TlsFiles::default()
        }
    };
    let compression = env.pick(names(signal, "COMPRESSION"), COMPRESSION_REMEDY, parse_compression);
    let proxy = proxy::from_env(&endpoint, &|name| env.get(name))?;
    Ok(Destination {
        endpoint,
        protocol,
        headers: headers::read(env, signal),
        compression: compression.map(|(_, compression)| compression).unwrap_or_default(),
        timeout: env.timeout(names(signal, "TIMEOUT"), DEFAULT_TIMEOUT),
        tls,
        proxy,
        targets: vec![(signal, target)],
    })
}

fn parse_protocol(name: &str) -> Option<Protocol> {
    [Protocol::HttpProtobuf, Protocol::HttpJson, Protocol::Grpc]
        .into_iter()
        .find(|protocol| protocol.name() == name)
}

fn parse_compression(name: &str) -> Option<Compression> {
    match name {
        "gzip" => GzipBuiltIn::get().map(Compression::Gzip),
        "none" => Some(Compression::None),
        _ => None,
    }
}

fn tls_files(env: &mut Env<'_>, signal: Signal) -> Result<TlsFiles, Box<ExportError>> {
    let file = |suffix| env.first(names(signal, suffix));
    let (certificate, key) = (file("CLIENT_CERTIFICATE"), file("CLIENT_KEY"));
    let alone = match (&certificate, &key) {
        (Some((name, _)), None) => Some((name, "CLIENT_KEY")),
        (None, Some((name, _))) => Some((name, "CLIENT_CERTIFICATE")),
        _ => None,
    };
    if let Some((variable, missing)) = alone {
        let missing = format!("OTEL_EXPORTER_OTLP_{missing}");
        return Err(Box::new(ExportError::ClientCertificate { variable: variable.clone(), missing }));
    }
    let path = |(_, path): (String, String)| PathBuf::from(path);
    Ok(TlsFiles {
        roots: file("CERTIFICATE").map(path),
        client_certificate: certificate.map(path),
        client_key: key.map(path),
    })
}
