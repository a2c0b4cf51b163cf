//! Profiles for tests: made by hand, or as a small server makes them.

use std::collections::HashMap;

use crate::model::{
    Frame, FrameIdx, FrameKind, Line, Mapping, MappingIdx, Process, ProcessIdx, Profile, Sample, StackIdx,
    Thread, ThreadIdx,
};

/// Builds a [`Profile`] from stacks written as `outermost;...;leaf`.
///
/// A function's prefix says where it lies: `k:` kernel, `j:` just-in-time compiled, `c:` the C library,
/// nothing the process' executable. `?` is an address without a name.
#[derive(Default)]
pub(crate) struct Fixture {
    profile: Profile,
    mappings: HashMap<String, MappingIdx>,
    frames: HashMap<Frame, FrameIdx>,
}

impl Fixture {
    pub fn process(&mut self, pid: u32, comm: &str, executable: &str) -> ProcessIdx {
        let index = ProcessIdx(self.profile.processes.len() as u32);
        self.profile.processes.push(Process {
            pid,
            comm: Some(comm.into()),
            executable_path: Some(executable).filter(|path| !path.is_empty()).map(Into::into),
            ..Process::default()
        });
        self.profile.threads.push(Thread::new(pid, comm));
        index
    }

    pub fn sample(&mut self, process: ProcessIdx, stack: &str, count: u64) {
        let calls: Vec<&str> = stack.split(';').filter(|call| !call.is_empty()).collect();
        self.sample_of(process, &calls, count);
    }

    pub fn sample_of(&mut self, process: ProcessIdx, calls: &[&str], count: u64) {
        let stack: Vec<FrameIdx> = calls.iter().rev().map(|call| self.frame(process, call)).collect();
        let known = self.profile.stacks.iter().position(|other| *other == stack);
        let index = known.unwrap_or_else(|| {
            self.profile.stacks.push(stack);
            self.profile.stacks.len() - 1
        });
        self.profile.samples.push(Sample {
            process,
            thread: ThreadIdx(process.0),
            stack: StackIdx(index as u32),
            count,
        });
    }

    fn frame(&mut self, process: ProcessIdx, call: &str) -> FrameIdx {
        let executable = self.profile.processes[process.0 as usize].executable_path.clone();
        let (kind, path, name) = match call.split_at_checked(2) {
            Some(("k:", name)) => (FrameKind::Kernel, Some("[kernel]".into()), name),
            Some(("j:", name)) => (FrameKind::Jit, None, name),
            Some(("c:", name)) => {
                (FrameKind::Native, Some("/usr/lib/x86_64-linux-gnu/libc.so.6".into()), name)
            }
            _ => (FrameKind::Native, executable, call),
        };
        let mapping = path.map(|path| self.mapping(&path));
        let line = Line { function: name.into(), system_name: None, file: None, line: 0 };
        let lines = if name == "?" { vec![] } else { vec![line] };
        let frame = Frame { kind, mapping, address: 0x1000, lines };
        *self.frames.entry(frame.clone()).or_insert_with(|| {
            self.profile.frames.push(frame);
            FrameIdx(self.profile.frames.len() as u32 - 1)
        })
    }

    fn mapping(&mut self, path: &str) -> MappingIdx {
        *self.mappings.entry(path.to_owned()).or_insert_with(|| {
            self.profile.mappings.push(Mapping { path: path.into(), memory_limit: 1, ..Mapping::default() });
            MappingIdx(self.profile.mappings.len() as u32 - 1)
        })
    }

    pub fn finish(mut self) -> Profile {
        self.profile.start_unix_nanos = 1_700_000_000_000_000_000;
        self.profile.duration_nanos = 10_000_000_000;
        self.profile.period_nanos = 10_101_010;
        self.profile
    }
}

