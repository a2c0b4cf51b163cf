//! A file that appears whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::OutputError;

/// Names tried for the temporary file before giving up; more than one only after a crash left some behind.
const MAX_TEMPORARY_NAMES: u32 = 100;

/// An output that a user named, opened before the work starts, so that an unwritable path is known then.
///
/// Regular files are written beside their place and renamed into it by [`OutputFile::commit`]; dropped without
/// it, the file that was there before (or none) stays. Devices and pipes are written as they are.
#[derive(Debug)]
pub struct OutputFile {
    given: PathBuf,
    writer: BufWriter<File>,
    /// Where the bytes are until `commit`, and where they go then; `None` for devices and pipes.
    rename: Option<Rename>,
}

#[derive(Debug)]
struct Rename {
    temporary: PathBuf,
    target: PathBuf,
}

impl Drop for Rename {
    fn drop(&mut self) {
        // After a commit the name is gone, and the error with it is the expected one.
        let _ = fs::remove_file(&self.temporary);
    }
}

impl OutputFile {
    /// Opens `path` for writing without touching what is there.
    ///
    /// # Errors
    ///
    /// [`OutputError::Open`] where the file or its folder cannot be written.
    pub fn create(path: &Path) -> Result<Self, OutputError> {
        Self::open(path).map_err(|source| OutputError::Open { path: path.to_owned(), source })
    }

    fn open(path: &Path) -> io::Result<Self> {
        let (target, mode) = match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => {
                // Renaming needs only the folder: ask for the file itself too, so that a read-only one is kept.
                OpenOptions::new().append(true).open(path)?;
                // A symbolic link stays, and its target is replaced.
                (fs::canonicalize(path)?, Some(metadata.permissions()))
            }
            Ok(metadata) if metadata.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(_) => {
                let writer = BufWriter::new(OpenOptions::new().write(true).open(path)?);
                return Ok(Self { given: path.to_owned(), writer, rename: None });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => (path.to_owned(), None),
            Err(error) => return Err(error),
        };
        let (file, temporary) = create_beside(&target)?;
        let rename = Rename { temporary, target };
        if let Some(mode) = mode {
            file.set_permissions(mode)?;
        }
        Ok(Self { given: path.to_owned(), writer: BufWriter::new(file), rename: Some(rename) })
    }

    /// Puts the finished file in its place.
    ///
    /// # Errors
    ///
    /// [`OutputError::Write`]; what was at the path before is still there then.
    pub fn commit(mut self) -> Result<(), OutputError> {
        let done = self.writer.flush().and_then(|()| match &self.rename {
            Some(Rename { temporary, target }) => fs::rename(temporary, target),
            None => Ok(()),
        });
        done.map_err(|source| self.write_error(source))
    }

    /// `source` as the failure to write this file, with its path.
    pub fn write_error(&self, source: io::Error) -> OutputError {
        OutputError::Write { path: self.given.clone(), source }
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// A new, hidden file in the folder of `target`.
fn create_beside(target: &Path) -> io::Result<(File, PathBuf)> {
    let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    for attempt in 0..MAX_TEMPORARY_NAMES {
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}-{attempt}.tmp", std::process::id()));
        let temporary = target.with_file_name(hidden);
        // `create_new` follows no link that someone else put there.
        match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Ok(file) => return Ok((file, temporary)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// An empty folder of one test's own, removed at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ebpf-otlp-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn names(&self) -> Vec<String> {
            fs::read_dir(&self.0)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn appears_whole_at_commit() {
        let folder = Folder::new("commit");
        let path = folder.0.join("a.svg");
        let mut file = OutputFile::create(&path).unwrap();
        file.write_all(b"whole").unwrap();
        assert!(!path.exists());
        file.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(folder.names(), ["a.svg"]);
    }

    #[test]
    fn dropped_it_leaves_what_was_there() {
        let folder = Folder::new("drop");
        let path = folder.0.join("a.svg");
        fs::write(&path, b"old").unwrap();
        let mut file = OutputFile::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(folder.names(), ["a.svg"]);
    }

    #[test]
    fn replaces_a_links_target_and_keeps_its_mode() {
        let folder = Folder::new("link");
        let (target, link) = (folder.0.join("real.svg"), folder.0.join("link.svg"));
        fs::write(&target, b"old").unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&target, &link).unwrap();
        let mut file = OutputFile::create(&link).unwrap();
        file.write_all(b"new").unwrap();
        file.commit().unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn devices_are_written_in_place() {
        let mut file = OutputFile::create(Path::new("/dev/null")).unwrap();
        file.write_all(b"gone").unwrap();
        file.commit().unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn unwritable_paths_are_known_at_once() {
        let folder = Folder::new("unwritable");
        let missing = OutputFile::create(&folder.0.join("none/a.svg")).unwrap_err();
        assert!(
            matches!(&missing, OutputError::Open { source, .. } if source.kind() == io::ErrorKind::NotFound)
        );
        assert!(missing.to_string().ends_with("none/a.svg for writing"), "{missing}");
        let directory = OutputFile::create(&folder.0).unwrap_err();
        assert!(
            matches!(&directory, OutputError::Open { source, .. } if source.kind() == io::ErrorKind::IsADirectory)
        );
        assert!(folder.names().is_empty());
    }

    #[test]
    fn a_stale_temporary_file_is_not_in_the_way() {
        let folder = Folder::new("stale");
        let path = folder.0.join("a.svg");
        let first = OutputFile::create(&path).unwrap();
        let second = OutputFile::create(&path).unwrap();
        assert_eq!(folder.names().len(), 2);
        drop((first, second));
        assert!(folder.names().is_empty());
    }
}
