//! What goes wrong with TLS.

use std::fmt;
use std::io;

use bpf_loader::text;

const AUTHORITY: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE can name a PEM file with the authority's certificate";

/// What is wrong with a file of certificates or keys. Nothing of the file is kept.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsFileProblem {
    /// It cannot be read.
    Read(io::Error),
    /// It holds no certificate, or one that is none.
    NoCertificate,
    /// It holds no private key that can be read.
    NoKey,
    /// The system has no certificate of an authority that can be used.
    NoRoots {
        /// What was tried in vain, if anything.
        reason: Option<String>,
    },
    /// What it holds cannot be used, for instance a key of another certificate.
    Unusable(String),
}

impl fmt::Display for TlsFileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::NoCertificate => f.write_str("it holds no usable certificate in PEM"),
            Self::NoKey => f.write_str("it holds no private key in PEM that is not encrypted"),
            Self::NoRoots { reason } => {
                f.write_str("no certificates of authorities were found on this system")?;
                if let Some(reason) = reason {
                    write!(f, " ({reason})")?;
                }
                f.write_str("; name a PEM file in OTEL_EXPORTER_OTLP_CERTIFICATE or SSL_CERT_FILE")
            }
            Self::Unusable(reason) => f.write_str(reason),
        }
    }
}

/// Why there is no secure connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsProblem {
    /// The receiver's certificate leads to no trusted authority.
    UnknownIssuer,
    /// The receiver's certificate, or one that it builds upon, has expired.
    Expired,
    /// The receiver's certificate, or one that it builds upon, is not valid yet.
    NotYetValid,
    /// The receiver's certificate is for other names.
    WrongName,
    /// Something else is wrong with the receiver's certificate.
    Certificate(String),
    /// The receiver refuses the client's certificate, or the lack of one, with this alert.
    ClientCertificate(String),
    /// What answers does not speak TLS.
    NotTls,
    /// The two sides do not agree.
    Protocol(String),
}

impl fmt::Display for TlsProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownIssuer => {
                f.write_str("the receiver's certificate is from an authority not trusted here")
            }
            Self::Expired => f.write_str("the receiver's certificate has expired"),
            Self::NotYetValid => f.write_str("the receiver's certificate is not valid yet"),
            Self::WrongName => f.write_str("the receiver's certificate is for another name"),
            Self::Certificate(reason) => write!(f, "the receiver's certificate cannot be used ({reason})"),
            Self::ClientCertificate(alert) => {
                write!(f, "the receiver refuses this client's certificate, or its lack ({alert})")
            }
            Self::NotTls => f.write_str("the receiver does not answer in TLS"),
            Self::Protocol(reason) => write!(f, "TLS failed ({reason})"),
        }
    }
}

impl std::error::Error for TlsProblem {}

impl TlsProblem {
    /// What to do about it.
    pub(super) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::UnknownIssuer => Some(AUTHORITY),
            // An authority that was made again under its old name.
            Self::Certificate(reason) if text::contains(reason, "BadSignature") => Some(AUTHORITY),
            Self::Expired | Self::NotYetValid => Some("is the clock of this machine right?"),
            Self::WrongName => {
                Some("the endpoint must have a host name or address that is in the certificate")
            }
            Self::Certificate(reason) if text::contains(reason, "CaUsedAsEndEntity") => Some(
                "it is an authority's: give the receiver one of its own that the authority signed, or one with CA:FALSE",
            ),
            Self::ClientCertificate(_) => {
                Some("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY name PEM files")
            }
            Self::NotTls => Some("is it http://?"),
            Self::Certificate(_) | Self::Protocol(_) => None,
        }
    }
}
