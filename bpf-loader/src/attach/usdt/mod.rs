//! User statically defined tracing: probes that programs and libraries bring with them, with arguments.
//!
//! The BPF side is libbpf's `usdt.bpf.h` or a header like it: two maps through which it learns where a probe's
//! arguments are.

pub mod args;
pub mod note;
pub mod regs;
mod spec;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bpf_sys::uapi::flags::{BPF_ANY, BPF_NOEXIST};
use bpf_sys::{Errno, MapFd, map};

use self::args::Arg;
use self::note::{Note, Notes};
use self::regs::Registers;
use self::spec::Layout;
use super::binary::{self, Binary, Segment};
use super::{UprobeMultiOptions, UprobeOptions, section};
use crate::error::{Error, Result};
use crate::link::{Link, OlderAttachment};
use crate::load::Object;
use crate::machine::Machine;
use crate::program::Program;
use crate::sorted::SortedMap;

const SPECS: &str = "__bpf_usdt_specs";
const IPS: &str = "__bpf_usdt_ip_to_spec_id";
/// Bytes of an address in that map: those of a `long` of the BPF machine, whatever this process has.
const ADDRESS: usize = 8;

/// How a program is attached to a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UsdtOptions {
    /// Only in this process; in all, if none.
    pub pid: Option<u32>,
    /// What `bpf_usdt_cookie` gives the program.
    pub cookie: u64,
}

/// Attaches the programs of an object to USDT probes, and keeps account of what its maps say about them. All that are made
/// in one process for the same maps share the account.
#[derive(Debug)]
pub struct Usdt {
    shared: Arc<Shared>,
}

/// The accounts of this process by the id of the map of specs: two of one map would give out the same keys.
static ACCOUNTS: Mutex<SortedMap<u32, Weak<Shared>>> = Mutex::new(SortedMap::new());

#[derive(Debug)]
struct Shared {
    specs: MapFd,
    ips: MapFd,
    layout: Layout,
    ids: Mutex<Ids>,
}

/// Keys of the map of specs.
#[derive(Debug, Default)]
struct Ids {
    next: u32,
    free: Vec<u32>,
}

impl Usdt {
    /// For an object with the maps of `usdt.bpf.h`.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchMap`]: it has no such maps. [`Error::MapMember`]: they look otherwise than those of any known version.
    pub fn new(object: &Object) -> Result<Self> {
        let specs = object.map(SPECS)?.try_clone_fd()?;
        let ips = object.map(IPS)?.try_clone_fd()?;
        let layout = Layout::of_value_size(specs.value_size())
            .filter(|_| specs.key_size() == 4 && ips.value_size() == 4 && ips.key_size() == ADDRESS);
        let layout = layout.ok_or_else(|| Error::MapMember {
            map: SPECS.into(),
            member: "value".into(),
            reason: format!("{} bytes are no `struct __bpf_usdt_spec` that is known", specs.value_size()),
        })?;
        let id = map::info(&specs)?.id;
        let mut accounts = ACCOUNTS.lock().unwrap_or_else(PoisonError::into_inner);
        // An account holds its map, whose id is no other's as long.
        accounts.retain(|_, account| account.strong_count() > 0);
        let known = accounts.get(&id).and_then(Weak::upgrade);
        let shared = known.unwrap_or_else(|| {
            let new = Arc::new(Shared { specs, ips, layout, ids: Mutex::default() });
            accounts.insert(id, Arc::downgrade(&new));
            new
        });
        Ok(Self { shared })
    }

    /// Attaches a program whose section's name says to which probe: `usdt/PATH:PROVIDER:NAME`.
    ///
    /// # Errors
    ///
    /// [`Error::NoAutoAttach`]: it does not. As [`attach`](Self::attach).
    pub fn attach_by_section(&self, program: &Program) -> Result<Link> {
        let target = section::target(program)?;
        let (path, provider, name) = section::usdt(target)?;
        self.attach(program, Path::new(path), provider, name, &UsdtOptions::default())
    }

