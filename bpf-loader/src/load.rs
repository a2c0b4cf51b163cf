//! A [`LoadPlan`] into the kernel.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd};

use bpf_sys::map::MapCreate;
use bpf_sys::prog::{ExtRecords, ProgLoad};
use bpf_sys::uapi::insn;
use bpf_sys::{BtfFd, Errno, Insn, Log, MapFd, MapType, ObjName, ProgFd};

use crate::error::{Error, Result};
use crate::insn::Operand;
use crate::kernel::Kernel;
use crate::kind::ProgramKind;
use crate::map_def::{Contents, MapSpec, Slot};
use crate::object::MapIdx;
use crate::plan::{LoadPlan, ProgramCode};
use crate::verifier_log::VerifierLog;

/// A map in the kernel. It goes when this and every program that uses it are gone.
#[derive(Debug)]
pub struct Map {
    /// Its name in the object.
    pub name: String,
    /// The map.
    pub fd: MapFd,
}

/// A program in the kernel. It goes when this and every attachment are gone.
#[derive(Debug)]
pub struct Program {
    /// Its name in the object.
    pub name: String,
    /// What it is.
    pub kind: &'static ProgramKind,
    /// The program.
    pub fd: ProgFd,
}

/// What became of a plan: each map and program, or why it is not there.
#[derive(Debug)]
pub struct Loaded {
    /// Maps by name, in the plan's order.
    pub maps: Vec<(String, Result<Map>)>,
    /// Programs by name, in the plan's order.
    pub programs: Vec<(String, Result<Program>)>,
    /// Why the kernel refuses the object's BTF, if it does. What needs none is loaded without: maps have no types then,
    /// and programs no line numbers.
    pub btf_error: Option<Error>,
}

/// Everything of a plan, in the kernel.
#[derive(Debug)]
pub struct Object {
    /// Maps.
    pub maps: Vec<Map>,
    /// Programs.
    pub programs: Vec<Program>,
}

impl Loaded {
    /// All of it, or the first error.
    ///
    /// # Errors
    ///
    /// The first map or program that could not be loaded.
    pub fn into_object(self) -> Result<Object> {
        Ok(Object {
            maps: self.maps.into_iter().map(|(_, map)| map).collect::<Result<_>>()?,
            programs: self.programs.into_iter().map(|(_, program)| program).collect::<Result<_>>()?,
        })
    }
}

impl Object {
    /// The map of that name.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn map(&self, name: &str) -> Result<&Map> {
        self.maps.iter().find(|m| m.name == name).ok_or_else(|| Error::NoSuchMap { name: name.into() })
    }

    /// The program of that name.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn program(&self, name: &str) -> Result<&Program> {
        self.programs
            .iter()
            .find(|p| p.name == name)
            .ok_or_else(|| Error::NoSuchProgram { name: name.into() })
    }
}

impl LoadPlan<'_> {
    /// Creates the maps with their contents, then loads the programs. One failure does not stop the others.
    ///
    /// # Errors
    ///
    /// The object's byte order is not the host's.
    pub fn load(&self, kernel: &impl Kernel) -> Result<Loaded> {
        if !self.host_endian {
            return Err(Error::ForeignEndian);
        }
        let license = CString::new(self.license).map_err(|_| Error::Internal("license with a zero byte"))?;
        let (btf, btf_error) = match self.btf.as_deref().map(|data| load_btf(kernel, data)) {
            None => (None, None),
            Some(Ok(fd)) => (Some(fd), None),
            Some(Err(error)) => (None, Some(error)),
        };
        let mut loader = Loader { plan: self, kernel, btf, license, maps: HashMap::new() };
        let maps = self
            .maps
            .iter()
            .map(|(idx, spec)| (spec.name.to_string(), loader.map(*idx, spec)))
            .collect::<Vec<_>>();
        for (idx, map) in self.maps.iter().map(|(idx, _)| idx).zip(&maps) {
            if let (_, Ok(map)) = map {
                loader.maps.insert(*idx, map.try_clone_fd()?);
            }
        }
        let mut maps = maps;
        for ((_, spec), (_, map)) in self.maps.iter().zip(&mut maps) {
            if let Err(e) = loader.map_slots(spec, map) {
                *map = Err(e);
            }
        }
        let programs = self.programs.iter().map(|p| match &p.code {
            Ok(code) => loader.program(p.name, code),
            Err(e) => Err(Error::InProgram { program: p.name.into(), error: Box::new(e.clone()) }),
        });
        let programs: Vec<Result<Program>> = programs.collect();
        for ((_, spec), (_, map)) in self.maps.iter().zip(&mut maps) {
            if let Err(e) = loader.program_slots(spec, map, &programs) {
                *map = Err(e);
            }
        }
        let names = self.programs.iter().map(|p| p.name.to_owned());
        let programs = names.zip(programs).collect();
        Ok(Loaded { programs, maps, btf_error })
    }
}

impl Map {
    fn try_clone_fd(&self) -> Result<MapFd> {
        Ok(self.fd.try_clone()?)
    }
}

