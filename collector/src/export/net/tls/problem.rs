//! rustls' errors in this crate's words.

use rustls::{AlertDescription, CertificateError, Error};

use crate::export::TlsProblem;

pub(super) fn tls_problem(error: &Error) -> TlsProblem {
    match error {
        Error::InvalidCertificate(error) => certificate_problem(error),
        Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired
            | AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::DecryptError
            | AlertDescription::AccessDenied => TlsProblem::ClientCertificate(alert_name(*alert)),
            _ => TlsProblem::Protocol(format!("alert {}", alert_name(*alert))),
        },
        Error::InvalidMessage(_) => TlsProblem::NotTls,
        other => TlsProblem::Protocol(other.to_string()),
    }
}

/// As rustls writes it, or its number.
fn alert_name(alert: AlertDescription) -> String {
    alert.as_str().map_or_else(|| u8::from(alert).to_string(), str::to_owned)
}

fn certificate_problem(error: &CertificateError) -> TlsProblem {
    match error {
        CertificateError::UnknownIssuer => TlsProblem::UnknownIssuer,
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsProblem::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            TlsProblem::NotYetValid
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            TlsProblem::WrongName
        }
        other => TlsProblem::Certificate(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_named_or_numbered() {
        let told = |alert| tls_problem(&Error::AlertReceived(alert));
        assert_eq!(told(AlertDescription::UnknownCA), TlsProblem::ClientCertificate("UnknownCA".to_owned()));
        assert_eq!(told(AlertDescription::DecodeError), TlsProblem::Protocol("alert DecodeError".to_owned()));
        assert_eq!(told(AlertDescription::Unknown(200)), TlsProblem::Protocol("alert 200".to_owned()));
    }
}
