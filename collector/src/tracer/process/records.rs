//! What happened to a process, as a log record.

use bpf_programs::events::process::{Lifecycle, Path, Process, Status};
use otlp_encode::Value;

use super::{EXEC, EXIT};
use crate::names::signal_name;
use crate::telemetry::{Attribute, LogRecord, Owner, Sink};

/// Tells an exec or an end; forks are only counted.
pub(super) fn tell(event: &Lifecycle, sink: &mut dyn Sink) {
    match event {
        Lifecycle::Fork(_) => {}
        Lifecycle::Exec(process, path) => tell_exec(process, path, sink),
        Lifecycle::Exit(process, status) => tell_exit(process, *status, sink),
    }
}

fn owner(process: &Process) -> Owner {
    Owner::Process { pid: process.tgid, comm: process.comm }
}

/// A name, up to its zero.
fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default())
}

/// What both records begin with.
fn identity(process: &Process) -> [Attribute<'static>; 3] {
    [
        ("process.pid", Value::Int(process.tgid.into())),
        ("process.parent_pid", Value::Int(process.parent_tgid.into())),
        ("process.real_user.id", Value::Int(process.uid.into())),
    ]
}

fn tell_exec(process: &Process, path_bytes: &Path, sink: &mut dyn Sink) {
    let comm = text(&process.comm);
    let path = String::from_utf8_lossy(path_bytes.bytes());
    // Of a path that was cut, the end is not known; the kernel names the process by it.
    let last = path_bytes.is_cut().then_some(&*comm).or_else(|| path.rsplit('/').next());
    let name = last.filter(|name| !name.is_empty()).unwrap_or(&comm);
    let cut = if path_bytes.is_cut() { "..." } else { "" };
    let body = format!("{comm} ({}) executes {path}{cut}", process.tgid);
    let [pid, parent, user] = identity(process);
    sink.log(LogRecord {
        log: &EXEC,
        owner: owner(process),
        boot_nanos: process.boot_ns,
        body: &body,
        attributes: &[
            pid,
            parent,
            user,
            ("process.executable.name", Value::Str(name)),
            ("process.executable.path", Value::Str(&path)),
        ],
    });
}

fn tell_exit(process: &Process, status: Status, sink: &mut dyn Sink) {
    let comm = text(&process.comm);
    let signal = status.signal().map(|n| signal_name(n.into()));
    let body = match (status.code(), &signal) {
        (_, Some(signal)) => format!("{comm} ({}) was ended by {signal}", process.tgid),
        (Some(0), _) => format!("{comm} ({}) ended", process.tgid),
        (code, _) => format!("{comm} ({}) ended with code {}", process.tgid, code.unwrap_or(0)),
    };
    let mut attributes = identity(process).to_vec();
    attributes.push(("process.executable.name", Value::Str(&comm)));
    if let Some(code) = status.code() {
        attributes.push(("process.exit.code", Value::Int(code.into())));
    }
    if let Some(signal) = &signal {
        attributes.push(("ebpf.process.exit.signal", Value::Str(signal)));
        attributes.push(("ebpf.process.core_dumped", Value::Bool(status.dumped_core())));
    }
    if process.start_boot_ns > 0 {
        let nanos = process.boot_ns.saturating_sub(process.start_boot_ns);
        attributes.push(("ebpf.process.lifetime", Value::Double(nanos as f64 / 1e9)));
    }
    sink.log(LogRecord {
        log: &EXIT,
        owner: owner(process),
        boot_nanos: process.boot_ns,
        body: &body,
        attributes: &attributes,
    });
}
