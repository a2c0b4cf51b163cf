//! A [`LoadPlan`] into the kernel.

mod maps;
mod options;
mod programs;
mod reuse;
mod struct_ops;

use std::ffi::CString;

use bpf_sys::{BtfFd, Log, MapFd};

pub use options::{LoadOptions, Pinning};

use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::map::{Global, Map, Pod};
use crate::object::MapIdx;
use crate::plan::LoadPlan;
use crate::program::Program;
use crate::sorted::{SortedMap, SortedSet};
use crate::struct_ops::Operations;
use crate::verifier_log::{Context, VerifierLog};

/// What became of a plan: each map and program, or why it is not there.
#[derive(Debug)]
pub struct Loaded {
    /// Maps by name, in the plan's order.
    pub maps: Vec<(String, Result<Map>)>,
    /// Programs by name, in the plan's order.
    pub programs: Vec<(String, Result<Program>)>,
    /// What the maps of operations among `maps` are to hold.
    pub struct_ops: Vec<Operations>,
    /// What is wrong with the object's BTF, or why the kernel refuses it. What needs none is loaded without: maps have no types then,
    /// and programs no line numbers.
    pub btf_error: Option<Box<Error>>,
}

/// Everything of a plan, in the kernel.
#[derive(Debug)]
pub struct Object {
    /// Maps.
    pub maps: Vec<Map>,
    /// Programs.
    pub programs: Vec<Program>,
    /// What the maps of operations among `maps` are to hold.
    pub struct_ops: Vec<Operations>,
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
            struct_ops: self.struct_ops,
        })
    }

    /// What of it is there, without what failed.
    pub fn into_partial_object(self) -> Object {
        Object {
            maps: self.maps.into_iter().filter_map(|(_, map)| map.ok()).collect(),
            programs: self.programs.into_iter().filter_map(|(_, program)| program.ok()).collect(),
            struct_ops: self.struct_ops,
        }
    }
}

impl Object {
    /// The map of that name.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn map(&self, name: &str) -> Result<&Map> {
        self.maps
            .iter()
            .find(|m| m.name == name)
            .ok_or_else(|| Box::new(Error::NoSuchMap { name: name.into() }))
    }

    /// The global variable of that name, in any data section that the programs use.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchVariable`]; [`Error::VariableSize`]: it is not as long as `V`.
    pub fn global<V: Pod>(&self, name: &str) -> Result<Global<V>> {
        let has_it = |map: &&Map| map.variables.iter().any(|variable| variable.name == name);
        let map = self.maps.iter().find(has_it);
        map.ok_or_else(|| Error::NoSuchVariable { name: name.into() })?.global(name)
    }

    /// The operations of the map of that name.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn struct_ops(&self, map: &str) -> Result<&Operations> {
        self.struct_ops
            .iter()
            .find(|o| o.name == map)
            .ok_or_else(|| Box::new(Error::NoSuchMap { name: map.into() }))
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
            .ok_or_else(|| Box::new(Error::NoSuchProgram { name: name.into() }))
    }
}

