//! Names for the profiler, from the host's symbolizer and `/proc`.

use std::collections::{HashMap, HashSet};

use super::naming::{Named, Names};
use super::sideband::monotonic_nanos;
use crate::enrich;
use crate::model::Process;
use crate::symbolize::sideband::{Record, SampleId};
use crate::symbolize::{AddressSpace, Host, HostSymbolizer, Miss, Resolved, Symbolizer};

/// Knows the processes that were sampled, and the names of what they ran.
pub struct Symbols {
    host: Host,
    symbolizer: HostSymbolizer,
    processes: HashMap<u32, Process>,
    /// Processes to forget at the end of the window.
    ended: HashSet<u32>,
}

impl Symbols {
    /// Nothing known yet; what runs already is looked at when it is sampled.
    pub fn new() -> Self {
        let host = Host::default();
        Self {
            symbolizer: HostSymbolizer::new(host.clone()),
            host,
            processes: HashMap::new(),
            ended: HashSet::new(),
        }
    }

    /// Takes in what the kernel reports; records come in the order of their time.
    pub fn observe(&mut self, record: &Record<'_>, id: &SampleId) {
        match *record {
            // Another program, maybe with another environment.
            Record::Comm { pid, exec: true, .. } => {
                self.processes.remove(&pid);
                self.ended.remove(&pid);
            }
            // A number that is used again.
            Record::Fork { pid, parent_pid, .. } if pid != parent_pid => {
                self.processes.remove(&pid);
                self.ended.remove(&pid);
            }
            Record::Exit { pid, tid, .. } if pid == tid => {
                self.ended.insert(pid);
            }
            _ => {}
        }
        self.symbolizer.observe(record, id);
    }

    /// Looks at processes that were sampled and are not known yet, while they are still there.
    pub fn meet(&mut self, pids: impl Iterator<Item = u32>) {
        for pid in pids {
            if pid == 0 || self.processes.contains_key(&pid) {
                continue;
            }
            let process = match enrich::read_process(&self.host, pid) {
                Some(info) => info.process,
                None => self.recorded_process(pid),
            };
            self.processes.insert(pid, process);
            self.symbolizer.read_process_maps(pid);
        }
    }

    /// What the kernel's records said of a process that ended before it could be looked at.
    fn recorded_process(&self, pid: u32) -> Process {
        let generation = self.symbolizer.processes().generation(pid, u64::MAX);
        Process {
            pid,
            comm: generation.and_then(|g| g.comm.clone()),
            executable_path: generation.and_then(|g| g.executable.clone()),
            ..Process::default()
        }
    }

    /// Before the names of a window are asked for.
    pub fn begin_window(&mut self) {
        self.symbolizer.begin_window(monotonic_nanos());
    }

    /// After the names of a window: processes that have ended are forgotten.
    pub fn end_window(&mut self) {
        self.symbolizer.end_window(monotonic_nanos());
        for pid in self.ended.drain() {
            self.processes.remove(&pid);
        }
    }
}

impl Names for Symbols {
    fn prepare_kernel(&mut self, addresses: Vec<u64>) {
        self.symbolizer.prepare_kernel(addresses);
    }

    fn process(&mut self, pid: u32) -> Process {
        match self.processes.get(&pid) {
            Some(process) => process.clone(),
            None => Process { pid, ..Process::default() },
        }
    }

    fn kernel(&mut self, address: u64) -> Named {
        named(self.symbolizer.resolve(AddressSpace::Kernel, address))
    }

    fn user(&mut self, pid: u32, address: u64) -> Named {
        // Samples are counted in the kernel, without a time of their own.
        named(self.symbolizer.resolve(AddressSpace::User { pid, time: u64::MAX }, address))
    }
}

fn named(resolved: Resolved) -> Named {
    Named {
        kind: resolved.kind,
        address: resolved.address,
        mapping: resolved.mapping,
        lines: resolved.lines.to_vec(),
        not_code: resolved.miss == Some(Miss::NotMapped),
    }
}
