//! Probes of the caller's own: objects, what of them is attached, and their maps, by name.
//!
//! ```no_run
//! use bpf_loader::target::RunningTarget;
//! use collector::probes::ProbeManager;
//!
//! let mut probes = ProbeManager::new();
//! probes.load("execs", &std::fs::read("execs.bpf.o")?, &RunningTarget::new())?;
//! let id = probes.attach("execs", "count_exec")?;
//! for probe in probes.list() {
//!     println!("{} {}: {} runs", probe.object, probe.program, probe.runs);
//! }
//! println!("{:?}", probes.map("execs", "counts")?.entries()?);
//! probes.detach(id)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod maps;

use std::fmt;
use std::time::Duration;

use bpf_loader::kernel::RunningKernel;
use bpf_loader::link::Link;
use bpf_loader::load::Object;
use bpf_loader::object::ObjectSpec;
use bpf_loader::program::Program;
use bpf_loader::target::Target;

use crate::key::Quoted;
use crate::sorted::SortedMap;

pub use maps::{MapAccess, MapEntry, MapSummary};

/// An attachment, as long as its manager lives. Numbers are not used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProbeId(u64);

/// Objects in the kernel, and what of them is attached. Dropping it detaches and frees everything.
#[derive(Debug, Default)]
pub struct ProbeManager {
    objects: SortedMap<String, Object>,
    // Dropped in any order: a link keeps its program.
    probes: SortedMap<ProbeId, Probe>,
    next: u64,
}

#[derive(Debug)]
struct Probe {
    object: String,
    program: String,
    link: Link,
}

/// A probe, as [`ProbeManager::list`] tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeInfo {
    /// Its number.
    pub id: ProbeId,
    /// The object.
    pub object: String,
    /// The program.
    pub program: String,
    /// The program's section, which says what it is and often what it is attached to.
    pub section: String,
    /// How often the program ran and how long, over all its probes: counted while the kernel's statistics are on
    /// (`kernel.bpf_stats_enabled`; Linux 5.1).
    pub runs: u64,
    /// See [`runs`](Self::runs).
    pub run_time: Duration,
}

/// Why something could not be done.
#[derive(Debug)]
#[non_exhaustive]
pub enum ProbeError {
    /// An object of that name is there already.
    NameTaken(String),
    /// No object has that name.
    NoSuchObject(String),
    /// No probe has that number: it was detached, or is another manager's.
    NoSuchProbe(ProbeId),
    /// A key or value is not as long as the map's.
    Size {
        /// The map.
        map: String,
        /// `key` or `value`.
        what: &'static str,
        /// Bytes that the map has.
        expected: usize,
        /// Bytes that were given.
        given: usize,
    },
    /// Parsing, loading, attaching, or a call to the kernel.
    Bpf(Box<bpf_loader::Error>),
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameTaken(name) => write!(f, "there is an object {} already", Quoted(name)),
            Self::NoSuchObject(name) => write!(f, "there is no object {}", Quoted(name)),
            Self::NoSuchProbe(id) => write!(f, "there is no probe {}", id.0),
            Self::Size { map, what, expected, given } => {
                write!(f, "map {} has a {what} of {expected} bytes, not {given}", Quoted(map))
            }
            Self::Bpf(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ProbeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Bpf(error) => error.source(),
            _ => None,
        }
    }
}

impl From<Box<bpf_loader::Error>> for ProbeError {
    fn from(error: Box<bpf_loader::Error>) -> Self {
        Self::Bpf(error)
    }
}

impl From<bpf_sys::Error> for ProbeError {
    fn from(error: bpf_sys::Error) -> Self {
        Self::Bpf(error.into())
    }
}

/// Result of the manager's functions.
pub type Result<T> = std::result::Result<T, ProbeError>;

impl ProbeManager {
    /// Nothing loaded.
    pub fn new() -> Self {
        Self::default()
    }

    /// Loads an object under a name of the caller's choice. Nothing is attached.
    ///
    /// # Errors
    ///
    /// [`ProbeError::NameTaken`]; the object is broken, or the kernel refuses a map or a program: then none of it is kept.
    pub fn load(&mut self, name: &str, bytes: &[u8], target: &dyn Target) -> Result<&Object> {
        if self.objects.contains_key(name) {
            return Err(ProbeError::NameTaken(name.to_owned()));
        }
        let object =
            ObjectSpec::parse(bytes)?.plan(target)?.load(&RunningKernel::default())?.into_object()?;
        Ok(self.objects.entry(name.to_owned()).or_insert(object))
    }

