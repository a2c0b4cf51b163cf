//! Maps of a plan: creation, with less where the kernel knows less, and initial contents.

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::Arc;

use bpf_sys::map::MapCreate;
use bpf_sys::shared::SharedMapping;
use bpf_sys::{BtfFd, Errno, MapFd, MapType, ObjName};

use super::{Loader, reuse};
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::map::Map;
use crate::map_def::{Contents, MapSpec, Slot};
use crate::object::MapIdx;
use crate::program::Program;

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
    pub(super) fn any_map(
        &mut self,
        idx: MapIdx,
        spec: &MapSpec<'_>,
        btf_error: Option<&Error>,
    ) -> Result<Map> {
        match self.plan.struct_ops.map(idx) {
            Some(ops) => {
                let ops = ops.as_ref().map_err(|error| error.boxed())?;
                // There is no such map without BTF.
                btf_error.map_or(Ok(()), |e| Err(e.boxed()))?;
                self.struct_ops_map(spec, ops)
            }
            None => {
                let (map, new) = self.map(spec)?;
                if !new {
                    self.reused.insert(idx);
                }
                Ok(map)
            }
        }
    }

    /// The map of a plan: an existing one that the options name or that is pinned, or a new one. And whether it is new.
    fn map(&self, spec: &MapSpec<'_>) -> Result<(Map, bool)> {
        if let Some(error) = &spec.broken {
            return Err(error.boxed());
        }
        let (fd, new) = self.map_fd(spec)?;
        let reused = self.options.reused(&spec.name).and_then(|existing| existing.arena.clone());
        let arena = match reused {
            None if spec.map_type == MapType::ARENA && new => {
                let memory = SharedMapping::arena(&fd).map_err(|error| map_error(spec, error))?;
                fill_arena(spec, &memory)?;
                Some(Arc::new(memory))
            }
            // One without an address of its own is where its first user mapped it, which may not be free or known here.
            // Programs do without a mapping.
            None if spec.map_type == MapType::ARENA => SharedMapping::arena(&fd).ok().map(Arc::new),
            reused => reused,
        };
        let new_pin = self.options.pin_path(spec).filter(|_| new);
        let variables = spec.variables.iter().map(|variable| variable.to_owned()).collect();
        Ok((Map { name: spec.name.to_string(), fd, variables, arena, new_pin }, new))
    }

    /// The descriptor, and whether the map is new, so that it has no contents yet.
    fn map_fd(&self, spec: &MapSpec<'_>) -> Result<(MapFd, bool)> {
        if let Some(existing) = self.options.reused(&spec.name) {
            let difference = reuse::shape_differs(spec, &*bpf_sys::map::info(&existing.fd)?);
            return match difference {
                None => Ok((existing.try_clone_fd()?, false)),
                Some(difference) => Err(reuse_error(spec, None, difference)),
            };
        }
        let Some(path) = self.options.pin_path(spec) else { return Ok((self.new_map(spec)?, true)) };
        if let Some(pinned) = self.pinned_map(spec, &path)? {
            return Ok((pinned, false));
        }
        let fd = self.new_map(spec)?;
        match self.kernel.pin_map(&fd, &path) {
            Ok(()) => Ok((fd, true)),
            Err(error) => {
                // Somebody else may have been faster.
                let other =
                    if error.errno() == Some(Errno::EEXIST) { self.pinned_map(spec, &path)? } else { None };
                other.map(|other| (other, false)).ok_or_else(|| Box::new(Error::MapPin { path, error }))
            }
        }
    }

    /// The map that is pinned there, if any.
    fn pinned_map(&self, spec: &MapSpec<'_>, path: &Path) -> Result<Option<MapFd>> {
        let pinned = match self.kernel.open_pinned_map(path) {
            Ok(pinned) => pinned,
            Err(error) if error.errno() == Some(Errno::ENOENT) => return Ok(None),
            Err(error) => {
                return Err(Box::new(Error::MapPin { path: path.into(), error }));
            }
        };
        match reuse::differs(spec, &*bpf_sys::map::info(&pinned)?) {
            None => Ok(Some(pinned)),
            Some(difference) => Err(reuse_error(spec, Some(path), difference)),
        }
    }

    /// Creates a map and gives it its contents, as far as these are bytes.
    fn new_map(&self, spec: &MapSpec<'_>) -> Result<MapFd> {
        let fd = create_map(spec, self.kernel, self.btf.as_ref())?;
        let in_memory = spec.map_type == MapType::ARENA;
        if let (Contents::Data(data), false) = (&spec.contents, in_memory) {
            let mut value = data.to_vec();
            value.resize(spec.value_size as usize, 0);
            self.kernel.update_map(&fd, &0u32.to_ne_bytes(), &value).map_err(|e| map_error(spec, e))?;
        }
        if spec.is_frozen() {
            self.kernel.freeze_map(&fd).map_err(|e| map_error(spec, e))?;
        }
        Ok(fd)
    }

    /// Initial entries of a new map that are other maps.
    pub(super) fn map_slots(&self, idx: MapIdx, spec: &MapSpec<'_>, map: &Result<Map>) -> Result<()> {
        let (Contents::Slots(slots), Ok(map)) = (&spec.contents, map) else { return Ok(()) };
        if self.reused.contains(&idx) {
            return Ok(());
        }
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

    /// Initial entries that are programs of the plan; those of others stay empty. An existing map gets them, too, as from
    /// libbpf: this object's programs are to call each other, not those of an earlier load.
    pub(super) fn program_slots(
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
}

/// Writes the initial values of the variables that live in an arena.
fn fill_arena(spec: &MapSpec<'_>, memory: &SharedMapping) -> Result<()> {
    let Contents::Data(data) = &spec.contents else { return Ok(()) };
    memory.copy_in(spec.data_offset as usize, data).ok_or_else(|| {
        Box::new(Error::MapMember {
            map: spec.name.to_string(),
            member: "max_entries".into(),
            reason: "the arena is smaller than the variables that live in it".into(),
        })
    })
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
    Err(create_error(spec, kernel, first))
}

/// A type that is newer than the kernel is what the kernel means by `EINVAL`, and by `E2BIG` if it lacks the fields too.
fn create_error(spec: &MapSpec<'_>, kernel: &impl Kernel, error: bpf_sys::Error) -> Box<Error> {
    let unknown = matches!(error.errno(), Some(Errno::EINVAL | Errno::E2BIG));
    let (Some(feature), Some(min_kernel)) = (spec.map_type.name(), spec.map_type.min_kernel()) else {
        return map_error(spec, error);
    };
    match kernel.version() {
        Some(version) if unknown && version < min_kernel => {
            Box::new(Error::Unsupported { feature, min_kernel, error })
        }
        _ => map_error(spec, error),
    }
}

fn reuse_error(
    spec: &MapSpec<'_>,
    pin: Option<&Path>,
    (what, expected, found): reuse::Difference,
) -> Box<Error> {
    Box::new(Error::MapReuse { map: spec.name.to_string(), pin: pin.map(Into::into), what, expected, found })
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

pub(super) fn map_error(spec: &MapSpec<'_>, error: bpf_sys::Error) -> Box<Error> {
    Box::new(Error::MapCreate { map: spec.name.to_string(), map_type: spec.map_type, error })
}
