//! A receiver, and how to reach it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::config::{Compression, Header};
use super::net::proxy::Proxy;
use super::{Endpoint, Signal};
use crate::sorted::SortedSet;

/// The protocol of OTLP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Protocol {
    /// `http/protobuf`
    #[default]
    HttpProtobuf,
    /// `http/json`
    HttpJson,
    /// `grpc`
    Grpc,
}

impl Protocol {
    /// Its name in `OTEL_EXPORTER_OTLP_PROTOCOL`.
    pub fn name(self) -> &'static str {
        match self {
            Self::HttpProtobuf => "http/protobuf",
            Self::HttpJson => "http/json",
            Self::Grpc => "grpc",
        }
    }

    /// Whether this build speaks it.
    pub fn is_built_in(self) -> bool {
        match self {
            Self::HttpProtobuf => true,
            Self::HttpJson => cfg!(feature = "json"),
            Self::Grpc => cfg!(feature = "grpc"),
        }
    }
}

/// Files that TLS uses, all PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities to trust in place of the system's.
    pub roots: Option<PathBuf>,
    /// The client's certificate, with its chain.
    pub client_certificate: Option<PathBuf>,
    /// The client's private key.
    pub client_key: Option<PathBuf>,
}

/// A receiver, how to reach it, and what is sent there. One connection serves all of its signals. `Debug` leaves
/// queries and the values of headers out, which may be keys.
#[derive(Clone, PartialEq, Eq)]
pub struct Destination {
    /// Scheme, host and port, or a unix socket. Its own path does not count here, `targets` do.
    pub endpoint: Endpoint,
    /// How to talk.
    pub protocol: Protocol,
    /// Headers (metadata of gRPC) added to every request, often with credentials.
    pub headers: Vec<Header>,
    /// Compression of request bodies.
    pub compression: Compression,
    /// How long one attempt may take; `None` for as long as it takes.
    pub timeout: Option<Duration>,
    /// Files for TLS.
    pub tls: TlsFiles,
    /// The proxy to go through.
    pub proxy: Option<Proxy>,
    /// The signals that are sent there, each with its request target (path and query; the method's path for gRPC).
    pub targets: Vec<(Signal, String)>,
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, protocol, headers, compression, timeout, tls, proxy, targets } = self;
        let path =
            |(signal, target): &(Signal, String)| (*signal, target.split('?').next().map(str::to_owned));
        f.debug_struct("Destination")
            .field("endpoint", endpoint)
            .field("protocol", protocol)
            .field("headers", headers)
            .field("compression", compression)
            .field("timeout", timeout)
            .field("tls", tls)
            .field("proxy", proxy)
            .field("targets", &targets.iter().map(path).collect::<Vec<_>>())
            .finish()
    }
}

impl Destination {
    /// The request target of a signal; `None` where the signal is not sent there.
    pub fn target(&self, signal: Signal) -> Option<&str> {
        self.targets.iter().find(|(own, _)| *own == signal).map(|(_, target)| target.as_str())
    }

    /// What it is called, without secrets: the URL where there is just one.
    pub fn name(&self) -> String {
        match &self.targets[..] {
            [(_, target)] if self.protocol != Protocol::Grpc => {
                self.endpoint.clone().with_target(target).to_string()
            }
            _ => self.endpoint.to_string(),
        }
    }

    /// The name of the directory for its spool: the same in every run for the same server, protocol and base path, whatever
    /// the credentials and the signals are.
    pub fn spool_name(&self) -> String {
        // FNV-1a, which will be the same in every version too.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut add = |part: &str| {
            for byte in part.bytes().chain([0]) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        add(self.protocol.name());
        add(&self.endpoint.origin().to_string());
        let base = |(signal, target): &(Signal, String)| {
            let path = target.split('?').next().unwrap_or_default();
            path.strip_suffix(signal.path()).unwrap_or(path).to_owned()
        };
        // The methods of gRPC have no base.
        let is_http = self.protocol != Protocol::Grpc;
        let bases: SortedSet<String> = self.targets.iter().filter(|_| is_http).map(base).collect();
        bases.iter().for_each(|base| add(base));
        let host = self.endpoint.host().chars().take(64);
        let readable: String =
            host.map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
        format!("{readable}-{hash:016x}")
    }

    /// Takes `other`'s targets over if nothing else differs.
    pub(crate) fn absorb(&mut self, other: &Self) -> bool {
        let others = |destination: &Self| Self { targets: Vec::new(), ..destination.clone() };
        let alike = others(self) == others(other);
        if alike {
            self.targets.extend(other.targets.iter().cloned());
        }
        alike
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::{ExportConfig, Sink};

    fn destination(url: &str, signals: &[Signal], headers: &str) -> Destination {
        let headers = |name: &str| (name == "OTEL_EXPORTER_OTLP_HEADERS").then(|| headers.to_owned());
        let config = ExportConfig::resolve(signals, &[url.to_owned()], &headers).unwrap();
        match config.sinks.into_iter().next() {
            Some(Sink::Otlp(destination)) => destination,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_hold_no_secrets_and_tell_receivers_apart() {
        let one = destination("http://host:1/a?key=s3cret", &[Signal::Logs], "k=s3cret");
        assert_eq!(one.name(), "http://host:1/a/v1/logs");
        assert_eq!(destination("http://host:1/a", &Signal::ALL, "").name(), "http://host:1/");
        let spool = one.spool_name();
        assert_eq!(spool, "host-f01f060af0522d73", "other versions must find it again");
        assert_eq!(destination("http://host:1/a", &Signal::ALL, "").spool_name(), spool);
        // Other credentials are the same receiver.
        assert_eq!(destination("http://host:1/a?key=new", &[Signal::Logs], "k=new").spool_name(), spool);
        for url in ["http://host:2/a", "http://host:1/b", "http://host:1"] {
            assert_ne!(destination(url, &[Signal::Logs], "").spool_name(), spool);
        }
        let odd = destination("http://[::1]:4318", &[Signal::Traces], "").spool_name();
        assert!(odd.starts_with("--1-") && odd.len() == 20, "{odd}");
    }
}
