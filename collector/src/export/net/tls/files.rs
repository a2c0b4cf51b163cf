//! Certificates and keys.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::export::destination::TlsFiles;
use crate::export::{ExportError, TlsFileProblem};

/// A client configuration: TLS 1.2 and 1.3, names always verified.
pub(super) fn read(files: &TlsFiles) -> Result<ClientConfig, Box<ExportError>> {
    let roots = match &files.roots {
        Some(path) => given_roots(path)?,
        None => system_roots()?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| problem(None, TlsFileProblem::Unusable(error.to_string())))?
        .with_root_certificates(roots);
    // One file may hold both.
    let certificate = files.client_certificate.as_ref().or(files.client_key.as_ref());
    let key = files.client_key.as_ref().or(files.client_certificate.as_ref());
    let (Some(certificate), Some(key_path)) = (certificate, key) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&contents(key_path)?)
        .map_err(|_| problem(Some(key_path), TlsFileProblem::NoKey))?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|error| problem(Some(key_path), TlsFileProblem::Unusable(error.to_string())))
}

fn given_roots(path: &Path) -> Result<RootCertStore, Box<ExportError>> {
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(certificates(path)?);
    if usable == 0 {
        return Err(problem(Some(path), TlsFileProblem::NoCertificate));
    }
    Ok(roots)
}

/// The authorities of the system: `SSL_CERT_FILE` and `SSL_CERT_DIR`, or where distributions keep them. What cannot
/// be read among them is passed over, as every other program does.
fn system_roots() -> Result<RootCertStore, Box<ExportError>> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        let reason = found.errors.first().map(ToString::to_string);
        return Err(problem(None, TlsFileProblem::NoRoots { reason }));
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Box<ExportError>> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&contents(path)?).collect();
    certificates
        .ok()
        .filter(|certificates| !certificates.is_empty())
        .ok_or_else(|| problem(Some(path), TlsFileProblem::NoCertificate))
}

fn contents(path: &Path) -> Result<Vec<u8>, Box<ExportError>> {
    fs::read(path).map_err(|error| problem(Some(path), TlsFileProblem::Read(error)))
}

fn problem(path: Option<&Path>, problem: TlsFileProblem) -> Box<ExportError> {
    Box::new(ExportError::TlsFile { path: path.map(Path::to_owned), problem })
}
