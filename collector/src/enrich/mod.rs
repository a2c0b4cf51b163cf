//! Processes to what telemetry says about them: executable, container, service.

pub mod cache;
mod container;
mod environment;
pub mod host;
mod service;
mod status;
mod users;

use std::fs::{self, File};
use std::io::BufReader;
use std::sync::Arc;

pub use container::{container_id, main_cgroup, pod_uid, unit_cgroup};
pub use environment::service_name as stated_service_name;
pub use service::{HIDDEN, service_name};
pub(crate) use status::status_field;
pub use status::{Stat, namespace_pids, parse_stat};

use crate::model::Process;
use crate::symbolize::{Host, read_limited};

/// Bytes that are read of each file of `/proc/PID`.
const MAX_FILE: usize = 64 * 1024;

/// A process, with what the model of a profile does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessInfo {
    /// What the telemetry says.
    pub process: Process,
    /// Last component of the executable's path.
    pub executable_name: Option<Arc<str>>,
    /// When it started, in clock ticks since boot: with the pid, its identity.
    pub start_ticks: u64,
    /// Path in the unified control group hierarchy, or in the first one that names a container.
    pub cgroup: Option<Arc<str>>,
    /// The user that it acts as.
    pub uid: Option<u32>,
    /// Its pids, from the namespace of `proc` inward; the last is the one it knows itself by.
    pub namespace_pids: Vec<u32>,
}

/// Reads what `/proc/PID` tells; `None` where the process is gone, or is another one by the end of it.
///
/// Of its environment, only `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` are looked at, and only
/// `service.name` is kept.
pub fn read_process(host: &Host, pid: u32) -> Option<ProcessInfo> {
    let read = |name: &str| read_limited(&host.process_file(pid, name), MAX_FILE);
    let stat_text = read("stat").ok()?;
    let stat = parse_stat(&stat_text)?;
    let cgroups = read("cgroup").unwrap_or_default();
    let status = read("status").unwrap_or_default();
    let executable = fs::read_link(host.process_file(pid, "exe")).ok();
    let executable = executable.map(|path| path.to_string_lossy().into_owned());
    let executable = executable.as_deref().map(|path| path.strip_suffix(" (deleted)").unwrap_or(path));
    let environment = File::open(host.process_file(pid, "environ"));
    let service = environment.ok().and_then(|file| stated_service_name(BufReader::new(file)));
    let info = ProcessInfo {
        process: Process {
            pid,
            parent_pid: stat.parent,
            comm: (!stat.comm.is_empty()).then(|| String::from_utf8_lossy(stat.comm).into()),
            executable_path: executable.map(Into::into),
            container_id: container_id(&cgroups).map(Into::into),
            pod_uid: pod_uid(&cgroups).map(Into::into),
            service_name: service.map(Into::into),
        },
        executable_name: executable.and_then(|path| path.rsplit('/').next()).map(Into::into),
        start_ticks: stat.start_ticks,
        cgroup: main_cgroup(&cgroups).map(|path| String::from_utf8_lossy(path).into()),
        // Real, effective, saved, of the file system.
        uid: status_field(&status, b"Uid:").and_then(|mut uids| uids.nth(1)),
        namespace_pids: namespace_pids(&status),
    };
    // A pid that was reused in between belongs to a process that started later.
    let again = read("stat").ok()?;
    (parse_stat(&again)?.start_ticks == info.start_ticks).then_some(info)
}

#[cfg(test)]
mod tests;
