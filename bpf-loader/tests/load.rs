//! Plans into the running kernel, which sometimes seems to refuse. Needs CAP_BPF (or root), and clang.

#[path = "support/mod.rs"]
mod support;

use std::cell::RefCell;
use std::path::Path;

use bpf_loader::Error;
use bpf_loader::bytes::Endian;
use bpf_loader::kernel::{Kernel, RunningKernel};
use bpf_loader::load::Loaded;
use bpf_loader::object::ObjectSpec;
use bpf_loader::target::RunningTarget;
use bpf_sys::map::MapCreate;
use bpf_sys::prog::ProgLoad;
use bpf_sys::{BtfFd, Errno, Log, MapFd, MapType, ObjName, ProgFd, Result};

const MAPS: &str = r#"
#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name
#define __array(name, val) typeof(val) *name[]
struct inner { __uint(type, 2); __uint(max_entries, 1); __type(key, int); __type(value, long); };
struct inner first SEC(".maps"), second SEC(".maps");
struct {
    __uint(type, 12); __uint(max_entries, 2); __uint(key_size, 4);
    __array(values, struct inner);
} outer SEC(".maps") = { .values = { &first, &second } };
"#;

/// The running kernel, which creates maps only if `verdict` allows, and what it was asked for.
struct Picky<F> {
    running: RunningKernel,
    verdict: F,
    asked: RefCell<Vec<Asked>>,
}

/// Type and name of a map, and whether it had types.
type Asked = (MapType, ObjName, bool);

impl<F: Fn(&Asked) -> Option<Errno>> Kernel for Picky<F> {
    fn create_map(&self, map: &MapCreate<'_>) -> Result<MapFd> {
        let asked = (map.map_type, map.name, map.btf.is_some());
        let verdict = (self.verdict)(&asked);
        self.asked.borrow_mut().push(asked);
        match verdict {
            Some(errno) => Err(bpf_sys::Error::Call { call: "test", errno }),
            None => self.running.create_map(map),
        }
    }

    fn update_map(&self, map: &MapFd, key: &[u8], value: &[u8]) -> Result<()> {
        self.running.update_map(map, key, value)
    }

    fn freeze_map(&self, map: &MapFd) -> Result<()> {
        self.running.freeze_map(map)
    }

    fn load_btf(&self, data: &[u8], log: Option<&mut Log<'_>>) -> Result<BtfFd> {
        self.running.load_btf(data, log)
    }

    fn load_program(&self, program: &ProgLoad<'_>, log: Option<&mut Log<'_>>) -> Result<ProgFd> {
        self.running.load_program(program, log)
    }
}

/// Loads the maps; `None` where that cannot be tested.
fn load(verdict: impl Fn(&Asked) -> Option<Errno>) -> Option<(Loaded, Vec<Asked>)> {
    if !support::has_clang() {
        return None;
    }
    let object = support::clang_bpf(Path::new("."), Endian::HOST, &[], MAPS);
    let kernel = Picky { running: RunningKernel::default(), verdict, asked: RefCell::default() };
    let plan = ObjectSpec::parse(&object).unwrap().plan(&RunningTarget::new()).unwrap();
    let loaded = plan.load(&kernel).unwrap();
    if loaded.btf_error.as_ref().and_then(|e| e.errno()) == Some(Errno::EPERM) {
        println!("skipped: needs CAP_BPF");
        return None;
    }
    Some((loaded, kernel.asked.into_inner()))
}

fn error<'l>(loaded: &'l Loaded, map: &str) -> Option<&'l Error> {
    let (_, found) = loaded.maps.iter().find(|(name, _)| name == map).unwrap();
    found.as_ref().err().map(Box::as_ref)
}

#[test]
fn a_missing_inner_map_is_named() {
    let second = ObjName::new("second");
    let Some((loaded, _)) = load(|(_, name, _)| (*name == second).then_some(Errno::ENOMEM)) else { return };
    assert_eq!(error(&loaded, "first"), None);
    assert_eq!(error(&loaded, "second").unwrap().errno(), Some(Errno::ENOMEM));
    assert_eq!(error(&loaded, "outer"), Some(&Error::MapNotLoaded { map: "second".into() }));
}

