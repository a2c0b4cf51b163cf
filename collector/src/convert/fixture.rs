//! A hand-made window of samples: two processes and the kernel's own work.

use crate::model::*;

/// Frames: 0 kernel, 1 to 3 native (2 with an inlined function, 3 without a name), 4 from a compiler at run time.
pub(crate) fn profile() -> Profile {
    let line = |function: &str, line| Line {
        function: function.into(),
        system_name: None,
        file: (line > 0).then(|| "shop.rs".into()),
        line,
    };
    let frame = |kind, mapping: Option<u32>, address, lines| Frame {
        kind,
        mapping: mapping.map(MappingIdx),
        address,
        lines,
    };
    let mangled = Line { system_name: Some("_ZN4shop4mainE".into()), ..line("shop::main", 7) };
    let sample = |process, thread, stack, count| Sample {
        process: ProcessIdx(process),
        thread: ThreadIdx(thread),
        stack: StackIdx(stack),
        count,
    };
    Profile {
        sample_type: Default::default(),
        start_unix_nanos: 1_790_000_000_000_000_000,
        duration_nanos: 10_000_000_000,
        period_nanos: 10_101_010,
        processes: vec![
            Process {
                pid: 100,
                parent_pid: 10,
                comm: Some("shop-worker".into()),
                executable_path: Some("/usr/bin/shop".into()),
                container_id: Some("c0ffee".into()),
                pod_uid: Some("0dd".into()),
                service_name: Some("checkout".into()),
            },
            Process { pid: 0, ..Process::default() },
            Process { pid: 200, comm: Some("node".into()), ..Process::default() },
        ],
        threads: vec![
            Thread::new(100, "shop"),
            Thread::new(101, "worker"),
            Thread::new(0, "swapper/0"),
            Thread::new(200, "node"),
        ],
        mappings: vec![
            Mapping { path: "[kernel]".into(), ..Mapping::default() },
            Mapping {
                path: "/usr/bin/shop".into(),
                build_id: Some([0xab, 0xcd, 0x01].as_slice().into()),
                memory_start: 0x1000,
                memory_limit: 0x9000,
                file_offset: 0x200,
            },
        ],
        frames: vec![
            frame(FrameKind::Kernel, Some(0), 0xffff_ffff_8100_0000, vec![line("do_idle", 0)]),
            frame(FrameKind::Native, Some(1), 0x1100, vec![mangled]),
            frame(FrameKind::Native, Some(1), 0x1200, vec![line("hash", 3), line("lookup", 40)]),
            frame(FrameKind::Native, Some(1), 0x1300, vec![]),
            frame(FrameKind::Jit, None, 0x7f00_0000_1000, vec![line("LazyCompile:~sum", 0)]),
        ],
        stacks: vec![
            vec![FrameIdx(0), FrameIdx(2), FrameIdx(1)],
            vec![FrameIdx(3), FrameIdx(1)],
            vec![FrameIdx(0)],
            vec![FrameIdx(4)],
            vec![],
        ],
        samples: vec![
            sample(0, 0, 0, 7),
            sample(1, 2, 2, 90),
            sample(0, 1, 1, 2),
            sample(2, 3, 3, 5),
            sample(0, 0, 4, 1),
        ],
        losses: Losses { skipped: 3, table_full: 2, no_stack: 1, sideband: 0 },
    }
}

/// A window of `count` samples, in processes of a thousand samples each, that share 1500 stacks; some of the
/// functions have names of 5000 bytes.
pub(crate) fn large(count: u32) -> Profile {
    let mut profile = profile();
    profile.samples.clear();
    let (first_frame, first_stack) = (profile.frames.len() as u32, profile.stacks.len() as u32);
    for n in 0..1500 {
        let name = format!("server::handlers::handler_number_{n}");
        let name = if n % 50 == 0 { format!("{name:_<5000}") } else { name };
        let line = Line { function: name.into(), system_name: None, file: None, line: 0 };
        profile.frames.push(Frame {
            kind: FrameKind::Native,
            mapping: Some(MappingIdx(1)),
            address: 0x1000 + u64::from(n),
            lines: vec![line],
        });
        profile.stacks.push(vec![FrameIdx(first_frame + n), FrameIdx(1)]);
    }
    for n in 0..count {
        if n % 1000 == 0 {
            let id = 1000 + n / 1000;
            profile.processes.push(Process {
                pid: id,
                executable_path: Some(format!("/opt/service-{id}/bin/server").into()),
                ..Process::default()
            });
            profile.threads.push(Thread::new(id, format!("main-{id}")));
        }
        profile.samples.push(Sample {
            process: ProcessIdx(profile.processes.len() as u32 - 1),
            thread: ThreadIdx(profile.threads.len() as u32 - 1),
            stack: StackIdx(first_stack + n % 1500),
            count: 1 + u64::from(n % 5),
        });
    }
    profile
}
