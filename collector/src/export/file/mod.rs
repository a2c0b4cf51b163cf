//! OTLP JSON lines, in files and on standard output, as the OTLP file exporter and the Collector's have them: one
//! request a line, one signal a file. Also files of binary requests.
//!
//! All are a [`Transport`], so that queues, retries and counts are those of any other destination: a full disk is a
//! receiver that is away for a while.

mod delimited;
mod lines;
mod settings;

pub use delimited::DelimitedExporter;
pub use settings::FileSettings;

use std::fmt;
use std::io::{self, Stdout, Write};
use std::time::{Duration, SystemTime};

use otlp_encode::descriptor::Descriptor;
use otlp_encode::{json, logs, metrics, profiles, trace};

use self::lines::LinesFile;
use super::reply::Accepted;
use super::transport::{Refusal, Transport};
use super::{Failure, Request, Signal};
use crate::built_in::JsonBuiltIn;

/// Memory that is kept between requests.
const MAX_KEPT: usize = 1 << 20;

/// Appends requests to the files of [`FileSettings`].
///
/// A line is there whole or not at all: what a full disk leaves of one is cut off again. Files are opened with the
/// first request, and again when they were moved away or deleted; folders are not made, so that nothing is written
/// below a disk that is not mounted. One process at a time writes a file.
#[derive(Debug)]
pub struct FileExporter {
    files: Vec<(Signal, LinesFile)>,
    line: Line,
}

impl FileExporter {
    /// An exporter that has opened nothing yet; `None` where the feature `json` is not built in.
    pub fn new(settings: &FileSettings) -> Option<Self> {
        let line = Line::new()?;
        let files = settings.files.iter();
        let files = files.map(|(signal, path)| (*signal, LinesFile::new(path, settings))).collect();
        Some(Self { files, line })
    }
}

impl Transport for FileExporter {
    fn attempt(
        &mut self,
        request: &Request,
        _timeout: Option<Duration>,
        _wall: SystemTime,
    ) -> Result<Accepted, Refusal> {
        let file = self.files.iter_mut().find(|(signal, _)| *signal == request.signal);
        let Some((_, file)) = file else { return Err(refusal(Failure::NotSentThere)) };
        self.line.send(request, |line| file.append(line))
    }
}

/// Writes requests to standard output, or to `W`.
pub struct ConsoleExporter<W = Stdout> {
    out: W,
    line: Line,
    /// Whether an error may have left a part of a line.
    is_within_line: bool,
}

impl ConsoleExporter {
    /// To standard output; `None` where the feature `json` is not built in.
    pub fn stdout() -> Option<Self> {
        Self::new(io::stdout())
    }
}

impl<W: Write> ConsoleExporter<W> {
    /// To `out`; `None` where the feature `json` is not built in.
    pub fn new(out: W) -> Option<Self> {
        Some(Self { out, line: Line::new()?, is_within_line: false })
    }
}

impl<W> fmt::Debug for ConsoleExporter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsoleExporter").finish_non_exhaustive()
    }
}

impl<W: Write> Transport for ConsoleExporter<W> {
    fn attempt(
        &mut self,
        request: &Request,
        _timeout: Option<Duration>,
        _wall: SystemTime,
    ) -> Result<Accepted, Refusal> {
        let Self { out, line, is_within_line } = self;
        line.send(request, |line| {
            if *is_within_line {
                out.write_all(b"\n")?;
            }
            *is_within_line = true;
            out.write_all(line)?;
            out.flush()?;
            *is_within_line = false;
            Ok(())
        })
    }
}

/// A request as a line, in memory that is used again.
#[derive(Debug)]
struct Line {
    _built_in: JsonBuiltIn,
    text: String,
}

impl Line {
    fn new() -> Option<Self> {
        Some(Self { _built_in: JsonBuiltIn::get()?, text: String::new() })
    }

    /// Hands the line of `request` to `write`.
    fn send(
        &mut self,
        request: &Request,
        write: impl FnOnce(&[u8]) -> io::Result<()>,
    ) -> Result<Accepted, Refusal> {
        self.text.clear();
        self.text.shrink_to(MAX_KEPT);
        let transcoded = json::transcode(descriptor(request.signal), &request.body, &mut self.text);
        let written = transcoded.map_err(Failure::Json).and_then(|()| {
            self.text.push('\n');
            write(self.text.as_bytes()).map_err(Failure::Write)
        });
        written.map(|()| Accepted::default()).map_err(refusal)
    }
}

fn refusal(failure: Failure) -> Refusal {
    Refusal { failure: Box::new(failure), asked_to_wait: None, ambiguous: false }
}

/// What the requests of a signal look like.
pub(super) fn descriptor(signal: Signal) -> &'static Descriptor {
    match signal {
        Signal::Metrics => metrics::ExportMetricsServiceRequest::descriptor(),
        Signal::Traces => trace::ExportTraceServiceRequest::descriptor(),
        Signal::Logs => logs::ExportLogsServiceRequest::descriptor(),
        Signal::Profiles => profiles::ExportProfilesServiceRequest::descriptor(),
    }
}

#[cfg(all(test, feature = "json"))]
mod tests;
