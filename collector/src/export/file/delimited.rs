//! Files of binary requests, each behind its length, as protobuf's own libraries write and read streams of messages
//! (`writeDelimitedTo`, `decode_length_delimited`): the file exporter's specification has it so.
//!
//! Requests of different signals cannot be told apart, so that each signal has a file of its own.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::lines::{MODE, write_whole};
use super::{MAX_KEPT, refusal};
use crate::export::reply::Accepted;
use crate::export::transport::{Refusal, Transport};
use crate::export::{Failure, Request, Signal};

/// Writes requests to a file for each signal.
#[derive(Debug)]
pub struct DelimitedExporter {
    files: Vec<(Signal, File, u64)>,
    message: Vec<u8>,
}

impl DelimitedExporter {
    /// Makes the files, of which nothing is left that was there: `x.otlp` stands for `x.metrics.otlp` and so on.
    ///
    /// # Errors
    ///
    /// One of them cannot be made.
    pub fn create(path: &Path, signals: &[Signal]) -> io::Result<Self> {
        let mut files = Vec::new();
        for signal in signals {
            let path = path_of(path, *signal);
            // What is appended goes to the end, wherever an error has left that.
            let mut options = OpenOptions::new();
            let file = options.append(true).create(true).mode(MODE).open(&path);
            let file = file.and_then(|file| file.set_len(0).map(|()| file));
            let file =
                file.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
            files.push((*signal, file, 0));
        }
        Ok(Self { files, message: Vec::new() })
    }
}

impl Transport for DelimitedExporter {
    fn attempt(
        &mut self,
        request: &Request,
        _timeout: Option<Duration>,
        _wall: SystemTime,
    ) -> Result<Accepted, Refusal> {
        let Self { files, message } = self;
        let file = files.iter_mut().find(|(signal, ..)| *signal == request.signal);
        let Some((_, file, len)) = file else { return Err(refusal(Failure::NotSentThere)) };
        message.clear();
        message.shrink_to(MAX_KEPT);
        write_length(message, request.body.len());
        message.extend_from_slice(&request.body);
        write_whole(file, *len, message, false).map_err(|error| refusal(Failure::Write(error)))?;
        *len += message.len() as u64;
        Ok(Accepted::default())
    }
}

/// The file of a signal.
fn path_of(path: &Path, signal: Signal) -> PathBuf {
    let mut name = OsString::from(path.file_stem().unwrap_or_default());
    name.push(format!(".{}.", signal.noun()));
    name.push(path.extension().unwrap_or_default());
    path.with_file_name(name)
}

/// As protobuf writes numbers: seven bits a byte, the lowest first.
fn write_length(to: &mut Vec<u8>, mut length: usize) {
    while length > 0x7f {
        to.push(length as u8 | 0x80);
        length >>= 7;
    }
    to.push(length as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_has_its_file() {
        assert_eq!(path_of(Path::new("/a/b.c.otlp"), Signal::Traces), Path::new("/a/b.c.traces.otlp"));
        let there: Vec<_> = Signal::ALL.iter().map(|signal| path_of(Path::new("x.otlp"), *signal)).collect();
        let names = ["x.metrics.otlp", "x.traces.otlp", "x.logs.otlp", "x.profiles.otlp"];
        assert!(names.iter().all(|name| there.contains(&PathBuf::from(name))), "{there:?}");
    }

    #[test]
    fn lengths_are_those_that_prost_reads() {
        for length in [0, 1, 127, 128, 300, 16_383, 16_384, 1 << 20, usize::MAX] {
            let mut bytes = Vec::new();
            write_length(&mut bytes, length);
            assert_eq!(prost::decode_length_delimiter(bytes.as_slice()).unwrap(), length);
        }
    }
}