struct Loader<'p, 'a, K> {
    plan: &'p LoadPlan<'a>,
    kernel: &'p K,
    btf: Option<BtfFd>,
    license: CString,
    maps: HashMap<MapIdx, MapFd>,
}

/// Types whose keys and values have no BTF in the kernel (it refuses them, or they are fds).
fn takes_btf(map_type: MapType) -> bool {
    !matches!(
        map_type,
        MapType::PERF_EVENT_ARRAY
            | MapType::CGROUP_ARRAY
            | MapType::STACK_TRACE
            | MapType::ARRAY_OF_MAPS
            | MapType::HASH_OF_MAPS
            | MapType::DEVMAP
            | MapType::DEVMAP_HASH
            | MapType::CPUMAP
            | MapType::XSKMAP
            | MapType::SOCKMAP
            | MapType::SOCKHASH
            | MapType::QUEUE
            | MapType::STACK
            | MapType::ARENA
            | MapType::RINGBUF
            | MapType::USER_RINGBUF
    )
}

impl<K: Kernel> Loader<'_, '_, K> {
    fn map(&self, _idx: MapIdx, spec: &MapSpec<'_>) -> Result<Map> {
        let fd = create_map(spec, self.kernel, self.btf.as_ref())?;
        if let Contents::Data(data) = &spec.contents {
            let mut value = data.to_vec();
            value.resize(spec.value_size as usize, 0);
            self.kernel.update_map(&fd, &0u32.to_ne_bytes(), &value).map_err(|e| map_error(spec, e))?;
        }
        if spec.is_frozen() {
            self.kernel.freeze_map(&fd).map_err(|e| map_error(spec, e))?;
        }
        Ok(Map { name: spec.name.to_string(), fd })
    }

    /// Initial entries that are other maps.
    fn map_slots(&self, spec: &MapSpec<'_>, map: &Result<Map>) -> Result<()> {
        let (Contents::Slots(slots), Ok(map)) = (&spec.contents, map) else { return Ok(()) };
        for (index, slot) in slots {
            let Slot::Map(inner) = slot else { continue };
            let missing = || Error::MapNotLoaded { map: self.map_name(*inner) };
            let inner = self.maps.get(inner).ok_or_else(missing)?;
            self.kernel
                .update_map(&map.fd, &index.to_ne_bytes(), &inner.as_fd().as_raw_fd().to_ne_bytes())
                .map_err(|e| map_error(spec, e))?;
        }
        Ok(())
    }

    /// Initial entries that are programs of the plan; those of others stay empty.
    fn program_slots(
        &self,
        spec: &MapSpec<'_>,
        map: &Result<Map>,
        programs: &[Result<Program>],
    ) -> Result<()> {
        let (Contents::Slots(slots), Ok(map)) = (&spec.contents, map) else { return Ok(()) };
        for (index, slot) in slots {
            let Slot::Program(function) = slot else { continue };
            let planned =
                self.plan.programs.iter().zip(programs).find(|(plan, _)| plan.function == *function);
            let Some((plan, loaded)) = planned else { continue };
            let program = loaded.as_ref().map_err(|_| Error::NoSuchProgram { name: plan.name.into() })?;
            self.kernel
                .update_map(&map.fd, &index.to_ne_bytes(), &program.fd.as_fd().as_raw_fd().to_ne_bytes())
                .map_err(|e| map_error(spec, e))?;
        }
        Ok(())
    }

    fn program(&self, name: &str, code: &ProgramCode) -> Result<Program> {
        let in_program = |error| Error::InProgram { program: name.into(), error: Box::new(error) };
        let insns = self.bind_operands(code).map_err(in_program)?;
        let btf = if code.func_info.is_empty() { None } else { self.btf.as_ref() };
        let load = ProgLoad {
            prog_type: code.kind.prog_type,
            insns: &insns,
            license: &self.license,
            kern_version: self.plan.kernel_version,
            flags: code.flags,
            name: ObjName::new(name),
            expected_attach_type: code.kind.attach_type,
            btf: btf.map(AsFd::as_fd),
            func_info: ExtRecords { bytes: &code.func_info, record_size: 8 },
            line_info: ExtRecords { bytes: &code.line_info, record_size: 16 },
            attach_btf_id: code.attach_btf_id.0,
            ..ProgLoad::default()
        };
        match self.kernel.load_program(&load, None) {
            Ok(fd) => Ok(Program { name: name.into(), kind: code.kind, fd }),
            Err(error) => {
                let log = self.verifier_log(&load, code);
                Err(in_program(Error::ProgramLoad {
                    error,
                    min_kernel: code.kind.min_kernel,
                    log: Box::new(log),
                }))
            }
        }
    }

