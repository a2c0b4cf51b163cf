//! Processes killed for want of memory.

use std::fs;

use bpf_programs::events::memory::OomKill;
use bpf_programs::events::ring::Event;
use otlp_encode::Value;

use super::{OOM_KILL, OOM_KILLS};
use crate::config::Filter;
use crate::enrich;
use crate::telemetry::{Attribute, LogRecord, Owner, Point, PointValue, Sink};
use crate::tracer::filter::is_in_cgroup;

/// What a filter makes of a victim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    Wanted,
    Unwanted,
    /// It was gone before anything but its number was known.
    Gone,
}

/// Asks the filter for the program, where that had the victim's number alone. The victim is looked at while it is still there.
pub fn is_wanted(event: Event, record: &[u8], filter: &Filter) -> Victim {
    let is_known = OomKill::decode(record).is_none_or(|kill| kill.known != 0);
    if is_known || (filter.comm.is_none() && filter.cgroup.is_none()) {
        return Victim::Wanted;
    }
    let name = fs::read_to_string(format!("/proc/{}/comm", event.tgid)).ok();
    let of_name = filter.comm.as_ref().map(|wanted| name.map(|name| name.trim_end_matches('\n') == wanted));
    let of_cgroup = filter.cgroup.as_ref().map(|path| is_in_cgroup(event.tgid, path));
    let conditions = [of_name, of_cgroup];
    let conditions = || conditions.iter().flatten();
    if conditions().any(|condition| *condition == Some(false)) {
        Victim::Unwanted
    } else if conditions().all(Option::is_some) {
        Victim::Wanted
    } else {
        Victim::Gone
    }
}

/// Tells of a kill. The victim is looked at while it is still there.
pub fn tell(event: Event, record: &[u8], sink: &mut dyn Sink) {
    let Some(mut kill) = OomKill::decode(record) else { return };
    let pid = event.tgid;
    if kill.known == 0 {
        let comm = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
        let comm = comm.strip_suffix(b"\n").unwrap_or(&comm);
        kill.comm.iter_mut().zip(comm.iter().take(15)).for_each(|(to, from)| *to = *from);
    }
    let cgroups = fs::read(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let cgroup = memory_cgroup(&cgroups).map(String::from_utf8_lossy);
    let owner = Owner::Process { pid, comm: kill.comm };
    sink.point(Point { metric: &OOM_KILLS, owner, attributes: &[], value: PointValue::Int(1) });

    let name = name(&kill.comm);
    let page = bpf_sys::page_size() as u64;
    let bytes = |pages: u64| i64::try_from(pages.saturating_mul(page)).unwrap_or(i64::MAX);
    let mut attributes: Vec<Attribute<'_>> = vec![("process.pid", Value::Int(i64::from(pid)))];
    if !name.is_empty() {
        attributes.push(("process.executable.name", Value::Str(&name)));
    }
    let mut body = format!("killed process {pid} ({name}) for want of memory");
    if kill.known != 0 {
        attributes.extend([
            ("ebpf.oom.total_vm", Value::Int(bytes(kill.total_vm))),
            ("ebpf.oom.anon_rss", Value::Int(bytes(kill.anon_rss))),
            ("ebpf.oom.file_rss", Value::Int(bytes(kill.file_rss))),
            ("ebpf.oom.shmem_rss", Value::Int(bytes(kill.shmem_rss))),
            ("ebpf.oom.score_adj", Value::Int(i64::from(kill.oom_score_adj))),
        ]);
        body += &format!(", {} KiB of it anonymous", kill.anon_rss.saturating_mul(page) / 1024);
    }
    if let Some(cgroup) = &cgroup {
        attributes.push(("process.linux.cgroup", Value::Str(cgroup)));
    }
    let record =
        LogRecord { log: &OOM_KILL, owner, boot_nanos: event.boot_ns, body: &body, attributes: &attributes };
    sink.log(record);
}

/// The cgroup whose limit counts: of the memory controller, where v1 has it; else the main one.
fn memory_cgroup(cgroups: &[u8]) -> Option<&[u8]> {
    let v1 = cgroups.split(|&byte| byte == b'\n').find_map(|line| {
        let mut fields = line.splitn(3, |&byte| byte == b':');
        let controllers = fields.nth(1)?;
        controllers.split(|&byte| byte == b',').any(|name| name == b"memory").then(|| fields.next())?
    });
    v1.or_else(|| enrich::main_cgroup(cgroups))
}

fn name(comm: &[u8]) -> String {
    let end = comm.iter().position(|&byte| byte == 0).unwrap_or(comm.len());
    String::from_utf8_lossy(comm.get(..end).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Recorder;

    #[test]
    fn the_memory_controllers_cgroup_comes_first() {
        assert_eq!(memory_cgroup(b"4:memory:/a/b\n0::/c\n"), Some(b"/a/b".as_slice()));
        assert_eq!(memory_cgroup(b"0::/c\n"), Some(b"/c".as_slice()));
        assert_eq!(memory_cgroup(b""), None);
    }

    #[test]
    fn a_kill_is_a_count_and_a_record() {
        let mut record = [0; OomKill::SIZE];
        record[16..20].copy_from_slice(b"hog\0");
        (record[40], record[68]) = (2, 1);
        record[64..68].copy_from_slice(&(-5i32).to_ne_bytes());
        // No process has this number.
        let event = Event { kind: 1, tgid: u32::MAX, boot_ns: 9 };
        let mut sink = Recorder::default();
        tell(event, &record, &mut sink);
        assert_eq!(sink.number("ebpf.oom.kills", u32::MAX, &[]), 1.0);
        let log = &sink.logs[0];
        let page = bpf_sys::page_size();
        assert_eq!(log.attribute("process.executable.name"), Some("hog"));
        assert_eq!(log.attribute("ebpf.oom.anon_rss"), Some((2 * page).to_string().as_str()));
        assert_eq!(log.attribute("ebpf.oom.score_adj"), Some("-5"));
        tell(event, &record[..20], &mut sink);
        assert_eq!(sink.logs.len(), 1, "a record that is cut short is none");
    }
}
