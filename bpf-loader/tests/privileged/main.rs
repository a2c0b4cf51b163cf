//! Objects into the running kernel, attached, and made to run. Needs root, and says so when it skips.

mod cgroups;
mod compilers;
mod context_arguments;
mod devices;
mod externs;
mod features;
mod freplace;
mod iterators;
mod kprobes;
mod links;
mod maps;
mod module_functions;
mod namespace;
mod namespaces;
mod perf_events;
mod record;
mod routes;
mod sockets;
mod struct_ops;
mod subject;
mod test_runs;
mod tokens;
mod tracepoints;
mod tracing;
mod uprobes;
#[cfg(target_arch = "x86_64")]
mod usdt;

use bpf_loader::kernel::RunningKernel;
use bpf_loader::kind::ProgramKind;
use bpf_loader::load::Object;
use bpf_loader::machine::Machine;
use bpf_loader::object::ObjectSpec;
use bpf_loader::target::RunningTarget;
use bpf_loader::{Error, Result};
use bpf_sys::Errno;

/// Is the running kernel this version or a later one? Asked without a file, since one of the tests forbids to open any.
fn kernel_has(version: (u8, u8)) -> bool {
    bpf_sys::kernel_version() >= version
}

/// Says why a test is skipped.
fn skip<T>(reason: &str) -> Option<T> {
    eprintln!("SKIP {reason}");
    None
}

/// An object file at an address that parsers like: `include_bytes!` promises none.
fn parse(bytes: &[u8]) -> ObjectSpec<'_> {
    ObjectSpec::parse(bytes).unwrap()
}

/// Loads what this kernel takes of an object; what it does not take must be of a later version. `None`, with the reason
/// printed, without the right to.
fn load_possible(bytes: &[u8]) -> Option<Object> {
    let loaded = parse(bytes).plan(&RunningTarget::new()).unwrap().load(&RunningKernel::default()).unwrap();
    let maps = loaded.maps.into_iter().map(|(_, map)| permitted(map)).collect::<Option<_>>()?;
    let mut programs = Vec::new();
    for (name, program) in loaded.programs {
        match program {
            Ok(program) => programs.push(program),
            Err(e) => {
                if may_not(&e) {
                    return skip(&format!("needs root: {e}"));
                }
                let Error::InProgram { error, .. } = &*e else { panic!("{e}") };
                let Error::ProgramLoad { min_kernel, .. } = **error else { panic!("{e}") };
                assert!(!kernel_has(min_kernel) || is_optional(&name), "{e:#}");
                if !kernel_has(min_kernel) {
                    record::refused(kind_of(bytes, &name), &e);
                }
            }
        }
    }
    Some(Object { maps, programs, struct_ops: Vec::new() })
}

/// What a program of an object is.
fn kind_of(bytes: &[u8], program: &str) -> &'static ProgramKind {
    let spec = parse(bytes);
    spec.programs.iter().find(|p| p.name == program).and_then(|p| p.kind.kind).unwrap()
}

/// Programs that need a part of the kernel which not every build has.
fn is_optional(program: &str) -> bool {
    // CONFIG_BPF_LIRC_MODE2
    program == "lirc"
}

/// The calling thread. Tests run in parallel, in a thread each.
fn thread_id() -> u32 {
    let link = std::fs::read_link("/proc/thread-self").unwrap();
    link.file_name().unwrap().to_str().unwrap().parse().unwrap()
}

/// What a call gave, unless this process may not make it.
fn permitted<T>(result: Result<T>) -> Option<T> {
    match result {
        Err(e) if may_not(&e) => skip(&format!("needs root: {e}")),
        other => Some(other.unwrap_or_else(|e| panic!("{e}"))),
    }
}

/// Refused since the kernel has it not for this machine: arenas on riscv64.
fn is_not_for_machine(error: &Error) -> bool {
    Machine::running() == Some(Machine::Riscv64) && error.errno() == Some(Errno::EOPNOTSUPP)
}

/// Refused for want of rights, not by the verifier. Root is refused by lockdown alone.
fn may_not(error: &Error) -> bool {
    let root = std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    error.errno() == Some(Errno::EPERM) && (!root || is_locked_down())
}

/// As the kernel's security file system says, or, where that is not mounted, the kernel's log.
fn is_locked_down() -> bool {
    match std::fs::read_to_string("/sys/kernel/security/lockdown") {
        Ok(modes) => !modes.contains("[none]"),
        Err(_) => log_has("Kernel is locked down"),
    }
}

/// Is there such a text in the kernel's log?
fn log_has(text: &str) -> bool {
    const O_NONBLOCK: i32 = 0o4000;
    let mut options = std::fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::custom_flags(options.read(true), O_NONBLOCK);
    let Ok(mut log) = options.open("/dev/kmsg") else { return false };
    let mut record = vec![0; 8192];
    // A record at a time, and an error at the end.
    while let Ok(len) = std::io::Read::read(&mut log, &mut record) {
        if String::from_utf8_lossy(&record[..len]).contains(text) {
            return true;
        }
    }
    false
}

/// The present value of a global variable of 8 bytes.
fn read_global(bytes: &[u8], object: &Object, name: &str) -> u64 {
    let spec = parse(bytes);
    let (section, offset) = spec.variable(name).unwrap();
    let map = object.map(&section.name).unwrap();
    let mut value = vec![0; map.fd.value_len().unwrap()];
    assert!(bpf_sys::map::lookup(&map.fd, &[0; 4], &mut value, 0).unwrap());
    u64::from_ne_bytes(value[offset as usize..][..8].try_into().unwrap())
}
