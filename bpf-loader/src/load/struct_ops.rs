//! Maps of operations of a plan.

use std::os::fd::AsFd;

use bpf_sys::map::MapCreate;
use bpf_sys::uapi::flags::BPF_F_LINK;
use bpf_sys::{Errno, ObjName};

use super::Loader;
use super::maps::map_error;
use crate::ALL_OBJECTS;
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::map::Map;
use crate::map_def::MapSpec;
use crate::program::Program;
use crate::sorted::SortedMap;
use crate::struct_ops::{KernelOps, Operations};

impl<K: Kernel> Loader<'_, '_, K> {
    pub(super) fn struct_ops_map(&self, spec: &MapSpec<'_>, ops: &KernelOps) -> Result<Map> {
        let module = ops.module.as_ref().map(|name| self.module(name)).transpose()?;
        let create = MapCreate {
            map_type: spec.map_type,
            key_size: spec.key_size,
            value_size: spec.value_size,
            max_entries: spec.max_entries,
            flags: spec.flags,
            name: ObjName::new(&spec.name),
            // The kernel asks for it although it takes no type from it.
            btf: self.btf.as_ref().map(AsFd::as_fd),
            btf_vmlinux_value_type_id: ops.value_type.0,
            value_type_btf: module.map(AsFd::as_fd),
            ..MapCreate::default()
        };
        match self.kernel.create_map(&create) {
            Ok(fd) => Ok(Map::new(spec.name.to_string(), fd)),
            Err(error) => {
                let without_link = MapCreate { flags: spec.flags & !BPF_F_LINK, ..create };
                let unsupported = spec.flags & BPF_F_LINK != 0
                    && error.errno() == Some(Errno::EINVAL)
                    && self.kernel.create_map(&without_link).is_ok();
                Err(if unsupported {
                    let feature = "registering operations by a link (.struct_ops.link)";
                    let error = Error::Unsupported { feature, min_kernel: (6, 4), error };
                    Box::new(Error::InMap { map: spec.name.to_string(), error: Box::new(error) })
                } else {
                    map_error(spec, error)
                })
            }
        }
    }

    /// What the maps of operations are to hold, with the programs that were loaded.
    pub(super) fn operations(
        &self,
        maps: &[(String, Result<Map>)],
        programs: &[Result<Program>],
    ) -> Result<Vec<Operations>> {
        if !ALL_OBJECTS {
            return Ok(Vec::new());
        }
        let of_plan = self.plan.programs.iter().zip(programs);
        let by_function: SortedMap<_, _> =
            of_plan.map(|(plan, program)| (plan.function, (plan, program))).collect();
        let mut all = Vec::new();
        for ((idx, spec), (name, map)) in self.plan.maps.iter().zip(maps) {
            let (Some(Ok(ops)), Ok(map)) = (self.plan.struct_ops.map(*idx), map) else { continue };
            let mut operations = Operations {
                name: name.clone(),
                map: map.try_clone_fd()?,
                by_link: spec.flags & BPF_F_LINK != 0,
                value: ops.value.clone(),
                programs: Vec::new(),
                missing: None,
            };
            for slot in &ops.functions {
                match by_function.get(&slot.program) {
                    Some((_, Ok(program))) => {
                        operations.programs.push((slot.offset as usize, program.fd.try_clone()?));
                    }
                    Some((plan, Err(_))) => operations.missing = Some(plan.name.into()),
                    None => operations.missing = Some(format!("of member {}", slot.member)),
                }
            }
            all.push(operations);
        }
        Ok(all)
    }
}