/// Ten seconds of a server with a database, a JavaScript and a Rust service, and what a kernel does beside them.
pub(crate) fn server() -> Profile {
    const ENTRY: &str = "k:entry_SYSCALL_64_after_hwframe;k:do_syscall_64";
    const QUERY: &str = "_start;c:__libc_start_main;main;PostmasterMain;ServerLoop;BackendStartup;PostgresMain;\
        exec_simple_query;PortalRun;ExecutorRun;standard_ExecutorRun;ExecProcNode";
    const JS: &str =
        "node::Start(int, char**);v8::internal::Execution::Call(v8::internal::Isolate*);Builtins_JSEntry";
    const POLL: &str = "_start;c:__libc_start_main;main;std::rt::lang_start_internal;api::main;\
        tokio::runtime::scheduler::multi_thread::worker::run;\
        <core::pin::Pin<P> as core::future::future::Future>::poll";

    let mut fixture = Fixture::default();
    for (pid, weight) in [(812, 5), (813, 3), (901, 1)] {
        let process = fixture.process(pid, "postgres", "/usr/lib/postgresql/15/bin/postgres");
        fixture.sample(process, &format!("{QUERY};ExecHashJoin;ExecScanHashBucket"), 31 * weight);
        fixture.sample(
            process,
            &format!("{QUERY};ExecHashJoin;MultiExecHash;ExecHashTableInsert"),
            17 * weight,
        );
        fixture.sample(process, &format!("{QUERY};ExecHashJoin;MultiExecHash;c:malloc"), 2 * weight);
        let scan = format!("{QUERY};ExecSeqScan;heap_getnextslot;heapgettup_pagemode");
        fixture.sample(process, &scan, 12 * weight);
        let read =
            format!("{scan};ReadBufferExtended;FileRead;c:pread64;{ENTRY};k:__x64_sys_pread64;k:vfs_read");
        let copy = "k:ext4_file_read_iter;k:filemap_read;k:copy_page_to_iter;k:_copy_to_iter";
        fixture.sample(process, &format!("{read};{copy}"), 3 * weight);
        fixture.sample(process, &format!("{read};{copy};k:rep_movs_alternative"), 24 * weight);
        fixture.sample(process, &format!("{QUERY};ExecSort;ExecSort;ExecSort;c:?"), 4 * weight);
    }
    let node = fixture.process(1400, "node", "/usr/bin/node");
    fixture.sample(
        node,
        &format!("{JS};j:~handler /srv/app/routes/index.js:42;j:*render /srv/app/view.js:10"),
        210,
    );
    fixture.sample(
        node,
        &format!("{JS};j:~handler /srv/app/routes/index.js:42;j:*parse /srv/app/json.js:99"),
        95,
    );
    let collect = "v8::internal::Heap::CollectGarbage(v8::internal::AllocationSpace, \
        v8::internal::GarbageCollectionReason, v8::GCCallbackFlags);v8::internal::Scavenger::Process(JobDelegate*)";
    fixture.sample(node, &format!("{JS};{collect}"), 60);
    fixture.sample(
        node,
        &format!("uv_run;uv__io_poll;c:epoll_wait;{ENTRY};k:__x64_sys_epoll_wait;k:ep_poll"),
        22,
    );
    let api = fixture.process(1501, "tokio-runtime-w", "/opt/api/bin/api");
    fixture.sample(
        api,
        &format!("{POLL};<serde_json::read::SliceRead as serde_json::read::Read>::parse_str"),
        88,
    );
    fixture.sample(api, &format!("{POLL};api::auth::verify;sha2::sha256::compress256"), 131);
    fixture.sample(api, &format!("{POLL};api::store;__rust_realloc;c:realloc;c:_int_realloc"), 19);
    fixture.sample(
        api,
        &format!("{POLL};c:send;{ENTRY};k:__x64_sys_sendto;k:tcp_sendmsg;k:tcp_write_xmit;k:ip_queue_xmit"),
        43,
    );
    let shell = fixture.process(2000, "ba\x1bsh <&>", "/usr/bin/bash");
    fixture.sample(shell, "?", 9);
    fixture.sample(shell, "", 4);
    let worker = fixture.process(31, "kworker/0:1", "");
    let writeback =
        "k:ret_from_fork;k:kthread;k:worker_thread;k:process_one_work;k:wb_workfn;k:ext4_writepages";
    fixture.sample(worker, writeback, 37);
    let mut profile = fixture.finish();
    profile.losses.no_stack = 4;
    profile
}
