//! TLS by rustls, with ring.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::{Alpn, Socket};
use crate::built_in::TlsBuiltIn;
use crate::export::destination::TlsFiles;
use crate::export::{Endpoint, EndpointProblem, ExportError, Failure, TlsProblem};

mod files;
mod problem;
mod session;

pub(super) use session::Session;

/// What all connections to one destination share: whom to trust, who the client is, and sessions to resume.
pub(super) struct Tls {
    name: ServerName<'static>,
    files: TlsFiles,
    loaded: Mutex<Loaded>,
}

struct Loaded {
    config: Arc<ClientConfig>,
    stamps: [Option<Stamp>; 3],
}

/// What changes when a file is replaced or rewritten.
#[derive(PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Tls {
    /// Reads the files, and the system's authorities where none are given.
    pub(super) fn new(endpoint: &Endpoint, files: &TlsFiles) -> Result<Self, Box<ExportError>> {
        let name = ServerName::try_from(endpoint.host().to_owned()).map_err(|_| ExportError::Endpoint {
            source_name: endpoint.to_string(),
            problem: EndpointProblem::NoHost,
        })?;
        let loaded = Mutex::new(Loaded::read(files)?);
        Ok(Self { name, files: files.clone(), loaded })
    }

    /// Does the handshake on a new connection.
    pub(super) fn connect(&self, socket: Socket, alpn: Alpn) -> Result<Session, Box<Failure>> {
        let mut config = ClientConfig::clone(&self.config());
        config.alpn_protocols = vec![alpn.name().to_vec()];
        let session = Session::connect(config, self.name.clone(), socket)?;
        // Without being asked, receivers speak HTTP/1.1; HTTP/2 has to be agreed upon.
        if alpn == Alpn::H2 && session.alpn() != Some(alpn.name()) {
            return Err(Box::new(Failure::Tls(
                TlsProblem::Protocol("the receiver does not offer HTTP/2".to_owned()),
                TlsBuiltIn::HERE,
            )));
        }
        Ok(session)
    }

    /// The configuration, read anew if a file changed. One that cannot be used, maybe half of a new pair, leaves
    /// what was there, and is read again next time.
    fn config(&self) -> Arc<ClientConfig> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.stamps != stamps(&self.files) {
            if let Ok(changed) = Loaded::read(&self.files) {
                *loaded = changed;
            }
        }
        Arc::clone(&loaded.config)
    }
}

impl Loaded {
    fn read(files: &TlsFiles) -> Result<Self, Box<ExportError>> {
        // Taken first: what changes while it is read is read once more.
        let stamps = stamps(files);
        Ok(Self { config: Arc::new(files::read(files)?), stamps })
    }
}

fn stamps(files: &TlsFiles) -> [Option<Stamp>; 3] {
    let stamp = |path: &Path| {
        let metadata = fs::metadata(path).ok()?;
        Some(Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    };
    [&files.roots, &files.client_certificate, &files.client_key].map(|path| path.as_deref().and_then(stamp))
}

#[cfg(test)]
mod tests;
