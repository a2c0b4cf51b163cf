//! One program of an object, in the kernel, made to run a known number of times by the calling thread.

use std::os::unix::process::parent_id;

use bpf_loader::attach;
use bpf_loader::kernel::RunningKernel;
use bpf_loader::link::Link;
use bpf_loader::load::Object;
use bpf_loader::machine::Machine;
use bpf_loader::object::ObjectSpec;
use bpf_loader::program::Program;
use bpf_loader::target::RunningTarget;
use bpf_loader::{Error, Result};

use crate::record::{cannot, fired, refused};
use crate::{kernel_has, kind_of, permitted, read_global, thread_id};

/// An object with one of its programs in the kernel.
pub struct Subject {
    bytes: &'static [u8],
    /// The object.
    pub object: Object,
}

/// Loads one program of an object whose variable `wanted`, if it has one, is the calling thread. `None`, with the reason
/// printed, without the right to.
pub fn load(bytes: &'static [u8], program: &str) -> Option<Subject> {
    load_with(bytes, program, &[])
}

/// As [`load`], with values of variables.
pub fn load_with(bytes: &'static [u8], program: &str, values: &[(&str, u64)]) -> Option<Subject> {
    permitted(try_load(bytes, program, values))
}

/// As [`load`]; or `None`, after a look at how a kernel before the kind refuses it.
pub fn load_since(bytes: &'static [u8], program: &str) -> Option<Subject> {
    let kind = kind_of(bytes, program);
    let subject = try_load(bytes, program, &[]);
    match subject {
        Err(e) if !kernel_has(kind.min_kernel) => {
            refused(kind, &e);
            None
        }
        subject => permitted(subject),
    }
}

pub fn try_load(bytes: &'static [u8], program: &str, values: &[(&str, u64)]) -> Result<Subject> {
    let mut spec = ObjectSpec::parse(bytes)?;
    if spec.variable("wanted").is_ok() {
        spec.set_global("wanted", &thread_id().to_ne_bytes())?;
    }
    for (name, value) in values {
        spec.set_global(name, &value.to_ne_bytes())?;
    }
    let chosen = spec.program_mut(program).expect(program);
    if let Some(call) = chosen.kind.target.and_then(|target| target.strip_prefix("syscall_")) {
        chosen.attach_function = Some(syscall_function(call));
    }
    let plan = spec.plan_programs(&RunningTarget::new(), |p| p.name == program)?;
    let object = plan.load(&RunningKernel::default())?.into_object()?;
    object.program(program)?;
    Ok(Subject { bytes, object })
}

impl Subject {
    pub fn program(&self) -> &Program {
        &self.object.programs[0]
    }

    /// The present value of a global variable of 8 bytes.
    pub fn number(&self, name: &str) -> u64 {
        read_global(self.bytes, &self.object, name)
    }

    pub fn hits(&self) -> u64 {
        self.number("hits")
    }
}

/// The address of a function of the kernel.
pub fn kernel_symbol(name: &str) -> Option<u64> {
    let symbols = std::fs::read_to_string("/proc/kallsyms").unwrap();
    let line = symbols.lines().find(|line| line.split(' ').nth(2) == Some(name))?;
    u64::from_str_radix(line.split(' ').next()?, 16).ok()
}

/// Is the kernel built with kprobes? Without them, it has no programs at functions and security hooks either.
pub fn traces_functions() -> bool {
    let found = std::path::Path::new("/sys/bus/event_source/devices/kprobe").exists();
    if !found {
        cannot(&[], "the kernel is built without kprobes");
    }
    found
}

/// As [`attached`], since the kernel that has programs of this kind.
pub fn attached_since(program: &Program, result: Result<Link>) -> Option<Link> {
    if let Err(e) = &result {
        if !kernel_has(program.kind.min_kernel) {
            refused(program.kind, e);
        }
    }
    attached(result, program.kind.min_kernel)
}

/// The link; or `None`, after a look whether a kernel before `min_kernel` says so.
pub fn attached(result: Result<Link>, min_kernel: (u8, u8)) -> Option<Link> {
    if kernel_has(min_kernel) {
        return permitted(result);
    }
    let error = result.expect_err("attached, though the kernel is too old");
    assert!(
        matches!(*error, Error::Unsupported { min_kernel: stated, .. } if stated == min_kernel),
        "not {min_kernel:?}: {error:?}"
    );
    None
}

/// The kernel's function for a system call of this program, which may be narrower than the kernel.
pub fn syscall_function(name: &str) -> String {
    let is_narrow = Machine::own() != Machine::running();
    let compat = is_narrow.then(|| attach::compat_syscall_function(name)).flatten();
    compat.unwrap_or_else(|| attach::syscall_function(name))
}

/// First Linux version that calls programs from its functions, on this machine.
pub fn calls_from_functions() -> (u8, u8) {
    match Machine::running() {
        Some(Machine::Aarch64) => (6, 4),
        Some(Machine::Riscv64) => (6, 8),
        _ => (5, 5),
    }
}

/// As [`calls_from_functions`], from functions of programs and in the place of the kernel's.
pub fn calls_from_programs() -> (u8, u8) {
    match Machine::running() {
        Some(Machine::Aarch64) => (6, 0),
        Some(Machine::Riscv64) => (6, 3),
        _ => (5, 6),
    }
}

/// Makes a system call that hardly anybody makes, so often.
pub fn call_getppid(times: u64) {
    for _ in 0..times {
        std::hint::black_box(parent_id());
    }
}

/// A system call whose function has a parameter: others have several names, of which BTF and the list of functions that can
/// be traced know one.
pub fn call_dup(times: u64) {
    for _ in 0..times {
        rustix::io::dup(std::io::stderr()).unwrap();
    }
}

/// Runs `trigger` while attached, and again after that: the program must have run once for each of 10 times, and no more.
#[track_caller]
pub fn fires(subject: &Subject, link: Link, trigger: impl Fn(u64)) {
    fires_times(subject, link, trigger, 1);
}

/// As [`fires`], `each` runs for each time.
#[track_caller]
pub fn fires_times(subject: &Subject, link: Link, trigger: impl Fn(u64), each: u64) {
    let before = subject.hits();
    trigger(10);
    assert_eq!(subject.hits() - before, 10 * each, "{}", subject.program().name);
    drop(link);
    // A process that another test forks has the link until it executes its program.
    let detached = (0..100).any(|_| {
        let dropped = subject.hits();
        trigger(10);
        subject.hits() == dropped || {
            std::thread::sleep(std::time::Duration::from_millis(10));
            false
        }
    });
    assert!(detached, "{} after its link is dropped", subject.program().name);
    if each != 0 {
        fired(subject.program());
    }
}
