use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::*;

/// A folder of a test, removed with what is in it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ebpf-otlp-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn exporter(&self, options: &str) -> FileExporter {
        FileExporter::new(&self.settings(options)).unwrap()
    }

    fn settings(&self, options: &str) -> FileSettings {
        let url = format!("file://{}/?{options}", self.0.display());
        let mut settings = FileSettings::parse(&url, Signal::Traces, Some(2)).unwrap();
        assert!(settings.absorb(&FileSettings::parse(&url, Signal::Logs, Some(2)).unwrap()));
        settings
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A request with one resource, and its line.
const TRACES: (&[u8], &str) = (b"\x0a\x00", "{\"resourceSpans\":[{}]}\n");
const LOGS: (&[u8], &str) = (b"\x0a\x00", "{\"resourceLogs\":[{}]}\n");

fn request(signal: Signal, body: &'static [u8]) -> Request {
    Request { signal, items: 1, body: Bytes::from_static(body) }
}

fn send(exporter: &mut impl Transport, signal: Signal) -> Result<Accepted, Refusal> {
    exporter.attempt(&request(signal, TRACES.0), None, SystemTime::UNIX_EPOCH)
}

fn refusal(exporter: &mut impl Transport) -> String {
    let refusal = send(exporter, Signal::Traces).unwrap_err();
    assert!(refusal.failure.is_retryable() && !refusal.ambiguous);
    refusal.failure.to_string()
}

#[test]
fn every_signal_has_its_file_of_lines() {
    let folder = Folder::new("signals");
    let mut exporter = folder.exporter("");
    assert_eq!(folder.names(), [""; 0]);
    for signal in [Signal::Traces, Signal::Logs, Signal::Traces] {
        assert_eq!(send(&mut exporter, signal).unwrap(), Accepted::default());
    }
    assert_eq!(folder.read("traces.jsonl"), TRACES.1.repeat(2));
    assert_eq!(folder.read("logs.jsonl"), LOGS.1);
    let mode = fs::metadata(folder.0.join("logs.jsonl")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(send(&mut exporter, Signal::Metrics).is_err());
    // Another process goes on where this one ended.
    drop(exporter);
    send(&mut folder.exporter("sync=true"), Signal::Traces).unwrap();
    assert_eq!(folder.read("traces.jsonl"), TRACES.1.repeat(3));
}

#[test]
fn what_is_no_request_is_refused_for_good() {
    let folder = Folder::new("broken");
    let mut exporter = folder.exporter("");
    let broken = request(Signal::Traces, b"\x0a\x05");
    let refusal = exporter.attempt(&broken, None, SystemTime::UNIX_EPOCH).unwrap_err();
    assert!(matches!(*refusal.failure, Failure::Json(_)) && !refusal.failure.is_retryable());
    send(&mut exporter, Signal::Traces).unwrap();
    assert_eq!(folder.read("traces.jsonl"), TRACES.1);
}

#[test]
fn files_rotate_at_their_size() {
    for (backups, expected) in [
        (0, &["traces.jsonl"][..]),
        (1, &["traces.1.jsonl", "traces.jsonl"]),
        (3, &["traces.1.jsonl", "traces.2.jsonl", "traces.3.jsonl", "traces.jsonl"]),
    ] {
        let folder = Folder::new(&format!("rotate-{backups}"));
        let mut settings = folder.settings(&format!("max_backups={backups}"));
        settings.max_bytes = 2 * TRACES.1.len() as u64 + 1;
        let mut exporter = FileExporter::new(&settings).unwrap();
        // Two lines a file, and one in the last.
        for _ in 0..11 {
            send(&mut exporter, Signal::Traces).unwrap();
        }
        assert_eq!(folder.names(), expected);
        assert_eq!(folder.read("traces.jsonl"), TRACES.1);
        for backup in &expected[..expected.len() - 1] {
            assert_eq!(folder.read(backup), TRACES.1.repeat(2));
        }
        // A line longer than the limit is a file of its own.
        settings.max_bytes = 3;
        drop(exporter);
        let mut exporter = FileExporter::new(&settings).unwrap();
        send(&mut exporter, Signal::Traces).unwrap();
        send(&mut exporter, Signal::Traces).unwrap();
        assert_eq!(folder.read("traces.jsonl"), TRACES.1);
    }
}

#[test]
fn a_symbolic_link_stays_over_rotations() {
    let folder = Folder::new("link");
    fs::create_dir(folder.0.join("data")).unwrap();
    symlink("data/x.jsonl", folder.0.join("traces.jsonl")).unwrap();
    let mut settings = folder.settings("");
    settings.max_bytes = 1;
    let mut exporter = FileExporter::new(&settings).unwrap();
    send(&mut exporter, Signal::Traces).unwrap();
    send(&mut exporter, Signal::Traces).unwrap();
    assert_eq!(folder.names(), ["data", "traces.jsonl"]);
    assert_eq!(folder.read("data/x.1.jsonl") + &folder.read("traces.jsonl"), TRACES.1.repeat(2));
}

#[test]
fn files_that_are_moved_away_are_made_again() {
    let folder = Folder::new("moved");
    let mut exporter = folder.exporter("");
    send(&mut exporter, Signal::Traces).unwrap();
    fs::rename(folder.0.join("traces.jsonl"), folder.0.join("old")).unwrap();
    send(&mut exporter, Signal::Traces).unwrap();
    assert_eq!((folder.read("old"), folder.read("traces.jsonl")), (TRACES.1.into(), TRACES.1.into()));
}

#[test]
fn a_part_of_a_line_is_ended_and_nothing_is_taken_away() {
    let folder = Folder::new("part");
    fs::write(folder.0.join("traces.jsonl"), "{\"resou").unwrap();
    send(&mut folder.exporter(""), Signal::Traces).unwrap();
    assert_eq!(folder.read("traces.jsonl"), format!("{{\"resou\n{}", TRACES.1));
}

#[test]
fn what_cannot_be_written_is_tried_again() {
    let folder = Folder::new("refused");
    let mut exporter = folder.exporter("");
    let file = folder.0.join("traces.jsonl");
    fs::create_dir(&file).unwrap();
    assert!(refusal(&mut exporter).starts_with("it cannot be written ("));
    fs::remove_dir(&file).unwrap();
    send(&mut exporter, Signal::Traces).unwrap();

    let mut second = folder.exporter("");
    assert_eq!(refusal(&mut second), "it cannot be written (another process writes it)");
    drop(exporter);
    send(&mut second, Signal::Traces).unwrap();

    let url = "file:///dev/full";
    let mut device = FileExporter::new(&FileSettings::parse(url, Signal::Traces, None).unwrap()).unwrap();
    assert_eq!(refusal(&mut device), "it cannot be written (not a regular file)");
    let gone = format!("file://{}/none/x", folder.0.display());
    let mut gone = FileExporter::new(&FileSettings::parse(&gone, Signal::Traces, None).unwrap()).unwrap();
    assert!(refusal(&mut gone).contains("No such file"), "folders are not made");
    assert!(!Path::new(&folder.0).join("none").exists());
}

/// Takes `room` bytes, then fails with `kind`.
struct Stream {
    written: Vec<u8>,
    room: usize,
    kind: io::ErrorKind,
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.room);
        if taken == 0 {
            return Err(self.kind.into());
        }
        self.room -= taken;
        self.written.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_console_goes_on_with_a_line_of_its_own() {
    let stream = Stream { written: Vec::new(), room: 30, kind: io::ErrorKind::StorageFull };
    let mut console = ConsoleExporter::new(stream).unwrap();
    send(&mut console, Signal::Traces).unwrap();
    refusal(&mut console);
    console.out.room = 100;
    send(&mut console, Signal::Logs).unwrap();
    let part = &TRACES.1[..30 - TRACES.1.len()];
    assert_eq!(String::from_utf8_lossy(&console.out.written), format!("{}{part}\n{}", TRACES.1, LOGS.1));

    console.out = Stream { written: Vec::new(), room: 0, kind: io::ErrorKind::BrokenPipe };
    let refusal = send(&mut console, Signal::Traces).unwrap_err();
    assert!(!refusal.failure.is_retryable(), "who has read enough does not come back");
}
