//! Samples to a [`Profile`]: every address gets its name, once.

use std::sync::Arc;

#[cfg(feature = "unwind")]
use bpf_programs::events::offcpu::WaitKey;
#[cfg(feature = "python")]
use bpf_programs::events::python::PythonFrame;
#[cfg(feature = "unwind")]
use bpf_programs::events::spans::Span;
#[cfg(feature = "python")]
use bpf_programs::events::unwind::MAX_FRAMES;

use crate::aggregate::{ProcessId, Samples, StackId, WakerId};
use crate::model::{
    Frame, FrameIdx, FrameKind, Line, Losses, Mapping, MappingIdx, Process, ProcessIdx, Profile, Sample,
    SampleType, StackIdx, Thread, ThreadIdx,
};
#[cfg(feature = "python")]
use crate::python::{EVAL, Merged, merge};
use crate::sorted::SortedMap;
use crate::symbolize::{Miss, Resolved};

/// What is known of one code address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Kernel, native or JIT code.
    pub kind: FrameKind,
    /// Address in the file's own address space, or the runtime address.
    pub address: u64,
    /// The file.
    pub mapping: Option<Mapping>,
    /// Functions, innermost first.
    pub lines: Vec<Line>,
    /// Nothing can be executed there: this is no code address.
    pub not_code: bool,
}

impl From<Resolved> for Named {
    fn from(resolved: Resolved) -> Self {
        Self {
            kind: resolved.kind,
            address: resolved.address,
            mapping: resolved.mapping,
            lines: resolved.lines.to_vec(),
            not_code: resolved.miss == Some(Miss::NotMapped),
        }
    }
}

/// Who knows names.
pub trait Names {
    /// All kernel addresses that will be asked for, so that one look-up can serve them.
    fn prepare_kernel(&mut self, addresses: Vec<u64>);
    /// A process that was sampled.
    fn process(&mut self, process: ProcessId) -> Process;
    /// An address in the kernel.
    fn kernel(&mut self, address: u64) -> Named;
    /// An address in a process.
    fn user(&mut self, process: ProcessId, address: u64) -> Named;
    /// The function of a frame of CPython. `None`: it is none of the program's.
    #[cfg(feature = "python")]
    fn python(&mut self, process: ProcessId, frame: PythonFrame) -> Option<Line>;
    /// Whether its interpreter has functions for instructions.
    #[cfg(feature = "python")]
    fn has_handlers(&self, process: ProcessId) -> bool;
}

/// When a window was, and what it lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WindowInfo {
    /// What its samples count.
    pub sample_type: SampleType,
    /// Nanoseconds since the Unix epoch.
    pub start_unix_nanos: u64,
    /// Length.
    pub duration_nanos: u64,
    /// Time between two samples of a CPU.
    pub period_nanos: u64,
    /// What was lost.
    pub losses: Losses,
}

/// The text of a thread's name as the kernel keeps it.
fn comm_text(comm: &[u8; 16]) -> Arc<str> {
    let name = comm.split(|&b| b == 0).next().unwrap_or_default();
    Arc::from(&*String::from_utf8_lossy(name))
}

#[cfg(feature = "unwind")]
fn waker_name(name: &[u8; 16]) -> Arc<str> {
    if *name == WaitKey::INTERRUPT { Thread::INTERRUPT.into() } else { comm_text(name) }
}

/// Names everything in a window.
pub fn name(samples: &Samples, info: WindowInfo, names: &mut impl Names) -> Profile {
    let mut namer = Namer {
        names,
        profile: Profile {
            sample_type: info.sample_type,
            start_unix_nanos: info.start_unix_nanos,
            duration_nanos: info.duration_nanos,
            period_nanos: info.period_nanos,
            losses: info.losses,
            ..Profile::default()
        },
        processes: SortedMap::new(),
        threads: SortedMap::new(),
        #[cfg(feature = "unwind")]
        wakers: samples.wakers.iter().map(|(name, id)| (*id, waker_name(name))).collect(),
        mappings: SortedMap::new(),
        frames: SortedMap::new(),
        addresses: SortedMap::new(),
        stacks: SortedMap::new(),
    };
    namer.prepare_kernel(samples);
    // In the order of their keys, so that the same samples always give the same profile.
    let mut keys: Vec<_> = samples.counts.iter().collect();
    keys.sort_unstable_by_key(|(key, _)| **key);
    for (key, &count) in keys {
        let process = namer.process(key.process);
        let comm = samples.threads.get(&(key.process, key.tid)).copied().unwrap_or_default();
        let span = namer.span(samples, key.user);
        let thread = namer.thread(key.process, key.tid, comm, (key.waker, span));
        namer.name_process_by_thread(process, thread);
        let stack = namer.stack(samples, key.process, key.kernel, key.user);
        namer.profile.samples.push(Sample { process, thread, stack, count });
    }
    merge_same_stacks(&mut namer.profile.samples);
    namer.profile
}