impl LoadPlan<'_> {
    /// Creates the maps with their contents, then loads the programs. One failure does not stop the others.
    ///
    /// # Errors
    ///
    /// The object's byte order is not the host's.
    pub fn load(&self, kernel: &impl Kernel) -> Result<Loaded> {
        self.load_with(kernel, &LoadOptions::default())
    }

    /// As [`load`](Self::load), with options.
    ///
    /// # Errors
    ///
    /// The object's byte order is not the host's; a map to be reused is none of the plan.
    pub fn load_with(&self, kernel: &impl Kernel, options: &LoadOptions<'_>) -> Result<Loaded> {
        if !self.host_endian {
            return Err(Box::new(Error::ForeignEndian));
        }
        let planned = |name: &str| self.maps.iter().any(|(_, spec)| spec.name == name);
        if let Some((name, _)) = options.reuse.iter().find(|(name, _)| !planned(name)) {
            return Err(Box::new(Error::NoSuchMap { name: (*name).into() }));
        }
        let license = CString::new(self.license).map_err(|_| Error::Internal("license with a zero byte"))?;
        let (btf, btf_error) = match self.btf.as_deref().map(|data| load_btf(kernel, data)) {
            None => (None, self.btf_error.as_deref().map(Error::boxed)),
            Some(Ok(fd)) => (Some(fd), None),
            Some(Err(error)) => (None, Some(error)),
        };
        let mut loader = Loader {
            plan: self,
            kernel,
            options,
            btf,
            license,
            maps: SortedMap::new(),
            reused: SortedSet::new(),
            modules: self.open_modules(kernel),
        };
        let maps = self
            .maps
            .iter()
            .map(|(idx, spec)| (spec.name.to_string(), loader.any_map(*idx, spec, btf_error.as_deref())))
            .collect::<Vec<_>>();
        for (idx, map) in self.maps.iter().map(|(idx, _)| idx).zip(&maps) {
            if let (_, Ok(map)) = map {
                loader.maps.insert(*idx, map.try_clone_fd()?);
            }
        }
        let mut maps = maps;
        for ((idx, spec), (_, map)) in self.maps.iter().zip(&mut maps) {
            if let Err(e) = loader.map_slots(*idx, spec, map) {
                *map = Err(e);
            }
        }
        let programs = self.programs.iter().map(|p| match &p.code {
            Ok(code) => loader.program(p, code),
            Err(e) => Err(Box::new(Error::InProgram { program: p.name.into(), error: e.boxed() })),
        });
        let programs: Vec<Result<Program>> = programs.collect();
        for ((_, spec), (_, map)) in self.maps.iter().zip(&mut maps) {
            if let Err(e) = loader.program_slots(spec, map, &programs) {
                *map = Err(e);
            }
        }
        let struct_ops = loader.operations(&maps, &programs)?;
        let names = self.programs.iter().map(|p| p.name.to_owned());
        let programs = names.zip(programs).collect();
        Ok(Loaded { programs, maps, struct_ops, btf_error })
    }
}

impl LoadPlan<'_> {
    /// The BTF of each module that a program or map refers to.
    fn open_modules(&self, kernel: &impl Kernel) -> SortedMap<&str, bpf_sys::Result<BtfFd>> {
        let mut opened = SortedMap::new();
        for code in self.programs.iter().filter_map(|p| p.code.as_ref().ok()) {
            for module in code.modules.iter().map(String::as_str).chain(code.attach.to.module()) {
                opened.entry(module).or_insert_with(|| kernel.module_btf(module));
            }
        }
        for module in self.struct_ops.modules() {
            opened.entry(module).or_insert_with(|| kernel.module_btf(module));
        }
        opened
    }
}

struct Loader<'p, 'a, K> {
    plan: &'p LoadPlan<'a>,
    kernel: &'p K,
    options: &'p LoadOptions<'p>,
    btf: Option<BtfFd>,
    license: CString,
    maps: SortedMap<MapIdx, MapFd>,
    /// Maps that were there before, and keep what they hold.
    reused: SortedSet<MapIdx>,
    /// BTF of the modules that programs refer to.
    modules: SortedMap<&'p str, bpf_sys::Result<BtfFd>>,
}

impl<K> Loader<'_, '_, K> {
    fn map_name(&self, idx: MapIdx) -> String {
        self.plan
            .maps
            .iter()
            .find(|(i, _)| *i == idx)
            .map_or(String::new(), |(_, spec)| spec.name.to_string())
    }
}

fn load_btf(kernel: &impl Kernel, data: &[u8]) -> Result<BtfFd> {
    kernel.load_btf(data, None).or_else(|error| {
        let mut buffer = vec![0; 64 << 10];
        let mut log = Log::new(1, &mut buffer);
        // Only for what it says; if it succeeds now, all the better.
        match kernel.load_btf(data, Some(&mut log)) {
            Ok(fd) => Ok(fd),
            Err(_) => {
                let log = VerifierLog::new(&String::from_utf8_lossy(log.text()), &Context::default());
                Err(Box::new(Error::BtfLoad { error, log: Box::new(log) }))
            }
        }
    })
}
