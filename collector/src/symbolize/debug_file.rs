//! Files for debuggers: what was moved out of a program or library, found by its build id or its link.
//!
//! Folders and names: <https://sourceware.org/gdb/current/onlinedocs/gdb.html/Separate-Debug-Files.html>.

use std::fmt::Write;
use std::sync::Arc;

use super::debuginfod::Debuginfod;
use super::elf::Elf;
use super::files::Identity;
use super::host::Place;
use super::read_at::{FileReader, ReadAt, Source, read_vec, stream};
use crate::crc32;

/// Where distributions put them.
const FOLDER: &str = "/usr/lib/debug";
/// Bytes of `.gnu_debuglink`.
const MAX_LINK: usize = 4096;
/// Bytes of a file whose checksum is computed because it has no build id, and how many of them take the time of parsing one.
const MAX_CHECKED: u64 = 256 << 20;
const CHECKED_WORK: u64 = 8;

/// The file that names and lines of another were moved to.
pub(super) struct Separate {
    /// As it was looked for, and where that led to.
    path: String,
    place: Place,
    identity: Identity,
    source: Option<Source>,
    has_names: bool,
    /// It came from a server, and may go for want of room.
    is_fetched: bool,
}

impl Separate {
    /// It, while it is open.
    pub fn source(&self) -> Option<&Source> {
        self.source.as_ref()
    }

    /// It, while it is open and if `.symtab` is in it and not in the file that it belongs to.
    pub fn names(&self) -> Option<&Source> {
        self.source().filter(|_| self.has_names)
    }

    /// The path that it was found by.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Gives the file back.
    pub fn close(&mut self) {
        self.source = None;
    }

    /// Opens it again, if it is still the same one; whether it is.
    pub fn reopen(&mut self, servers: Option<&Debuginfod>) -> bool {
        if self.source.is_none() {
            let opened = FileReader::open(&self.place).ok();
            let same = opened.filter(|(_, metadata)| Identity::of(metadata) == self.identity);
            self.source = same.map(|(reader, _)| Arc::new(reader) as Source);
        }
        if let Some(servers) = servers.filter(|_| self.is_fetched) {
            servers.used(&self.place);
        }
        self.source.is_some()
    }
}

/// What a debug file must have to be that of a file.
#[derive(Clone, Copy)]
struct Proof<'a> {
    build_id: Option<&'a [u8]>,
    checksum: Option<u32>,
}

/// Finds the debug file of a file. `places` tells where a path may lead: in the root of the process first; `work` is how much
/// debug information may be read, and becomes less.
pub(super) fn find(
    elf: &Elf,
    source: &Source,
    build_id: Option<&[u8]>,
    path: &str,
    places: &dyn Fn(&str) -> Vec<Place>,
    work: &mut u64,
) -> Option<Separate> {
    let mut open = |path: &str, proof: Proof<'_>| open_first(elf, path, proof, places, work);
    if let Some(path) = build_id.and_then(path_by_build_id) {
        if let Some(found) = open(&path, Proof { build_id, checksum: None }) {
            return Some(found);
        }
    }
    let (name, checksum) = link(elf, source)?;
    let proof = Proof { build_id, checksum: Some(checksum) };
    let (folder, own) = path.rsplit_once('/')?;
    let beside = (name != own).then(|| format!("{folder}/{name}"));
    let others = [format!("{folder}/.debug/{name}"), format!("{FOLDER}{folder}/{name}")];
    beside.into_iter().chain(others).find_map(|path| open(&path, proof))
}

/// `/usr/lib/debug/.build-id/12/3456.debug`.
fn path_by_build_id(build_id: &[u8]) -> Option<String> {
    let (first, rest) = build_id.split_first().filter(|(_, rest)| !rest.is_empty())?;
    let mut path = format!("{FOLDER}/.build-id/{first:02x}/");
    for byte in rest {
        let _ = write!(path, "{byte:02x}");
    }
    path.push_str(".debug");
    Some(path)
}

