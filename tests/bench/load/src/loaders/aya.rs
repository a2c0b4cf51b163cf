//! aya.

use std::path::Path;

use aya::programs::Program;
use aya::{Btf, EbpfLoader};

use crate::meter::Result;

/// `hooks` are what aya must be told of each program, by name: what its section says.
pub fn load(object: &Path, hooks: &[(String, String)]) -> Result<()> {
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