    /// Runs the program wherever the probe stands in the file, which is found as
    /// [`attach_uprobe`](Program::attach_uprobe) finds it. Counters of the probe's watchers (semaphores) are incremented as
    /// long as the link is there.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSymbol`]: no such probe. [`Error::File`]: the file, or its list of probes, cannot be read.
    /// [`Error::AttachTarget`]: an argument that this does not know; a file for another architecture. [`Error::Unsupported`]:
    /// a library, or an executable that is loaded anywhere, in all processes needs Linux 5.15.
    pub fn attach(
        &self,
        program: &Program,
        path: &Path,
        provider: &str,
        name: &str,
        options: &UsdtOptions,
    ) -> Result<Link> {
        let path = binary::resolve(path)?;
        let binary = Binary::open(&path)?;
        let file = Machine::of_elf(binary.elf.machine, binary.elf.address_size() == 8);
        let registers = file.zip(Machine::running()).and_then(|(file, kernel)| Registers::new(file, kernel));
        let registers = registers.ok_or_else(|| Error::AttachTarget {
            target: path.display().to_string(),
            reason: "a file for another architecture, or one whose registers are not known",
        })?;
        let multi = program.has_uprobe_multi();
        let by_cookie = multi || program.has_perf_links();
        let mut probes = find(&binary, registers, &path, provider, name)?;
        if !by_cookie && binary.elf.dynamic {
            let pid = options.pid.ok_or(Error::Unsupported {
                feature: "USDT probes of libraries in all processes",
                min_kernel: (5, 15),
                error: bpf_sys::Error::Call { call: "bpf(BPF_LINK_CREATE)", errno: Errno::EINVAL },
            })?;
            let mappings = Mappings::of_process(pid, &path)?;
            for probe in &mut probes {
                probe.address = mappings.address(probe.offset).ok_or_else(|| Error::AttachTarget {
                    target: path.display().to_string(),
                    reason: "the process has not loaded the file",
                })?;
            }
        }
        let mut attached = Attached {
            shared: Arc::clone(&self.shared),
            links: Vec::new(),
            ids: Vec::new(),
            addresses: Vec::new(),
        };
        let mut known: SortedMap<&[Arg], u32> = SortedMap::new();
        let mut cookies = Vec::with_capacity(probes.len());
        for probe in &probes {
            let id = match known.get(probe.args.as_slice()) {
                Some(id) => *id,
                None => {
                    let id = attached.new_spec(&probe.args, options.cookie)?;
                    known.insert(&probe.args, id);
                    id
                }
            };
            if !by_cookie {
                attached.name_address(probe.address, id)?;
            }
            cookies.push(u64::from(id));
        }
        if multi {
            let offsets: Vec<u64> = probes.iter().map(|p| p.offset).collect();
            let counters: Vec<u64> = probes.iter().map(|p| p.semaphore).collect();
            let options = UprobeMultiOptions {
                ret: false,
                pid: options.pid,
                cookies: &cookies,
                ref_ctr_offsets: &counters,
            };
            attached.links.push(Link::from_fd(program.create_uprobe_multi(&path, &offsets, &options)?));
        } else {
            for (probe, id) in probes.iter().zip(cookies) {
                let one = UprobeOptions {
                    pid: options.pid,
                    ref_ctr_offset: probe.semaphore,
                    cookie: if by_cookie { id } else { 0 },
                    ..UprobeOptions::default()
                };
                attached.links.push(program.attach_uprobe_at(&path, probe.offset, &one)?);
            }
        }
        Ok(Link::from_older(attached))
    }
}

/// A place where a probe stands.
#[derive(Debug, PartialEq, Eq)]
struct Probe {
    /// Byte of the file.
    offset: u64,
    /// Address in memory; of a file that is loaded anywhere, in the file's own numbering.
    address: u64,
    /// Byte of the file where its counter is, or 0.
    semaphore: u64,
    args: Vec<Arg>,
}

fn find(
    binary: &Binary,
    registers: Registers,
    path: &Path,
    provider: &str,
    name: &str,
) -> Result<Vec<Probe>> {
    let no_such =
        || Box::new(Error::NoSuchSymbol { path: path.to_owned(), name: format!("{provider}:{name}") });
    let elf = &binary.elf;
    let section = elf.section_named(".note.stapsdt").ok_or_else(no_such)?;
    let notes = elf.data(section).map_err(|e| binary.broken(e))?;
    let base = elf.section_named(".stapsdt.base").map_or(0, |section| section.address);
    let mut probes = Vec::new();
    for note in Notes::new(elf.bytes(&notes), elf.address_size()) {
        let note = note.map_err(|e| binary.broken(e))?;
        if note.provider == provider.as_bytes() && note.name == name.as_bytes() {
            probes.push(place(binary, registers, &note, base)?);
        }
    }
    if probes.is_empty() { Err(no_such()) } else { Ok(probes) }
}