/// Addresses that differ can have the same name, so samples that were different may be the same now.
fn merge_same_stacks(samples: &mut Vec<Sample>) {
    samples.sort_unstable_by_key(|s| (s.process, s.thread, s.stack));
    samples.dedup_by(|next, kept| {
        let same = (next.process, next.thread, next.stack) == (kept.process, kept.thread, kept.stack);
        if same {
            kept.count += next.count;
        }
        same
    });
}

/// Names of functions that run an instruction of CPython each, and call the next one's in place of themselves.
#[cfg(feature = "python")]
const HANDLERS: &str = "_TAIL_CALL_";

/// The addresses of a stack, and the frames of CPython behind them.
#[cfg(feature = "python")]
pub(super) fn split_python(stack: &[u64]) -> (&[u64], &[u64]) {
    let python = stack.iter().rev().take_while(|word| PythonFrame::of(**word).is_some()).count();
    stack.split_at_checked(stack.len() - python).unwrap_or((stack, &[]))
}

/// The span that a thread works for.
#[cfg(not(feature = "unwind"))]
type Span = ();

/// What samples of a thread are told apart by: who has ended its waits, and the span that it works for.
type Cause = (WakerId, Option<Span>);

struct Namer<'n, N> {
    names: &'n mut N,
    profile: Profile,
    processes: SortedMap<ProcessId, ProcessIdx>,
    threads: SortedMap<(ProcessId, u32, Cause), ThreadIdx>,
    #[cfg(feature = "unwind")]
    wakers: SortedMap<WakerId, Arc<str>>,
    mappings: SortedMap<Mapping, MappingIdx>,
    frames: SortedMap<Frame, FrameIdx>,
    /// By process (`None` for the kernel) and address: the frame, and whether there is code.
    addresses: SortedMap<(Option<ProcessId>, u64), (FrameIdx, bool)>,
    stacks: SortedMap<Vec<FrameIdx>, StackIdx>,
}

/// The entry of a table, added if it is new.
fn intern<K: Ord + Clone, I: Copy>(
    table: &mut Vec<K>,
    index: &mut SortedMap<K, I>,
    value: K,
    make: impl Fn(u32) -> I,
) -> I {
    if let Some(&found) = index.get(&value) {
        return found;
    }
    let id = make(table.len() as u32);
    table.push(value.clone());
    index.insert(value, id);
    id
}

/// The address to look up: a caller's is where it goes on, which may be past its end; the call is just before.
pub(super) fn looked_up(depth: usize, address: u64) -> u64 {
    if depth == 0 { address } else { address.wrapping_sub(1) }
}

