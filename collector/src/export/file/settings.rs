//! `file://` URLs: where lines are written, and how much of them is kept.

use bpf_loader::text;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::export::{EndpointProblem, Signal};
use crate::percent;

/// Size of a file in MiB unless its URL says otherwise, as in the Collector.
const DEFAULT_MEGABYTES: u64 = 100;
/// Old files that are kept unless the URL says otherwise: with the current one, 600 MiB a signal.
const DEFAULT_BACKUPS: u32 = 5;
/// Most old files: every rotation renames them all.
const MAX_BACKUPS: u32 = 1000;
/// Endings of a path that names a file and no folder.
const FILE_ENDINGS: [&str; 2] = ["jsonl", "json"];

/// The files of OTLP JSON lines of one sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSettings {
    /// Signals with the file of each: one holds lines of one signal.
    pub files: Vec<(Signal, PathBuf)>,
    /// Size in bytes past which a file is not appended to.
    pub max_bytes: u64,
    /// Old files that are kept beside each.
    pub max_backups: u32,
    /// Whether every line is on the disk before it counts as written.
    pub sync: bool,
}

impl FileSettings {
    /// What `file:///path` says, with `?max_megabytes=100&max_backups=5&sync=false` or some of that.
    ///
    /// `base` is for how many signals the URL stands, or `None` where it is the signal's own and names its file. A
    /// base is a folder with a file a signal, `traces.jsonl` and so on; for a single signal it may be a file, which
    /// ends in `.jsonl` or `.json`.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(url: &str, signal: Signal, base: Option<usize>) -> Result<Self, EndpointProblem> {
        if !cfg!(feature = "json") {
            return Err(EndpointProblem::Json);
        }
        let rest = text::split_once(url, "://").ok_or(EndpointProblem::NoFile)?.1;
        let (place, query) = rest.split_once('?').map_or((rest, ""), |(place, query)| (place, query));
        let path = place.strip_prefix("localhost").unwrap_or(place);
        if !path.starts_with('/') || path.as_bytes().contains(&b'#') || !percent::is_encoded(path.as_bytes())
        {
            return Err(EndpointProblem::NoFile);
        }
        let bytes = percent::decode(path.as_bytes());
        let is_folder = bytes.ends_with(b"/");
        if bytes.contains(&0) {
            return Err(EndpointProblem::NoFile);
        }
        let path = PathBuf::from(OsString::from_vec(bytes));
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        let is_file = !is_folder && FILE_ENDINGS.contains(&ending);
        let path = match base {
            None if is_folder => return Err(EndpointProblem::NoFile),
            Some(signals) if is_file && signals > 1 => return Err(EndpointProblem::SharedFile),
            Some(_) if !is_file => path.join(format!("{}.jsonl", signal.noun())),
            _ => path,
        };
        let mut settings = Self {
            files: vec![(signal, path)],
            max_bytes: DEFAULT_MEGABYTES << 20,
            max_backups: DEFAULT_BACKUPS,
            sync: false,
        };
        for option in query.split('&').filter(|option| !option.is_empty()) {
            settings.set(option).ok_or(EndpointProblem::FileOption)?;
        }
        Ok(settings)
    }

    fn set(&mut self, option: &str) -> Option<()> {
        let (name, value) = option.split_once('=')?;
        match name {
            "max_megabytes" => {
                let megabytes = value.parse().ok().filter(|&megabytes| megabytes > 0)?;
                self.max_bytes = 1_u64.checked_shl(20)?.checked_mul(megabytes)?;
            }
            "max_backups" => {
                self.max_backups = value.parse().ok().filter(|&backups| backups <= MAX_BACKUPS)?
            }
            "sync" => self.sync = value.parse().ok()?,
            _ => return None,
        }
        Some(())
    }

    /// The file of a signal; `None` where the signal is not written.
    pub fn path(&self, signal: Signal) -> Option<&Path> {
        self.files.iter().find(|(own, _)| *own == signal).map(|(_, path)| path.as_path())
    }

    /// Takes `other`'s files over if nothing else differs.
    pub(crate) fn absorb(&mut self, other: &Self) -> bool {
        let others = |settings: &Self| Self { files: Vec::new(), ..settings.clone() };
        let alike = others(self) == others(other);
        if alike {
            self.files.extend(other.files.iter().cloned());
        }
        alike
    }
}

#[cfg(all(test, feature = "json"))]
mod tests {
    use super::*;

    #[test]
    fn urls_name_folders_or_files() {
        for (url, base, path) in [
            ("file:///var/log/otlp", Some(4), "/var/log/otlp/traces.jsonl"),
            ("file:///var/log/otlp/", Some(1), "/var/log/otlp/traces.jsonl"),
            ("FILE://localhost/a.b", Some(1), "/a.b/traces.jsonl"),
            ("file:///", Some(2), "/traces.jsonl"),
            ("file:///tmp/a.jsonl/", Some(2), "/tmp/a.jsonl/traces.jsonl"),
            ("file:///tmp/a.jsonl", Some(1), "/tmp/a.jsonl"),
            ("file:///tmp/a.json?sync=true", Some(1), "/tmp/a.json"),
            ("file:///tmp/own", None, "/tmp/own"),
            ("file:///tmp/a%20%C3%A9%3F", None, "/tmp/a é?"),
        ] {
            let settings = FileSettings::parse(url, Signal::Traces, base).unwrap();
            assert_eq!(settings.path(Signal::Traces), Some(Path::new(path)), "{url}");
            assert_eq!(settings.path(Signal::Logs), None);
        }
    }

    #[test]
    fn options_are_read() {
        let parse = |query: &str| {
            FileSettings::parse(&format!("file:///d?{query}"), Signal::Logs, Some(1))
                .map(|settings| (settings.max_bytes >> 20, settings.max_backups, settings.sync))
        };
        assert_eq!(parse(""), Ok((100, 5, false)));
        assert_eq!(parse("max_megabytes=1&&max_backups=0&sync=true"), Ok((1, 0, true)));
        for bad in ["x=1", "sync", "sync=1", "max_megabytes=0", "max_backups=-1", "max_backups=1001"] {
            assert_eq!(parse(bad), Err(EndpointProblem::FileOption), "{bad}");
        }
        assert_eq!(parse(&format!("max_megabytes={}", u64::MAX)), Err(EndpointProblem::FileOption));
    }

    #[test]
    fn what_names_no_file_is_told() {
        use EndpointProblem::*;
        for (url, base, problem) in [
            ("file:", Some(1), NoFile),
            ("file:/tmp", Some(1), NoFile),
            ("file://", Some(1), NoFile),
            ("file://host/tmp", Some(1), NoFile),
            ("file://tmp/a.jsonl", Some(1), NoFile),
            ("file:///a%00b", Some(1), NoFile),
            ("file:///a%b", Some(1), NoFile),
            ("file:///tmp/", None, NoFile),
            ("file:///tmp/a.jsonl", Some(2), SharedFile),
        ] {
            assert_eq!(FileSettings::parse(url, Signal::Traces, base).unwrap_err(), problem, "{url}");
        }
    }
}
