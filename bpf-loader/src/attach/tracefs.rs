//! The kernel's tracing file system: numbers of tracepoints, and probes defined by writing to it, as before Linux 4.17.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{Error, Result};

/// Where the file system is mounted: at its own place (Linux 4.1) or in debugfs.
pub(super) fn directory() -> &'static Path {
    let own = Path::new("/sys/kernel/tracing");
    if own.join("events").exists() { own } else { Path::new("/sys/kernel/debug/tracing") }
}

pub(super) fn file_error(path: &Path, error: &std::io::Error) -> Box<Error> {
    Box::new(Error::File { path: path.to_owned(), reason: error.to_string() })
}

/// The number in a file such as `.../id` ("314") or `.../format/retprobe` ("config:0").
pub(super) fn read_number(path: &Path) -> Result<u64> {
    let text = fs::read_to_string(path).map_err(|e| file_error(path, &e))?;
    let text = text.trim();
    let digits = text.rsplit_once(':').map_or(text, |(_, number)| number);
    digits
        .parse()
        .map_err(|_| Box::new(Error::File { path: path.to_owned(), reason: format!("no number: {text}") }))
}

/// `perf_event_attr.config` of a tracepoint.
pub(super) fn event_id(category: &str, name: &str) -> Result<u64> {
    let no_such = || Box::new(Error::NoSuchTarget { name: format!("tracepoint {category}/{name}") });
    // Both are names of directories.
    if [category, name]
        .iter()
        .any(|part| part.is_empty() || part.as_bytes().contains(&b'/') || part.starts_with('.'))
    {
        return Err(no_such());
    }
    let path = directory().join("events").join(category).join(name).join("id");
    match fs::metadata(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound && directory().join("events").exists() => Err(no_such()),
        _ => read_number(&path),
    }
}

/// Which file defines a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProbeFile {
    Kprobe,
    Uprobe,
}

impl ProbeFile {
    /// A kernel with a tracing file system, and without such probes.
    fn not_configured(self) -> Box<Error> {
        let (feature, option) = match self {
            Self::Kprobe => ("probes of the kernel", "CONFIG_KPROBE_EVENTS"),
            Self::Uprobe => ("probes of programs", "CONFIG_UPROBE_EVENTS"),
        };
        Box::new(Error::NotConfigured { feature, option })
    }

    fn path(self) -> PathBuf {
        directory().join(match self {
            Self::Kprobe => "kprobe_events",
            Self::Uprobe => "uprobe_events",
        })
    }
}

/// A probe that is defined in the tracing file system until this is dropped. It cannot be removed while a perf event
/// uses it.
#[derive(Debug)]
pub(super) struct ProbeEvent {
    file: ProbeFile,
    name: String,
}

/// Group of our probes below `events`.
const GROUP: &str = "ebpf_otlp";

impl ProbeEvent {
    /// Defines a probe at `place`, which is `function+0x0` or `path:0x0`.
    pub(super) fn define(file: ProbeFile, ret: bool, place: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("p{}_{number}", std::process::id());
        let kind = if ret { 'r' } else { 'p' };
        let path = file.path();
        match append(&path, &format!("{kind}:{GROUP}/{name} {place}\n")) {
            Ok(()) => Ok(Self { file, name }),
            // The file itself is there.
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) && path.exists() => {
                Err(Box::new(Error::NoSuchTarget { name: format!("place {place} that can be probed") }))
            }
            Err(e) if e.kind() == ErrorKind::NotFound && directory().join("events").exists() => {
                Err(file.not_configured())
            }
            Err(e) => Err(file_error(&path, &e)),
        }
    }

    /// `perf_event_attr.config` of it, of kind tracepoint.
    pub(super) fn id(&self) -> Result<u64> {
        event_id(GROUP, &self.name)
    }
}

impl Drop for ProbeEvent {
    fn drop(&mut self) {
        // A failure leaves a definition that traces nothing.
        let _ = append(&self.file.path(), &format!("-:{GROUP}/{}\n", self.name));
    }
}

fn append(path: &Path, line: &str) -> std::io::Result<()> {
    OpenOptions::new().append(true).open(path)?.write_all(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_no_tracepoints() {
        for (category, name) in [("", "a"), ("a", ""), ("..", "x"), ("a", "../b"), ("a/b", "c")] {
            let e = event_id(category, name).unwrap_err();
            assert!(matches!(*e, Error::NoSuchTarget { .. }), "{category} {name}: {e}");
        }
    }

    #[test]
    fn numbers_stand_alone_or_after_a_colon() {
        let path = std::env::temp_dir().join(format!("bpf-loader-number-{}", std::process::id()));
        for (text, number) in [("8\n", Some(8)), ("config:3\n", Some(3)), ("config:\n", None), ("x", None)] {
            fs::write(&path, text).unwrap();
            assert_eq!(read_number(&path).ok(), number, "{text:?}");
        }
        fs::remove_file(&path).unwrap();
    }
}