    /// Detaches an object's probes, and frees its programs and maps.
    ///
    /// # Errors
    ///
    /// [`ProbeError::NoSuchObject`].
    pub fn unload(&mut self, name: &str) -> Result<()> {
        self.objects.remove(name).ok_or_else(|| ProbeError::NoSuchObject(name.to_owned()))?;
        self.probes.retain(|_, probe| probe.object != name);
        Ok(())
    }

    /// Attaches a program to what its section says.
    ///
    /// # Errors
    ///
    /// [`ProbeError::NoSuchObject`]; the object has no such program; as [`Program::attach`].
    pub fn attach(&mut self, object: &str, program: &str) -> Result<ProbeId> {
        self.attach_with(object, program, Program::attach)
    }

    /// Attaches a program as `how` does it.
    ///
    /// # Errors
    ///
    /// [`ProbeError::NoSuchObject`]; the object has no such program; what `how` meets.
    pub fn attach_with(
        &mut self,
        object: &str,
        program: &str,
        how: impl FnOnce(&Program) -> bpf_loader::Result<Link>,
    ) -> Result<ProbeId> {
        let link = how(self.object(object)?.program(program)?)?;
        let id = ProbeId(self.next);
        self.next += 1;
        self.probes.insert(id, Probe { object: object.to_owned(), program: program.to_owned(), link });
        Ok(id)
    }

    /// The object of that name.
    ///
    /// # Errors
    ///
    /// [`ProbeError::NoSuchObject`].
    pub fn object(&self, name: &str) -> Result<&Object> {
        self.objects.get(name).ok_or_else(|| ProbeError::NoSuchObject(name.to_owned()))
    }

    /// Everything that is attached, in the order in which it was.
    pub fn list(&self) -> Vec<ProbeInfo> {
        let info = |(id, probe): (&ProbeId, &Probe)| {
            let program =
                self.objects.get(&probe.object).and_then(|object| object.program(&probe.program).ok());
            // A program that the kernel does not tell about has run as little as one whose runs it does not count.
            let kernel = program.and_then(|program| bpf_sys::prog::info(&program.fd).ok());
            ProbeInfo {
                id: *id,
                object: probe.object.clone(),
                program: probe.program.clone(),
                section: program.map(|program| program.section.clone()).unwrap_or_default(),
                runs: kernel.as_ref().map_or(0, |info| info.run_cnt),
                run_time: Duration::from_nanos(kernel.as_ref().map_or(0, |info| info.run_time_ns)),
            }
        };
        self.probes.iter().map(info).collect()
    }

    /// How many probes are attached.
    pub fn count(&self) -> usize {
        self.probes.len()
    }

    /// Detaches a probe. Its program stays loaded.
    ///
    /// # Errors
    ///
    /// [`ProbeError::NoSuchProbe`]; the kernel refuses, which it has no reason to.
    pub fn detach(&mut self, id: ProbeId) -> Result<()> {
        let mut probe = self.probes.remove(&id).ok_or(ProbeError::NoSuchProbe(id))?;
        match probe.link.detach() {
            // The kernel detaches links of these kinds when their last descriptor is closed, which is now.
            Err(error) if error.errno() == Some(bpf_sys::Errno::EOPNOTSUPP) => Ok(()),
            result => Ok(result?),
        }
    }

    /// Detaches everything; how much that was. Objects stay loaded.
    pub fn detach_all(&mut self) -> usize {
        let probes = std::mem::take(&mut self.probes);
        probes.len()
    }

    /// A map of an object, by name.
    ///
    /// # Errors
    ///
    /// [`ProbeError::NoSuchObject`]; the object has no such map.
    pub fn map(&self, object: &str, map: &str) -> Result<MapAccess<'_>> {
        Ok(MapAccess::new(self.object(object)?.map(map)?))
    }

    /// All maps: the object's name, and what the map is.
    pub fn maps(&self) -> Vec<(&str, MapSummary)> {
        let maps =
            |object: &Object| object.maps.iter().map(|map| MapAccess::new(map).info()).collect::<Vec<_>>();
        self.objects
            .iter()
            .flat_map(|(name, o)| maps(o).into_iter().map(move |m| (name.as_str(), m)))
            .collect()
    }
}