fn place(binary: &Binary, registers: Registers, note: &Note<'_>, base: u64) -> Result<Probe> {
    let Located { offset, address, semaphore } =
        locate(&binary.elf.segments, note, base).map_err(|e| binary.broken(e))?;
    let text =
        core::str::from_utf8(note.arguments).map_err(|_| binary.broken("arguments that are no text"))?;
    let args = args::parse(registers, text).map_err(|bad| {
        let at = text.get(bad.at..).unwrap_or_default();
        Error::AttachTarget {
            target: format!("USDT argument \"{}\"", crate::error::excerpt(at).escape_default()),
            reason: bad.reason,
        }
    })?;
    Ok(Probe { offset, address, semaphore, args })
}

#[derive(Debug, PartialEq, Eq)]
struct Located {
    offset: u64,
    address: u64,
    semaphore: u64,
}

/// Finds a probe and its counter in the file. `base` is where `.stapsdt.base` is now, or 0: prelink moves sections, but does not
/// change what notes say.
fn locate(segments: &[Segment], note: &Note<'_>, base: u64) -> core::result::Result<Located, &'static str> {
    let moved = if base != 0 && note.base != 0 { base.wrapping_sub(note.base) } else { 0 };
    let loaded = |address, executable| {
        let segments = segments.iter().filter(|s| s.executable == executable);
        segments.filter_map(|s| s.file_offset(address)).next()
    };
    let address = note.location.wrapping_add(moved);
    let offset = loaded(address, true).ok_or("a probe outside the executable segments")?;
    let semaphore = match note.semaphore {
        0 => 0,
        counter => {
            loaded(counter.wrapping_add(moved), false).ok_or("a probe's counter outside the data segments")?
        }
    };
    Ok(Located { offset, address, semaphore })
}

/// Where a process has a file's code in memory.
#[derive(Debug, PartialEq, Eq)]
struct Mappings(Vec<Mapping>);

#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    start: u64,
    end: u64,
    offset: u64,
}

impl Mappings {
    fn of_process(pid: u32, path: &Path) -> Result<Self> {
        // A process in a container knows its files by other paths.
        let in_root = path.strip_prefix(format!("/proc/{pid}/root")).map(|rest| Path::new("/").join(rest));
        let path = in_root.or_else(|_| path.canonicalize()).unwrap_or_else(|_| path.to_owned());
        let maps = Path::new("/proc").join(pid.to_string()).join("maps");
        let text =
            std::fs::read(&maps).map_err(|e| Error::File { path: maps.clone(), reason: e.to_string() })?;
        Ok(Self::parse(&String::from_utf8_lossy(&text), &path.to_string_lossy()))
    }

    fn parse(maps: &str, path: &str) -> Self {
        let parse = |line: &str| {
            let mut words = line.splitn(6, ' ');
            let (start, end) = words.next()?.split_once('-')?;
            let mode = words.next()?;
            let hex = |text| u64::from_str_radix(text, 16).ok();
            let offset = hex(words.next()?)?;
            let file = words.nth(2)?.trim_start();
            let wanted = file == path && mode.as_bytes().get(2) == Some(&b'x');
            wanted.then_some(Mapping { start: hex(start)?, end: hex(end)?, offset })
        };
        Self(maps.lines().filter_map(parse).collect())
    }

    /// Where a byte of the file is.
    fn address(&self, offset: u64) -> Option<u64> {
        self.0.iter().find_map(|m| {
            let inside = offset.checked_sub(m.offset)?;
            let address = m.start.checked_add(inside)?;
            (address < m.end).then_some(address)
        })
    }
}

/// A probe's links, and what the maps say for them.
#[derive(Debug)]
struct Attached {
    shared: Arc<Shared>,
    links: Vec<Link>,
    ids: Vec<u32>,
    addresses: Vec<u64>,
}