    /// Instructions with the maps' descriptors in them.
    fn bind_operands(&self, code: &ProgramCode) -> Result<Vec<Insn>> {
        let mut insns = code.insns.clone();
        for (at, operand) in &code.operands {
            let i = at.0 as usize;
            let (map, source, offset) = match operand {
                Operand::Map(map) => (map, insn::PSEUDO_MAP_FD, None),
                Operand::MapValue { map, offset } => (map, insn::PSEUDO_MAP_VALUE, Some(*offset)),
                Operand::Extern { .. } => return Err(Error::Internal("extern operand in a plan")),
            };
            let fd = self.maps.get(map).ok_or_else(|| Error::MapNotLoaded { map: self.map_name(*map) })?;
            let Some([low, high]) = insns.get_mut(i..i + 2) else {
                return Err(Error::Internal("operand past the end"));
            };
            *low = low.with_src(source);
            low.imm = fd.as_fd().as_raw_fd();
            if let Some(offset) = offset {
                high.imm = offset as i32;
            }
        }
        Ok(insns)
    }

    fn map_name(&self, idx: MapIdx) -> String {
        self.plan
            .maps
            .iter()
            .find(|(i, _)| *i == idx)
            .map_or(String::new(), |(_, spec)| spec.name.to_string())
    }

    /// Loads again with a log, which grows until it holds all that the verifier says.
    fn verifier_log(&self, load: &ProgLoad<'_>, code: &ProgramCode) -> VerifierLog {
        const SMALLEST: usize = 64 << 10;
        const LARGEST: usize = 16 << 20;
        let mut size = SMALLEST;
        loop {
            let mut buffer = vec![0; size];
            let mut log = Log::new(1, &mut buffer);
            let result = self.kernel.load_program(load, Some(&mut log));
            let short =
                result.is_err_and(|e| e.errno() == Some(Errno::ENOSPC)) || log.true_size as usize > size;
            if !short || size >= LARGEST {
                return VerifierLog::new(&String::from_utf8_lossy(log.text()), &code.poisoned);
            }
            size = (log.true_size as usize).max(size * 4).min(LARGEST);
        }
    }
}

fn create_map(spec: &MapSpec<'_>, kernel: &impl Kernel, btf: Option<&BtfFd>) -> Result<MapFd> {
    let inner = spec.inner.as_ref().map(|inner| create_map(inner, kernel, btf)).transpose()?;
    let plain = MapCreate {
        map_type: spec.map_type,
        key_size: spec.key_size,
        value_size: spec.value_size,
        max_entries: spec.max_entries,
        flags: spec.flags,
        inner_map: inner.as_ref().map(AsFd::as_fd),
        numa_node: spec.numa_node,
        name: ObjName::new(&spec.name),
        map_extra: spec.map_extra,
        ..MapCreate::default()
    };
    // A key without a type is only allowed where the value is a data section.
    let typed = spec.value_type.0 != 0 && (spec.key_type.0 != 0 || spec.data_section.is_some());
    let btf = btf.filter(|_| typed && takes_btf(spec.map_type));
    let with_btf = btf.map(|btf| MapCreate {
        btf: Some(btf.as_fd()),
        btf_key_type_id: spec.key_type.0,
        btf_value_type_id: spec.value_type.0,
        ..plain.clone()
    });
    // Neither BTF nor the name changes what the map does. What the kernel says of all that was asked counts: of the map
    // with less, it may have other complaints.
    let first = match kernel.create_map(with_btf.as_ref().unwrap_or(&plain)) {
        Ok(fd) => return Ok(fd),
        Err(error) => error,
    };
    let mut last = first;
    if with_btf.is_some() && may_be_for_btf(last) {
        match kernel.create_map(&plain) {
            Ok(fd) => return Ok(fd),
            Err(error) => last = error,
        }
    }
    // Kernels before 5.2 do not take dots in names.
    if last.errno() == Some(Errno::EINVAL) && !plain.name.is_empty() {
        if let Ok(fd) = kernel.create_map(&MapCreate { name: ObjName::default(), ..plain }) {
            return Ok(fd);
        }
    }
    Err(map_error(spec, first))
}

/// Whether the kernel may have refused a map for its types: it has no such fields (`E2BIG`), the kind of map takes none
/// (`ENOTSUPP`, `EOPNOTSUPP`) or not these (`EINVAL`).
fn may_be_for_btf(error: bpf_sys::Error) -> bool {
    matches!(error.errno(), Some(Errno::E2BIG | Errno::EINVAL | Errno::ENOTSUPP | Errno::EOPNOTSUPP))
}

impl MapSpec<'_> {
    /// Creates a map like this alone, without its initial contents: another inner map for a map of maps, say.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn create(&self, kernel: &impl Kernel) -> Result<MapFd> {
        create_map(self, kernel, None)
    }
}

fn map_error(spec: &MapSpec<'_>, error: bpf_sys::Error) -> Error {
    Error::MapCreate { map: spec.name.to_string(), map_type: spec.map_type, error }
}

fn load_btf(kernel: &impl Kernel, data: &[u8]) -> Result<BtfFd> {
    kernel.load_btf(data, None).or_else(|error| {
        let mut buffer = vec![0; 64 << 10];
        let mut log = Log::new(1, &mut buffer);
        // Only for what it says; if it succeeds now, all the better.
        match kernel.load_btf(data, Some(&mut log)) {
            Ok(fd) => Ok(fd),
            Err(_) => {
                let log = VerifierLog::new(&String::from_utf8_lossy(log.text()), &[]);
                Err(Error::BtfLoad { error, log: Box::new(log) })
            }
        }
    })
}