#[test]
fn maps_whose_types_are_refused_have_none() {
    for errno in [Errno::E2BIG, Errno::EINVAL, Errno::ENOTSUPP, Errno::EOPNOTSUPP] {
        let Some((loaded, asked)) = load(|&(_, _, typed)| typed.then_some(errno)) else { return };
        assert!(loaded.maps.iter().all(|(_, map)| map.is_ok()), "{errno}: {:?}", loaded.maps);
        let first: Vec<_> = asked.iter().filter(|(_, name, _)| *name == ObjName::new("first")).collect();
        assert_eq!(first.iter().map(|(_, _, typed)| *typed).collect::<Vec<_>>(), [true, false], "{errno}");
    }
}

#[test]
fn the_first_refusal_is_what_is_reported() {
    let verdict = |&(_, name, typed): &Asked| match (name == ObjName::default(), typed) {
        (false, true) => Some(Errno::E2BIG),
        (false, false) => Some(Errno::EINVAL),
        (true, _) => Some(Errno::ENOSPC),
    };
    let Some((loaded, _)) = load(verdict) else { return };
    assert_eq!(error(&loaded, "first").unwrap().errno(), Some(Errno::E2BIG));
}

#[test]
fn what_has_nothing_to_do_with_types_or_names_is_asked_once() {
    let Some((loaded, asked)) = load(|_| Some(Errno::EPERM)) else { return };
    assert_eq!(error(&loaded, "first").unwrap().errno(), Some(Errno::EPERM));
    assert_eq!(asked.iter().filter(|(_, name, _)| *name == ObjName::new("first")).count(), 1);
    assert!(asked.iter().all(|(_, name, _)| *name != ObjName::default()));
}

const TAIL_CALLS: &str = r#"
#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int (*name)[val]
#define __array(name, val) typeof(val) *name[]
int one(void *ctx); int two(void *ctx);
struct {
    __uint(type, 3); __uint(max_entries, 2); __uint(key_size, 4);
    __array(values, int (void *));
} table SEC(".maps") = { .values = { [0] = (void *)&one, [1] = (void *)&two } };
SEC("raw_tp/sys_enter") int one(void *ctx) { return 0; }
SEC("raw_tp/sys_enter") int two(void *ctx) { return 1; }
"#;

#[test]
fn program_arrays_hold_their_initial_programs() {
    if !support::has_clang() {
        return;
    }
    let object = support::clang_bpf(Path::new("."), Endian::HOST, &[], TAIL_CALLS);
    let plan = ObjectSpec::parse(&object).unwrap().plan(&RunningTarget::new()).unwrap();
    let loaded = plan.load(&RunningKernel::default()).unwrap();
    if loaded.btf_error.as_ref().and_then(|e| e.errno()) == Some(Errno::EPERM) {
        println!("skipped: needs CAP_BPF");
        return;
    }
    let object = loaded.into_object().unwrap();
    for (index, name) in [(0u32, "one"), (1, "two")] {
        let mut id = [0; 4];
        let map = &object.map("table").unwrap().fd;
        assert!(bpf_sys::map::lookup(map, &index.to_ne_bytes(), &mut id, 0).unwrap());
        let program = bpf_sys::prog::info(&object.program(name).unwrap().fd).unwrap();
        assert_eq!(u32::from_ne_bytes(id), program.id);
    }
}

#[test]
fn a_section_has_the_function_that_was_chosen() {
    if !support::has_clang() {
        return;
    }
    let object = support::clang_bpf(Path::new("."), Endian::HOST, &[], TAIL_CALLS);
    let mut spec = ObjectSpec::parse(&object).unwrap();
    spec.program_mut("two").unwrap().attach_function = Some("sys_exit".into());
    let loaded = spec.plan(&RunningTarget::new()).unwrap().load(&RunningKernel::default()).unwrap();
    if loaded.btf_error.as_ref().and_then(|e| e.errno()) == Some(Errno::EPERM) {
        println!("skipped: needs CAP_BPF");
        return;
    }
    let object = loaded.into_object().unwrap();
    let sections = ["one", "two"].map(|name| object.program(name).unwrap().section.as_str());
    assert_eq!(sections, ["raw_tp/sys_enter", "raw_tp/sys_exit"]);
}
