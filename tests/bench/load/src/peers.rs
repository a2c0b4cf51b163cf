//! The loaders, each used as its documentation says: an object file opened, its maps created, all its programs loaded.

use std::ffi::CString;
use std::path::Path;

use aya::programs::Program;
use aya::{Btf, EbpfLoader};
use bpf_loader::kernel::RunningKernel;
use bpf_loader::object::ObjectSpec;
use bpf_loader::object_file::read_object;
use bpf_loader::target::RunningTarget;

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Does nothing: what a process has resident before it loads anything.
    Idle,
    Ours,
    Libbpf,
    Aya,
}

impl Peer {
    pub const ALL: [Self; 4] = [Self::Idle, Self::Ours, Self::Libbpf, Self::Aya];

    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Ours => "ours",
            Self::Libbpf => "libbpf",
            Self::Aya => "aya",
        }
    }

    /// Opens and loads an object. `hooks` are what aya must be told of each program, by name: what its section says.
    /// What was loaded is in the kernel until the process ends, so that taking it down is not measured.
    pub fn load(self, object: &Path, hooks: &[(String, String)]) -> Result<()> {
        match self {
            Self::Idle => Ok(()),
            Self::Ours => ours(object, &RunningTarget::new()),
            Self::Libbpf => libbpf(object),
            Self::Aya => aya(object, hooks),
        }
    }
}

pub fn ours(object: &Path, target: &RunningTarget) -> Result<()> {
    let bytes = read_object(object)?;
    let plan = ObjectSpec::parse(&bytes)?.plan(target)?;
    let loaded = plan.load(&RunningKernel::default())?.into_object()?;
    std::mem::forget(loaded);
    Ok(())
}

fn libbpf(object: &Path) -> Result<()> {
    let path = CString::new(object.as_os_str().as_encoded_bytes())?;
    // SAFETY: no other thread uses libbpf.
    unsafe { libbpf_sys::libbpf_set_print(None) };
    // SAFETY: the path ends with a zero; libbpf takes no options as null.
    let object = unsafe { libbpf_sys::bpf_object__open_file(path.as_ptr(), std::ptr::null()) };
    if object.is_null() {
        return Err(format!("open: {}", std::io::Error::last_os_error()).into());
    }
    // SAFETY: the object was opened above and never closed.
    match unsafe { libbpf_sys::bpf_object__load(object) } {
        0 => Ok(()),
        error => Err(format!("load: {}", std::io::Error::from_raw_os_error(-error)).into()),
    }
}

fn aya(object: &Path, hooks: &[(String, String)]) -> Result<()> {
    let btf = Btf::from_sys_fs()?;
    let mut ebpf = EbpfLoader::new().btf(Some(&btf)).load_file(object)?;
    for (name, program) in ebpf.programs_mut() {
        let hook = hooks.iter().find(|(known, _)| known == name).map_or("", |(_, hook)| hook.as_str());
        match program {
            Program::KProbe(p) => p.load()?,
            Program::UProbe(p) => p.load()?,
            Program::TracePoint(p) => p.load()?,
            Program::SocketFilter(p) => p.load()?,
            Program::Xdp(p) => p.load()?,
            Program::SkMsg(p) => p.load()?,
            Program::SkSkb(p) => p.load()?,
            Program::CgroupSockAddr(p) => p.load()?,
            Program::SockOps(p) => p.load()?,
            Program::SchedClassifier(p) => p.load()?,
            Program::CgroupSkb(p) => p.load()?,
            Program::CgroupSysctl(p) => p.load()?,
            Program::CgroupSockopt(p) => p.load()?,
            Program::PerfEvent(p) => p.load()?,
            Program::RawTracePoint(p) => p.load()?,
            Program::Lsm(p) => p.load(hook, &btf)?,
            Program::BtfTracePoint(p) => p.load(hook, &btf)?,
            Program::FEntry(p) => p.load(hook, &btf)?,
            Program::FExit(p) => p.load(hook, &btf)?,
            Program::Iter(p) => p.load(hook, &btf)?,
            Program::SkLookup(p) => p.load()?,
            Program::CgroupSock(p) => p.load()?,
            Program::CgroupDevice(p) => p.load()?,
            other => return Err(format!("{name}: {:?} is not in this benchmark", other.prog_type()).into()),
        }
    }
    std::mem::forget(ebpf);
    Ok(())
}