impl<N: Names> Namer<'_, N> {
    fn prepare_kernel(&mut self, samples: &Samples) {
        let mut stacks: Vec<StackId> = samples.counts.keys().filter_map(|key| key.kernel).collect();
        stacks.sort_unstable();
        stacks.dedup();
        let stacks = stacks.into_iter().map(|id| samples.stacks.get(id));
        let addresses =
            stacks.flat_map(|stack| stack.iter().enumerate().map(|(depth, &a)| looked_up(depth, a)));
        self.names.prepare_kernel(addresses.collect());
    }

    fn process(&mut self, process: ProcessId) -> ProcessIdx {
        if let Some(&found) = self.processes.get(&process) {
            return found;
        }
        let id = ProcessIdx(self.profile.processes.len() as u32);
        self.profile.processes.push(self.names.process(process));
        self.processes.insert(process, id);
        id
    }

    #[cfg(feature = "unwind")]
    fn span(&self, samples: &Samples, user: Option<StackId>) -> Option<Span> {
        user.and_then(|user| Span::split(samples.stacks.get(user)).1)
    }

    #[cfg(not(feature = "unwind"))]
    fn span(&self, _samples: &Samples, _user: Option<StackId>) -> Option<Span> {
        None
    }

    fn thread(&mut self, process: ProcessId, tid: u32, comm: [u8; 16], cause: Cause) -> ThreadIdx {
        #[cfg(feature = "unwind")]
        let woken_by = self.wakers.get(&cause.0).map(Arc::clone);
        *self.threads.entry((process, tid, cause)).or_insert_with(|| {
            self.profile.threads.push(Thread {
                #[cfg(feature = "unwind")]
                woken_by,
                #[cfg(feature = "unwind")]
                span: cause.1,
                ..Thread::new(tid, comm_text(&comm))
            });
            ThreadIdx(self.profile.threads.len() as u32 - 1)
        })
    }

    /// A process that nobody could look at goes by the name of its main thread, or of the first one sampled.
    fn name_process_by_thread(&mut self, process: ProcessIdx, thread: ThreadIdx) {
        let thread = self.profile.threads.get(thread.0 as usize);
        let process = self.profile.processes.get_mut(process.0 as usize);
        if let (Some(process), Some(thread)) = (process, thread) {
            // Process 0 stands for all that cannot be seen from the agent's pid namespace.
            if process.pid != 0
                && (process.comm.is_none() || process.pid == thread.tid && process.executable_path.is_none())
                && !thread.name.is_empty()
            {
                process.comm = Some(Arc::clone(&thread.name));
            }
        }
    }

    fn stack(
        &mut self,
        samples: &Samples,
        process: ProcessId,
        kernel: Option<StackId>,
        user: Option<StackId>,
    ) -> StackIdx {
        let mut frames = Vec::new();
        for (space, id) in [(None, kernel), (Some(process), user)] {
            let addresses = id.map(|id| samples.stacks.get(id)).unwrap_or_default();
            #[cfg(feature = "unwind")]
            let addresses = if space.is_some() { Span::split(addresses).0 } else { addresses };
            #[cfg(feature = "python")]
            let (addresses, python) =
                if space.is_some() { split_python(addresses) } else { (addresses, &[][..]) };
            #[cfg(feature = "python")]
            let first = frames.len();
            for (depth, &address) in addresses.iter().enumerate() {
                let (frame, is_code) = self.frame(space, looked_up(depth, address));
                // A walk by frame pointers goes on into whatever the first function found in the register.
                if depth > 0 && !is_code {
                    break;
                }
                frames.push(frame);
            }
            #[cfg(feature = "python")]
            if !python.is_empty() {
                self.merge_python(process, &mut frames, first, python);
            }
            #[cfg(feature = "unwind")]
            if space.is_none() && self.profile.sample_type == SampleType::OFF_CPU {
                self.remove_hook(&mut frames);
            }
        }
        intern(&mut self.profile.stacks, &mut self.stacks, frames, StackIdx)
    }

    /// Puts functions of Python into a stack whose native frames begin at `first`.
    #[cfg(feature = "python")]
    fn merge_python(&mut self, process: ProcessId, stack: &mut Vec<FrameIdx>, first: usize, words: &[u64]) {
        let mut native = stack.split_off(first.min(stack.len()));
        let is_full = native.len() + words.len() >= MAX_FRAMES;
        let python: Vec<PythonFrame> = words.iter().filter_map(|word| PythonFrame::of(*word)).collect();
        let name = |frame: &FrameIdx| {
            let line = self.profile.frames.get(frame.0 as usize).and_then(|frame| frame.lines.last());
            line.map_or("", |line| &line.function)
        };
        // Compilers put parts of it elsewhere, under names with more behind it.
        let is_eval = |frame: &FrameIdx| name(frame).starts_with(EVAL);
        if self.names.has_handlers(process) {
            let is_handler = |frame: &FrameIdx| name(frame).is_empty() || name(frame).starts_with(HANDLERS);
            let callers = native.iter().skip(1).chain([&FrameIdx(u32::MAX)]);
            let kept = native.iter().zip(callers).filter(|(frame, by)| !(is_eval(by) && is_handler(frame)));
            native = kept.map(|(frame, _)| *frame).collect();
        }
        let is_eval: Vec<bool> = native.iter().map(is_eval).collect();
        for place in merge(&is_eval, &python, is_full) {
            match place {
                Merged::Native(number) => stack.extend(native.get(number)),
                Merged::Python(number) => {
                    let Some(&frame) = python.get(number) else { continue };
                    if let Some(line) = self.names.python(process, frame) {
                        let frame =
                            Frame { kind: FrameKind::Python, mapping: None, address: 0, lines: vec![line] };
                        stack.push(intern(&mut self.profile.frames, &mut self.frames, frame, FrameIdx));
                    }
                }
            }
        }
    }

    /// A thread that leaves the CPU is seen by a hook of the scheduler: what is called from there on is not the thread's, and the
    /// scheduler's own beginning is in all stacks.
    #[cfg(feature = "unwind")]
    fn remove_hook(&self, frames: &mut Vec<FrameIdx>) {
        let is = |frame: &FrameIdx, name: &str| {
            let frame = self.profile.frames.get(frame.0 as usize);
            frame.and_then(|frame| frame.lines.first()).is_some_and(|line| &*line.function == name)
        };
        if let Some(hook) = frames.iter().position(|frame| is(frame, "__schedule")) {
            let callers = frames.get(hook + 1..).unwrap_or_default();
            let schedule = callers.iter().take_while(|frame| is(frame, "schedule")).count();
            frames.drain(..hook + 1 + schedule);
        }
    }

    fn frame(&mut self, space: Option<ProcessId>, address: u64) -> (FrameIdx, bool) {
        if let Some(&found) = self.addresses.get(&(space, address)) {
            return found;
        }
        let named = match space {
            None => self.names.kernel(address),
            Some(process) => self.names.user(process, address),
        };
        let mapping =
            named.mapping.map(|m| intern(&mut self.profile.mappings, &mut self.mappings, m, MappingIdx));
        let frame = Frame { kind: named.kind, mapping, address: named.address, lines: named.lines };
        let id = intern(&mut self.profile.frames, &mut self.frames, frame, FrameIdx);
        let found = (id, !named.not_code);
        self.addresses.insert((space, address), found);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::SampleKey;

    const NOWHERE: u64 = 1;
    const EVALS: u64 = 0x700;

    /// Function names by address; two processes map the same file at different places.
    struct Table;

    impl Names for Table {
        fn prepare_kernel(&mut self, _addresses: Vec<u64>) {}
        fn process(&mut self, process: ProcessId) -> Process {
            Process { pid: process.pid, ..Process::default() }
        }
        fn kernel(&mut self, address: u64) -> Named {
            named(FrameKind::Kernel, address, "do_work")
        }
        fn user(&mut self, process: ProcessId, address: u64) -> Named {
            let address = address - u64::from(process.pid) * 0x1000;
            named(
                FrameKind::Native,
                address,
                if address >= EVALS { "_PyEval_EvalFrameDefault.cold" } else { "main" },
            )
        }
        #[cfg(feature = "python")]
        fn python(&mut self, _process: ProcessId, frame: PythonFrame) -> Option<Line> {
            let function = format!("f{}", frame.code).into();
            (frame.code != 0).then_some(Line { function, system_name: None, file: None, line: 7 })
        }
        #[cfg(feature = "python")]
        fn has_handlers(&self, process: ProcessId) -> bool {
            process.pid == 2
        }
    }

    /// Frames of CPython stand where its own function was; where that calls functions for instructions, these are left out, too.
    #[cfg(feature = "python")]
    #[test]
    fn functions_of_python_stand_for_the_interpreter() {
        let names = |pid: u32| {
            let mut samples = Samples::default();
            let base = u64::from(pid) * 0x1000;
            let (python, entry) = (1 << 63, 1 << 63 | 1 << 62);
            let native = [0x10, 0x20, EVALS + 8, 0x30, EVALS + 16, 0x40].map(|address| base + address);
            let words = [python | 1, entry | 2, python, entry | 3];
            let user = samples.stacks.intern(&[&native[..], &words].concat());
            let kernel = samples.stacks.intern(&[u64::MAX - 8]);
            let process = ProcessId { pid, started: 0 };
            let waker = WakerId::default();
            samples.add(SampleKey { process, tid: 1, kernel, user, waker }, [0; 16], 1);
            let profile = name(&samples, WindowInfo::default(), &mut Table);
            let frames = profile.stacks[0].iter().map(|frame| &profile.frames[frame.0 as usize]);
            frames.map(|frame| frame.lines[0].function.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(1), ["do_work", "main", "main", "f8", "f16", "main", "f24", "main"]);
        assert_eq!(names(2), names(1), "functions with other names are no handlers");
    }

    fn named(kind: FrameKind, address: u64, function: &str) -> Named {
        let line = Line { function: function.into(), system_name: None, file: None, line: 0 };
        let mapping = Some(Mapping { path: "/bin/x".into(), ..Mapping::default() });
        Named { kind, address, mapping, lines: vec![line], not_code: address == NOWHERE }
    }

    #[test]
    fn the_same_code_in_two_processes_is_the_same_frame() {
        let mut samples = Samples::default();
        for pid in [1u32, 2] {
            let user = samples.stacks.intern(&[u64::from(pid) * 0x1000 + 8, u64::from(pid) * 0x1000 + 0x21]);
            samples.add(
                SampleKey {
                    process: ProcessId { pid, started: 0 },
                    tid: pid * 10,
                    kernel: None,
                    user,
                    waker: WakerId::default(),
                },
                *b"t\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
                3,
            );
        }
        let profile = name(&samples, WindowInfo::default(), &mut Table);
        assert_eq!(
            profile.frames.iter().map(|f| f.address).collect::<Vec<_>>(),
            [8, 0x20],
            "callers point at the call"
        );
        assert_eq!((profile.stacks.len(), profile.samples.len(), profile.mappings.len()), (1, 2, 1));
        assert_eq!(profile.threads[1], Thread::new(20, "t"));
        assert_eq!(profile.processes[0].comm.as_deref(), Some("t"), "the only name that is known");
    }

    #[test]
    fn a_walk_ends_where_there_is_no_code() {
        let mut samples = Samples::default();
        let user = samples.stacks.intern(&[0x1008, 0x1010, 0x1000 + NOWHERE + 1, 0x1018]);
        samples.add(
            SampleKey {
                process: ProcessId { pid: 1, started: 0 },
                tid: 1,
                kernel: None,
                user,
                waker: WakerId::default(),
            },
            [0; 16],
            1,
        );
        let profile = name(&samples, WindowInfo::default(), &mut Table);
        assert_eq!(profile.stacks[0].len(), 2);
    }

    #[test]
    fn kernel_frames_come_before_user_frames_and_same_samples_merge() {
        let mut samples = Samples::default();
        let kernel = samples.stacks.intern(&[0xffff_0000]);
        let user = samples.stacks.intern(&[0x1008]);
        let again = samples.stacks.intern(&[0x1008, 0x1008]);
        for (user, count) in [(user, 2), (None, 1), (again, 4)] {
            samples.add(
                SampleKey {
                    process: ProcessId { pid: 1, started: 0 },
                    tid: 1,
                    kernel,
                    user,
                    waker: WakerId::default(),
                },
                [0; 16],
                count,
            );
        }
        let profile = name(&samples, WindowInfo::default(), &mut Table);
        let kinds: Vec<Vec<FrameKind>> = profile
            .stacks
            .iter()
            .map(|s| s.iter().map(|f| profile.frames[f.0 as usize].kind).collect())
            .collect();
        assert_eq!(kinds[0], [FrameKind::Kernel]);
        assert_eq!(kinds[1], [FrameKind::Kernel, FrameKind::Native]);
        assert_eq!(profile.samples.iter().map(|s| s.count).sum::<u64>(), 7);
    }

    #[cfg(feature = "unwind")]
    struct Scheduler;

    #[cfg(feature = "unwind")]
    impl Names for Scheduler {
        fn prepare_kernel(&mut self, _addresses: Vec<u64>) {}
        fn process(&mut self, process: ProcessId) -> Process {
            Process { pid: process.pid, ..Process::default() }
        }
        fn kernel(&mut self, address: u64) -> Named {
            let names = ["hook", "bpf_trace_run4", "__schedule", "schedule", "futex_wait"];
            named(FrameKind::Kernel, address + 8, names[address as usize / 8])
        }
        #[cfg(feature = "python")]
        fn python(&mut self, _process: ProcessId, _frame: PythonFrame) -> Option<Line> {
            None
        }
        #[cfg(feature = "python")]
        fn has_handlers(&self, _process: ProcessId) -> bool {
            false
        }
        fn user(&mut self, _process: ProcessId, address: u64) -> Named {
            named(FrameKind::Native, address, "main")
        }
    }

    #[test]
    #[cfg(feature = "unwind")]
    fn a_wait_begins_at_what_calls_the_scheduler_and_has_a_waker() {
        let mut samples = Samples::default();
        let kernel = samples.stacks.intern(&[0, 9, 17, 25, 33]);
        let process = ProcessId { pid: 1, started: 0 };
        for (name, nanos) in [([0; 16], 1), (WaitKey::INTERRUPT, 2), (*b"waker\0\0\0\0\0\0\0\0\0\0\0", 4)] {
            let waker = samples.waker(name);
            samples.add(SampleKey { process, tid: 1, kernel, user: None, waker }, [0; 16], nanos);
        }
        let of =
            |sample_type| name(&samples, WindowInfo { sample_type, ..WindowInfo::default() }, &mut Scheduler);
        let profile = of(SampleType::OFF_CPU);
        let stack =
            profile.stacks[0].iter().map(|frame| &*profile.frames[frame.0 as usize].lines[0].function);
        assert_eq!(stack.collect::<Vec<_>>(), ["futex_wait"]);
        assert_eq!(of(SampleType::CPU).stacks[0].len(), 5);
        let by =
            |sample: &Sample| (profile.threads[sample.thread.0 as usize].woken_by.as_deref(), sample.count);
        let by: Vec<_> = profile.samples.iter().map(by).collect();
        assert_eq!(by, [(None, 1), (Some("[interrupt]"), 2), (Some("waker"), 4)]);
    }
}
