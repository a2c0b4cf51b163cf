//! Objects into the running kernel, attached, and made to run. Needs root, and says so when it skips.

mod iterators;
mod kprobes;
mod links;
mod tracepoints;
mod tracing;
mod uprobes;
#[cfg(target_arch = "x86_64")]
mod usdt;

use std::os::unix::process::parent_id;

use bpf_loader::kernel::RunningKernel;
use bpf_loader::link::Link;
use bpf_loader::load::Object;
use bpf_loader::object::ObjectSpec;
use bpf_loader::program::Program;
use bpf_loader::target::RunningTarget;
use bpf_loader::{Error, Result};
use bpf_sys::Errno;

/// Is the running kernel this version or a later one?
fn kernel_has(version: (u8, u8)) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= version
}

/// Says why a test is skipped.
fn skip<T>(reason: &str) -> Option<T> {
    eprintln!("SKIP {reason}");
    None
}

/// The calling thread. Tests run in parallel, in a thread each.
fn thread_id() -> u32 {
    let link = std::fs::read_link("/proc/thread-self").unwrap();
    link.file_name().unwrap().to_str().unwrap().parse().unwrap()
}

/// An object with one of its programs in the kernel.
struct Subject {
    bytes: &'static [u8],
    object: Object,
}

/// Loads one program of an object whose variable `wanted`, if it has one, is the calling thread. `None`, with the reason
/// printed, without the right to.
fn load(bytes: &'static [u8], program: &str) -> Option<Subject> {
    load_with(bytes, program, &[])
}

/// As [`load`], with values of variables.
fn load_with(bytes: &'static [u8], program: &str, values: &[(&str, u64)]) -> Option<Subject> {
    permitted(try_load(bytes, program, values))
}

fn try_load(bytes: &'static [u8], program: &str, values: &[(&str, u64)]) -> Result<Subject> {
    let mut spec = ObjectSpec::parse(bytes)?;
    if spec.variable("wanted").is_ok() {
        spec.set_global("wanted", &thread_id().to_ne_bytes())?;
    }
    for (name, value) in values {
        spec.set_global(name, &value.to_ne_bytes())?;
    }
    let plan = spec.plan_programs(&RunningTarget::new(), |p| p.name == program)?;
    let object = plan.load(&RunningKernel::default())?.into_object()?;
    object.program(program)?;
    Ok(Subject { bytes, object })
}

impl Subject {
    fn program(&self) -> &Program {
        &self.object.programs[0]
    }

    /// The present value of a global variable of 8 bytes.
    fn number(&self, name: &str) -> u64 {
        let spec = ObjectSpec::parse(self.bytes).unwrap();
        let (section, offset) = spec.variable(name).unwrap();
        let map = self.object.map(&section.name).unwrap();
        let mut value = vec![0; map.fd.value_len().unwrap()];
        assert!(bpf_sys::map::lookup(&map.fd, &[0; 4], &mut value, 0).unwrap());
        u64::from_ne_bytes(value[offset as usize..][..8].try_into().unwrap())
    }

    fn hits(&self) -> u64 {
        self.number("hits")
    }
}

/// What a call gave, unless this process may not make it.
fn permitted<T>(result: Result<T>) -> Option<T> {
    match result {
        Err(e) if may_not(&e) => skip(&format!("not permitted: {e}")),
        other => Some(other.unwrap_or_else(|e| panic!("{e}"))),
    }
}

/// Refused for want of rights.
fn may_not(error: &Error) -> bool {
    let root = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0;
    error.errno() == Some(Errno::EPERM) && !root
}

/// Is the kernel built with kprobes? Without them, it has no programs at functions and security hooks either.
fn traces_functions() -> bool {
    let found = std::path::Path::new("/sys/bus/event_source/devices/kprobe").exists();
    if !found {
        skip::<()>("the kernel is built without kprobes");
    }
    found
}

/// The link; or `None`, after a look whether a kernel before `min_kernel` says so.
fn attached(result: Result<Link>, min_kernel: (u8, u8)) -> Option<Link> {
    if kernel_has(min_kernel) {
        return permitted(result);
    }
    let error = result.err().expect("attached, though the kernel is too old");
    assert!(
        matches!(error, Error::Unsupported { min_kernel: stated, .. } if stated == min_kernel),
        "not {min_kernel:?}: {error:?}"
    );
    None
}

/// Makes a system call that hardly anybody makes, so often.
fn call_getppid(times: u64) {
    for _ in 0..times {
        std::hint::black_box(parent_id());
    }
}

/// A system call whose function has a parameter: others have several names, of which BTF and the list of functions that can
/// be traced know one.
fn call_dup(times: u64) {
    for _ in 0..times {
        rustix::io::dup(std::io::stderr()).unwrap();
    }
}

/// Runs `trigger` while attached, and again after that: the program must have run once for each of 10 times, and no more.
fn fires(subject: &Subject, link: Link, trigger: impl Fn(u64)) {
    fires_times(subject, link, trigger, 1);
}

/// As [`fires`], `each` runs for each time.
fn fires_times(subject: &Subject, link: Link, trigger: impl Fn(u64), each: u64) {
    let before = subject.hits();
    trigger(10);
    assert_eq!(subject.hits() - before, 10 * each, "{}", subject.program().name);
    drop(link);
    trigger(10);
    assert_eq!(subject.hits() - before, 10 * each, "{} after its link is dropped", subject.program().name);
}