impl Attached {
    fn ids(&self) -> std::sync::MutexGuard<'_, Ids> {
        // What it guards is whole at any time.
        self.shared.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_spec(&mut self, args: &[Arg], cookie: u64) -> Result<u32> {
        let value = self.shared.layout.encode(args, cookie)?;
        let id = {
            let mut ids = self.ids();
            ids.free.pop().or_else(|| {
                let id = ids.next;
                ids.next += 1;
                (id < self.shared.specs.max_entries()).then_some(id)
            })
        };
        let id = id.ok_or(Error::AttachTarget {
            target: SPECS.into(),
            reason: "the map is full (BPF_USDT_MAX_SPEC_CNT)",
        })?;
        self.ids.push(id);
        map::update(&self.shared.specs, &id.to_ne_bytes(), &value, BPF_ANY)?;
        Ok(id)
    }

    /// Without cookies, the program looks its spec up by the address that it was called from.
    fn name_address(&mut self, address: u64, id: u32) -> Result<()> {
        map::update(&self.shared.ips, &key(address), &id.to_ne_bytes(), BPF_NOEXIST)?;
        self.addresses.push(address);
        Ok(())
    }
}

/// An address as a key of the map, whose keys are of type `long`.
fn key(address: u64) -> [u8; ADDRESS] {
    address.to_ne_bytes()
}

impl Drop for Attached {
    fn drop(&mut self) {
        // Specs must not change under programs that still run.
        self.links.clear();
        for address in &self.addresses {
            let _ = map::delete(&self.shared.ips, &key(*address));
        }
        let ids = std::mem::take(&mut self.ids);
        self.ids().free.extend(ids);
    }
}

impl OlderAttachment for Attached {
    fn detach(&mut self) -> Result<()> {
        self.links.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_found_in_the_file_also_after_it_was_moved() {
        let segments = [
            Segment { address: 0x1000, size: 0x500, offset: 0x800, executable: true },
            Segment { address: 0x3000, size: 0x100, offset: 0x2000, executable: false },
        ];
        let note = |location, base, semaphore| Note {
            location,
            base,
            semaphore,
            provider: b"p",
            name: b"n",
            arguments: b"",
        };
        let located = |offset, address, semaphore| Ok(Located { offset, address, semaphore });
        assert_eq!(locate(&segments, &note(0x1010, 0, 0), 0), located(0x810, 0x1010, 0));
        assert_eq!(locate(&segments, &note(0x1010, 0x1400, 0x3004), 0x1400), located(0x810, 0x1010, 0x2004));
        // By 0x100, with all sections.
        assert_eq!(locate(&segments, &note(0xf10, 0x1300, 0x2f04), 0x1400), located(0x810, 0x1010, 0x2004));
        // The section, or what the note says of it, may be missing.
        assert_eq!(locate(&segments, &note(0x1010, 0x1300, 0), 0), located(0x810, 0x1010, 0));
        assert!(locate(&segments, &note(0x1500, 0, 0), 0).is_err());
        assert!(locate(&segments, &note(0x3000, 0, 0), 0).is_err(), "no code");
        assert!(locate(&segments, &note(0x1010, 0, 0x1010), 0).is_err(), "no data");
        assert!(locate(&segments, &note(u64::MAX, 1, 0), u64::MAX).is_err());
    }

    #[test]
    fn mappings_of_a_process() {
        let maps = "\
55d0c0000000-55d0c0001000 r--p 00000000 08:01 123                        /usr/bin/a b
55d0c0001000-55d0c0003000 r-xp 00001000 08:01 123                        /usr/bin/a b
55d0c0003000-55d0c0004000 rw-p 00003000 08:01 123                        /usr/bin/a b
7f0000000000-7f0000001000 rw-p 00000000 00:00 0
7f0000001000-7f0000002000 r-xp 00000000 08:01 9                          /usr/lib/a.so
nonsense
";
        let mappings = Mappings::parse(maps, "/usr/bin/a b");
        let code = Mapping { start: 0x55d0_c000_1000, end: 0x55d0_c000_3000, offset: 0x1000 };
        assert_eq!(mappings, Mappings(vec![code]));
        assert_eq!(mappings.address(0x1234), Some(0x55d0_c000_1234));
        assert_eq!(mappings.address(0xfff), None);
        assert_eq!(mappings.address(0x3000), None);
        assert_eq!(Mappings::parse(maps, "/usr/bin/b"), Mappings(Vec::new()));
    }
}
