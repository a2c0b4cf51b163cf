//! Delivery to an OTLP receiver.
//!
//! [`config`] turns flags and `OTEL_EXPORTER_OTLP_*` into a configuration, [`http`] carries one request, [`retry`]
//! says when to try again, [`reply`] reads what the receiver answered, and [`Exporter`] joins them. Bytes come
//! encoded: nothing here knows what is in them.

pub mod config;
pub mod endpoint;
mod error;
mod exporter;
pub mod http;
pub mod reply;
pub mod retry;

pub use config::{Compression, ExportConfig};
pub use endpoint::Endpoint;
pub use error::{EndpointProblem, ExportError, Failure};
pub use exporter::{Delivery, Exporter};

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Signal {
    /// Profiles, of which OTLP 1.11 says `v1development`.
    Profiles,
}

impl Signal {
    /// Path under a base endpoint.
    pub fn path(self) -> &'static str {
        match self {
            Self::Profiles => "/v1development/profiles",
        }
    }

    /// The part of `OTEL_EXPORTER_OTLP_PROFILES_ENDPOINT` that names the signal. The specification (1.60) has no
    /// such variables for profiles yet; these follow the pattern of the other signals.
    pub fn variable_part(self) -> &'static str {
        match self {
            Self::Profiles => "PROFILES",
        }
    }

    /// What people call it.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Profiles => "profiles",
        }
    }
}
