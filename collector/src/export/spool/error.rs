//! Why a spool failed.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::format::file_name;
use super::volume::Volume;
use crate::export::store::RecordId;

/// What went wrong with a spool, and with which of its files.
#[derive(Debug)]
#[non_exhaustive]
pub enum SpoolError {
    /// The feature `spool` is not built in.
    NotBuiltIn,
    /// A file or the directory could not be used.
    Io {
        /// What was tried.
        action: Action,
        /// The file or directory.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// Another process, or another spool of this one, uses the directory.
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A file of a format that this version cannot read.
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u8,
    },
    /// A record was acknowledged before an older one.
    OutOfOrder {
        /// The record.
        record: RecordId,
        /// The directory.
        path: PathBuf,
    },
}

/// What is done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Make or open the directory.
    OpenDirectory,
    /// List the directory.
    List,
    /// Put the directory's entries on disk.
    SyncDirectory,
    /// Make a file.
    Create,
    /// Open a file.
    Open,
    /// Read a file.
    Read,
    /// Append to a file.
    Append,
    /// Cut a file.
    Truncate,
    /// Put a file's content on disk.
    Sync,
    /// Delete a file.
    Delete,
}

impl SpoolError {
    /// Whether the file system has no room, or this user no quota.
    pub(super) fn is_no_space(&self) -> bool {
        let Self::Io { error, .. } = self else { return false };
        matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// What happened to the file of segment `number`.
pub(super) fn file_error(
    volume: &dyn Volume,
    action: Action,
    number: u64,
    error: io::Error,
) -> Box<SpoolError> {
    Box::new(SpoolError::Io { action, path: volume.path().join(file_name(number)), error })
}

impl fmt::Display for SpoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBuiltIn => f.write_str("this build has no queue on disk (feature `spool`)"),
            Self::Io { action, path, error } => write!(f, "cannot {action} {}: {error}", path.display()),
            Self::InUse { path } => {
                write!(f, "the spool {} is in use by another process", path.display())
            }
            Self::Version { path, version } => write!(
                f,
                "{} has version {version} of the spool's format, which this build cannot read; move the file away \
                 or use the build that wrote it",
                path.display()
            ),
            Self::OutOfOrder { record, path } => write!(
                f,
                "record {} of the spool {} is not the oldest, and cannot be acknowledged yet",
                record.0,
                path.display()
            ),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OpenDirectory => "use the spool directory",
            Self::List => "list the spool directory",
            Self::SyncDirectory => "sync the spool directory",
            Self::Create => "create the spool file",
            Self::Open => "open the spool file",
            Self::Read => "read the spool file",
            Self::Append => "append to the spool file",
            Self::Truncate => "cut the spool file",
            Self::Sync => "sync the spool file",
            Self::Delete => "delete the spool file",
        })
    }
}

// The whole chain is in the one line that Display gives.
impl std::error::Error for SpoolError {}
