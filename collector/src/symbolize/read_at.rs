//! Reads at an offset, in bounded pieces.
//!
//! Watched files are never mapped: a file that its owner truncates under a mapping is a SIGBUS for whoever
//! touches the page, while `pread` only returns less.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::FileExt;

use super::error::SymbolizeError;
use super::host::{Place, open_regular};

/// Piece in which tables are streamed.
const PIECE: usize = 64 * 1024;
/// Piece in which names are read: most fit into the first.
const NAME_PIECE: usize = 256;

/// A source of bytes that may shrink or change while it is read.
pub trait ReadAt {
    /// Size in bytes when it was opened.
    fn size(&self) -> u64;

    /// Reads up to `buffer.len()` bytes at `offset`; 0 past the end.
    ///
    /// # Errors
    /// What the operating system says.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

/// What holds an open file. (A box is less code, where nobody shares it.)
#[cfg(feature = "symbols")]
pub(super) use std::sync::Arc as Shared;

#[cfg(not(feature = "symbols"))]
pub(super) use std::boxed::Box as Shared;

/// An open file.
pub(super) type Source = Shared<dyn ReadAt + Send + Sync>;

impl ReadAt for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|start| self.get(start..)).unwrap_or(&[]);
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

impl ReadAt for Vec<u8> {
    fn size(&self) -> u64 {
        self.as_slice().size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.as_slice().read_at(offset, buffer)
    }
}