/// Name and checksum in `.gnu_debuglink`. The name is chosen by whoever made the file: it must be no path.
fn link(elf: &Elf, source: &dyn ReadAt) -> Option<(String, u32)> {
    let section = elf.section(b".gnu_debuglink")?;
    let bytes = read_vec(source, section.offset, section.size, MAX_LINK, ".gnu_debuglink").ok()?;
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let name = std::str::from_utf8(bytes.get(..end)?).ok()?;
    let checksum = bytes.get((end + 4) & !3..)?.first_chunk()?;
    let checksum =
        if elf.is_little_endian() { u32::from_le_bytes(*checksum) } else { u32::from_be_bytes(*checksum) };
    let is_name = !name.is_empty() && name != "." && name != ".." && !name.contains('/');
    is_name.then(|| (name.to_owned(), checksum))
}

/// Finds the file that a file for debuggers, itself at `path`, shares entries with (`.gnu_debugaltlink`).
pub(super) fn find_shared(
    elf: &Elf,
    source: &dyn ReadAt,
    path: &str,
    places: &dyn Fn(&str) -> Vec<Place>,
) -> Option<Separate> {
    let (name, build_id) = shared_link(elf, source)?;
    let proof = Proof { build_id: Some(&build_id), checksum: None };
    let (folder, _) = path.rsplit_once('/')?;
    let path = if name.starts_with('/') { name } else { format!("{folder}/{name}") };
    let by_id = path_by_build_id(&build_id);
    std::iter::once(path).chain(by_id).find_map(|path| open_first(elf, &path, proof, places, &mut 0))
}

/// Name and build id in `.gnu_debugaltlink`.
pub(super) fn shared_link(elf: &Elf, source: &dyn ReadAt) -> Option<(String, Vec<u8>)> {
    let section = elf.section(b".gnu_debugaltlink")?;
    let bytes = read_vec(source, section.offset, section.size, MAX_LINK, ".gnu_debugaltlink").ok()?;
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let name = std::str::from_utf8(bytes.get(..end)?).ok()?;
    let build_id = bytes.get(end + 1..).filter(|id| !id.is_empty())?;
    Some((name.to_owned(), build_id.to_vec()))
}

/// Opens the debug file of a build id that a server has sent. If there is none, it is wanted.
pub(super) fn find_fetched(elf: &Elf, build_id: &[u8], servers: &Debuginfod) -> Option<Separate> {
    let proof = Proof { build_id: Some(build_id), checksum: None };
    let open = |place: Place| {
        let path = place.display_path().to_string_lossy().into_owned();
        servers.used(&place);
        open(elf, &path, place, proof, &mut 0)
    };
    let found = servers.places(build_id).into_iter().find_map(open);
    if found.is_none() {
        servers.want(build_id);
    }
    found.map(|found| Separate { is_fetched: true, ..found })
}

/// Opens the first file that a path leads to and that proves to be what is wanted.
fn open_first(
    elf: &Elf,
    path: &str,
    proof: Proof<'_>,
    places: &dyn Fn(&str) -> Vec<Place>,
    work: &mut u64,
) -> Option<Separate> {
    places(path).into_iter().find_map(|place| open(elf, path, place, proof, work))
}

/// Opens a debug file, if it proves to be that of the file.
fn open(elf: &Elf, path: &str, place: Place, proof: Proof<'_>, work: &mut u64) -> Option<Separate> {
    let (reader, metadata) = FileReader::open(&place).ok()?;
    let debug = Elf::read(&reader).ok()?;
    let is_it = match (proof.build_id, debug.build_id(&reader), proof.checksum) {
        (Some(wanted), Some(found), _) => found == wanted,
        (_, _, Some(wanted)) => checksum(&reader, work) == Some(wanted),
        _ => false,
    };
    is_it.then(|| Separate {
        path: path.to_owned(),
        place,
        identity: Identity::of(&metadata),
        source: Some(Arc::new(reader)),
        has_names: !elf.has_symbols() && debug.has_symbols(),
        is_fetched: false,
    })
}

fn checksum(source: &dyn ReadAt, work: &mut u64) -> Option<u32> {
    let size = Some(source.size()).filter(|size| *size <= MAX_CHECKED)?;
    *work = work.checked_sub(size / CHECKED_WORK)?;
    let mut digest = crc32::digest();
    stream(source, 0, size, 1, "a debug file", |piece| digest.update(piece)).ok()?;
    Some(digest.finalize())
}