#[cfg(feature = "symbols")]
impl<T: ReadAt + ?Sized> ReadAt for Shared<T> {
    fn size(&self) -> u64 {
        (**self).size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        (**self).read_at(offset, buffer)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn size(&self) -> u64 {
        (**self).size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        (**self).read_at(offset, buffer)
    }
}

/// A regular file, read with `pread`.
#[derive(Debug)]
pub struct FileReader {
    file: File,
    size: u64,
}

impl FileReader {
    /// Opens a regular file for reading, and tells what it is.
    ///
    /// # Errors
    /// [`SymbolizeError::Open`] where the path cannot be opened or is no regular file.
    pub fn open(place: &Place) -> Result<(Self, Metadata), Box<SymbolizeError>> {
        let (file, metadata) = open_regular(place)?;
        Ok((Self { file, size: metadata.len() }, metadata))
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl ReadAt for FileReader {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.file.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}

/// Fills `buffer` from `offset`.
///
/// # Errors
/// [`SymbolizeError::Truncated`] where the source ends first, [`SymbolizeError::Read`] where reading fails.
pub fn read_exact_at(
    source: &dyn ReadAt,
    offset: u64,
    buffer: &mut [u8],
    what: &'static str,
) -> Result<(), Box<SymbolizeError>> {
    let mut done = 0;
    while done < buffer.len() {
        let at = offset.checked_add(done as u64).ok_or(SymbolizeError::Truncated { what, offset })?;
        let count = source.read_at(at, &mut buffer[done..]).map_err(|source| SymbolizeError::Read {
            what,
            offset: at,
            source,
        })?;
        if count == 0 {
            return Err(Box::new(SymbolizeError::Truncated { what, offset: at }));
        }
        done += count;
    }
    Ok(())
}

/// Reads `size` bytes at `offset` into memory of their own, `limit` at most.
///
/// # Errors
/// [`SymbolizeError::TooLarge`] past the limit, otherwise as [`read_exact_at`].
pub fn read_vec(
    source: &dyn ReadAt,
    offset: u64,
    size: u64,
    limit: usize,
    what: &'static str,
) -> Result<Vec<u8>, Box<SymbolizeError>> {
    check_range(source, offset, size, what)?;
    let length = usize::try_from(size).ok().filter(|&length| length <= limit);
    let length = length.ok_or(SymbolizeError::TooLarge { what, size, limit: limit as u64 })?;
    let mut bytes = vec![0; length];
    read_exact_at(source, offset, &mut bytes, what)?;
    Ok(bytes)
}

/// Hands `size` bytes at `offset` to `visit` piece by piece, each a whole number of `entry` bytes.
///
/// # Errors
/// As [`read_exact_at`]; what does not fill an entry at the end is left out.
pub fn stream(
    source: &dyn ReadAt,
    offset: u64,
    size: u64,
    entry: usize,
    what: &'static str,
    mut visit: impl FnMut(&[u8]),
) -> Result<(), Box<SymbolizeError>> {
    check_range(source, offset, size, what)?;
    if entry == 0 || entry > PIECE {
        return Err(Box::new(SymbolizeError::TooLarge { what, size: entry as u64, limit: PIECE as u64 }));
    }
    let whole = size - size % entry as u64;
    let piece = (PIECE - PIECE % entry) as u64;
    let mut buffer = vec![0; piece.min(whole) as usize];
    let mut done = 0;
    while done < whole {
        let count = piece.min(whole - done) as usize;
        let part = &mut buffer[..count];
        read_exact_at(source, offset + done, part, what)?;
        visit(part);
        done += count as u64;
    }
    Ok(())
}

/// Reads a NUL-terminated string that starts at `offset` and ends before `end`; `limit` bytes at most are kept.
///
/// # Errors
/// As [`read_exact_at`].
pub fn read_name(
    source: &dyn ReadAt,
    offset: u64,
    end: u64,
    limit: usize,
) -> Result<Vec<u8>, Box<SymbolizeError>> {
    let mut name = Vec::new();
    let mut piece = [0; NAME_PIECE];
    while name.len() < limit {
        let at = offset.saturating_add(name.len() as u64);
        let want = (end.saturating_sub(at)).min(NAME_PIECE as u64).min((limit - name.len()) as u64) as usize;
        if want == 0 {
            break;
        }
        let count = source.read_at(at, &mut piece[..want]).map_err(|source| SymbolizeError::Read {
            what: "a name",
            offset: at,
            source,
        })?;
        let got = &piece[..count];
        match got.iter().position(|&byte| byte == 0) {
            Some(stop) => {
                name.extend_from_slice(&got[..stop]);
                return Ok(name);
            }
            None if count == 0 => {
                return Err(Box::new(SymbolizeError::Truncated { what: "a name", offset: at }));
            }
            None => name.extend_from_slice(got),
        }
    }
    Ok(name)
}

/// A range that the source cannot hold is refused before anything is allocated for it.
fn check_range(
    source: &dyn ReadAt,
    offset: u64,
    size: u64,
    what: &'static str,
) -> Result<(), Box<SymbolizeError>> {
    match offset.checked_add(size) {
        Some(end) if end <= source.size() => Ok(()),
        _ => Err(Box::new(SymbolizeError::Truncated { what, offset })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Claims more than it has, as a file does that is truncated after it was opened.
    struct Shrunk(Vec<u8>);

    impl ReadAt for Shrunk {
        fn size(&self) -> u64 {
            1 << 20
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.as_slice().read_at(offset, buffer)
        }
    }

    #[test]
    fn a_file_that_shrinks_is_an_error() {
        let source = Shrunk(vec![1; 100]);
        assert!(matches!(
            read_vec(&source, 90, 20, 1000, "it").map_err(|e| *e),
            Err(SymbolizeError::Truncated { offset: 100, .. })
        ));
        let mut seen = 0;
        assert!(stream(&source, 0, 200, 8, "it", |piece| seen += piece.len()).is_err());
        assert_eq!(seen, 0);
    }

    #[test]
    fn sizes_are_checked_before_memory_is_reserved() {
        let source: &[u8] = &[0; 16];
        assert!(matches!(
            read_vec(&source, 0, u64::MAX, usize::MAX, "it").map_err(|e| *e),
            Err(SymbolizeError::Truncated { .. })
        ));
        assert!(matches!(
            read_vec(&Shrunk(Vec::new()), 0, 4096, 4095, "it").map_err(|e| *e),
            Err(SymbolizeError::TooLarge { size: 4096, limit: 4095, .. })
        ));
    }

    #[test]
    fn names_end_at_nul_at_the_end_and_at_the_limit() {
        let mut bytes = vec![b'a'; 600];
        bytes.push(0);
        bytes.extend_from_slice(b"bc");
        let source = bytes.as_slice();
        assert_eq!(read_name(&source, 0, 603, 4096).unwrap().len(), 600);
        assert_eq!(read_name(&source, 599, 603, 4096).unwrap(), b"a");
        assert_eq!(read_name(&source, 601, 603, 4096).unwrap(), b"bc");
        assert_eq!(read_name(&source, 0, 603, 300).unwrap().len(), 300);
        assert!(read_name(&source, 700, 800, 4096).is_err());
    }

    #[test]
    fn a_stream_keeps_entries_whole() {
        let bytes: Vec<u8> = (0..200_003_u32).map(|i| i as u8).collect();
        let mut joined = Vec::new();
        stream(&bytes.as_slice(), 0, 200_003, 24, "it", |piece| {
            assert_eq!(piece.len() % 24, 0);
            joined.extend_from_slice(piece);
        })
        .unwrap();
        assert_eq!(joined, bytes[..200_003 - 200_003 % 24]);
    }
}
