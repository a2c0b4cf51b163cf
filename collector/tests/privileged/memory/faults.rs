//! Page faults.

use std::time::Duration;

use collector::sorted::SortedMap;
use collector::tracer::memory::{FAULT_COUNTS, FAULT_PROFILE, FAULT_STACKS};

use super::*;

#[test]
fn page_faults_are_those_of_getrusage_and_proc() {
    for rung in FAULT_COUNTS.rungs {
        let mut workload = Workload::start();
        let pid = workload.pid();
        let Some(mut tracer) = start_rung(pid, FAULT_COUNTS.what, rung.name) else { continue };
        collect(&mut *tracer);
        let (before, usage_before) = (workload.stat(), workload.rusage());
        assert_eq!(before, usage_before);
        collect(&mut *tracer);
        workload.ask("touch 1000");
        workload.ask("threads 5 200");
        workload.wait_for_threads();
        let usage = since(workload.rusage(), usage_before);
        assert_eq!(usage, since(workload.stat(), before));
        let counted = faults(&collect(&mut *tracer), pid);
        assert_eq!(counted, usage, "{}", rung.name);
        assert!((2000..2200).contains(&usage.0), "{usage:?}");
        assert_eq!(faults(&collect(&mut *tracer), pid), (0, 0), "{}: nothing is counted twice", rung.name);

        // While it is paused, nothing counts; afterwards, as before.
        crate::pause(&mut *tracer);
        assert!(!tracer.is_running());
        workload.ask("touch 100");
        tracer.resume().unwrap();
        let before = workload.stat();
        workload.ask("touch 10");
        assert_eq!(faults(&collect(&mut *tracer), pid), since(workload.stat(), before), "{}", rung.name);

        // A filter that has another process only.
        let mut other = Workload::start();
        tracer.set_filter(&Filter { pids: vec![other.pid()], ..Filter::default() }).unwrap();
        collect(&mut *tracer);
        let before = other.stat();
        workload.ask("touch 100");
        other.ask("touch 50");
        let recorder = collect(&mut *tracer);
        assert_eq!(faults(&recorder, pid), (0, 0), "{}", rung.name);
        assert_eq!(faults(&recorder, other.pid()), since(other.stat(), before), "{}", rung.name);
        nothing_lost(&mut *tracer);
    }
}

#[test]
fn page_faults_are_filtered_by_cgroup_and_name() {
    let Some(group) = Cgroup::create("faults", 1 << 30) else { return };
    let name = binary().file_name().unwrap().to_string_lossy().chars().take(15).collect::<String>();
    let mut inside = Workload::start();
    let mut outside = Workload::start();
    group.set("cgroup.procs", u64::from(inside.pid()));
    let in_group = Filter { cgroup: Some(group.directory.clone()), ..Filter::default() };
    let by_name = Filter { comm: Some(name), ..Filter::default() };
    let by_other_name = Filter { comm: Some("no such name".into()), ..Filter::default() };
    for rung in FAULT_COUNTS.rungs {
        let Some(mut tracer) = start_rung(inside.pid(), FAULT_COUNTS.what, rung.name) else { continue };
        for (filter, takes) in
            [(&in_group, [true, false]), (&by_name, [true, true]), (&by_other_name, [false; 2])]
        {
            tracer.set_filter(filter).unwrap();
            collect(&mut *tracer);
            let before = (inside.stat(), outside.stat());
            inside.ask("touch 100");
            outside.ask("touch 100");
            let expected = [since(inside.stat(), before.0), since(outside.stat(), before.1)];
            let recorder = collect(&mut *tracer);
            for ((pid, counted), takes) in [inside.pid(), outside.pid()].into_iter().zip(expected).zip(takes)
            {
                let counted = if takes { counted } else { (0, 0) };
                assert_eq!(faults(&recorder, pid), counted, "{} {filter:?}", rung.name);
            }
        }
    }
    drop((inside, outside));
}

#[test]
fn page_faults_of_children_that_ended_are_those_of_wait4() {
    for rung in FAULT_COUNTS.rungs {
        let mut workload = Workload::start();
        let pid = workload.pid();
        let forced = [(FAULT_COUNTS.what.to_owned(), rung.name.to_owned())];
        let mut tracer = (INFO.start)(&Start {
            filter: &Filter { pids: vec![pid], children: true, ..Filter::default() },
            settings: &Settings::default(),
            memory: 8 << 20,
            forced: &Forced(SortedMap::from(forced)),
            target: &RunningTarget::new(),
        })
        .unwrap();
        collect(&mut *tracer);
        let (minor, major) = two_numbers(&workload.ask("forks 20 300"));
        let recorder = collect(&mut *tracer);
        let mut counted = (0, 0);
        for series in
            recorder.numbers.keys().filter(|s| s.metric == "process.paging.faults" && s.pid != Some(pid))
        {
            let n = *recorder.numbers.get(series).unwrap() as u64;
            let minor = series.attributes.iter().any(|(_, kind)| kind == "minor");
            *(if minor { &mut counted.0 } else { &mut counted.1 }) += n;
        }
        assert_eq!(counted, (minor, major), "{}", rung.name);
        assert!(minor >= 20 * 300);
        nothing_lost(&mut *tracer);
    }
}

/// A file whose pages come from a disk: on this machine's, or, where that is memory alone, a disk made of a file.
struct Slow {
    file: PathBuf,
    disk: Option<String>,
}

impl Slow {
    fn create(pages: usize) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let has_disk = folder.is_dir();
        let file = if has_disk { folder } else { "/tmp".into() }.join("memory-file");
        fs::write(&file, vec![7; pages * bpf_sys::page_size()]).unwrap();
        let mut slow = Self { file, disk: None };
        if !has_disk {
            let free = Command::new("losetup").arg("-f").output().unwrap();
            let disk = String::from_utf8(free.stdout).unwrap().trim().to_owned();
            assert!(Command::new("losetup").arg(&disk).arg(&slow.file).status().unwrap().success(), "{disk}");
            slow.disk = Some(disk);
        }
        slow
    }

    fn path(&self) -> &Path {
        self.disk.as_ref().map_or(&self.file, |disk| Path::new(disk))
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        if let Some(disk) = &self.disk {
            let _ = Command::new("losetup").arg("-d").arg(disk).status();
        }
        let _ = fs::remove_file(&self.file);
    }
}

#[test]
fn major_faults_wait_for_a_disk() {
    let slow = Slow::create(64);
    for rung in FAULT_COUNTS.rungs {
        let mut workload = Workload::start();
        let Some(mut tracer) = start_rung(workload.pid(), FAULT_COUNTS.what, rung.name) else { continue };
        collect(&mut *tracer);
        let before = workload.stat();
        workload.ask(&format!("file {} 64", slow.path().display()));
        let counted = faults(&collect(&mut *tracer), workload.pid());
        assert_eq!(counted, since(workload.stat(), before), "{}", rung.name);
        assert!(counted.1 > 0, "the page cache kept the file: {counted:?}");
    }
}

#[test]
fn a_thread_that_execs_takes_its_faults_along() {
    for rung in FAULT_COUNTS.rungs {
        let mut workload = Workload::start();
        let pid = workload.pid();
        let Some(mut tracer) = start_rung(pid, FAULT_COUNTS.what, rung.name) else { continue };
        collect(&mut *tracer);
        let before = workload.stat();
        workload.ask("touch 100");
        workload.ask("second 300");
        let first = faults(&collect(&mut *tracer), pid);
        assert_eq!(first, since(workload.stat(), before), "{}", rung.name);
        // The first thread ends; the second becomes the process, with what it had.
        assert_eq!(workload.ask("exec"), "ready");
        workload.ask("touch 50");
        let then = faults(&collect(&mut *tracer), pid);
        // The page of an exec's arguments is brought in by the kernel, which is no event.
        let unseen = u64::from(rung.name == "perf");
        let both = (first.0 + then.0 + unseen, first.1 + then.1);
        assert_eq!(both, since(workload.stat(), before), "{}", rung.name);
        assert!(first.0 >= 400 && then.0 >= 50, "{first:?} {then:?}");
        assert_eq!(faults(&collect(&mut *tracer), pid), (0, 0), "{}", rung.name);
    }
}

/// Page faults and mappings of another process, all the while.
struct Noise(std::sync::Arc<std::sync::atomic::AtomicBool>, Option<std::thread::JoinHandle<()>>);

impl Noise {
    fn start() -> Self {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let until = stop.clone();
        let mut workload = Workload::start();
        let thread = std::thread::spawn(move || {
            while !until.load(std::sync::atomic::Ordering::Relaxed) {
                workload.ask("touch 100");
                // Emulators of several CPUs may hang where one patches the function that another is always in.
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self(stop, Some(thread))
    }
}

impl Drop for Noise {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        let _ = self.1.take().map(std::thread::JoinHandle::join);
    }
}

#[test]
fn the_filter_counts_from_the_first_moment() {
    let _noise = Noise::start();
    let workload = Workload::start();
    let filter = Filter { pids: vec![workload.pid()], ..Filter::default() };
    // Both run a program at whatever the others do.
    let rungs = [(FAULT_COUNTS.what, "perf"), (MAPPINGS.what, "syscalls")];
    for _ in 0..5 {
        let mut tracer = start_filtered(filter.clone(), 8 << 20, &rungs).unwrap();
        let recorder = collect(&mut *tracer);
        let others: Vec<_> =
            recorder.numbers.keys().filter(|series| series.pid != Some(workload.pid())).collect();
        assert!(others.is_empty(), "{others:?}");
        assert_eq!(tracer.stats().unwrap().hits, 0);
    }
}

#[test]
fn stacks_of_page_faults_add_up() {
    let mut workload = Workload::start();
    let settings = Settings {
        memory: collector::tracer::memory::Settings { fault_stacks: 1, ..Default::default() },
        ..Settings::default()
    };
    let forced: Vec<(&str, &str)> = vec![(FAULT_COUNTS.what, "accounting")];
    let Some(started) = start(&INFO, workload.pid(), &settings, &forced) else { return };
    let mut tracer = started.unwrap();
    let stacks = tracer.rungs().iter().find(|chosen| chosen.what == FAULT_STACKS.what).unwrap();
    assert_eq!(stacks.rung, Some("perf"), "{:?}", stacks.refused);
    collect(&mut *tracer);
    let before = workload.stat();
    workload.ask("touch 2000");
    let counted = since(workload.stat(), before);
    let recorder = collect(&mut *tracer);
    assert_eq!(faults(&recorder, workload.pid()), counted);
    let profile = &recorder.profiles[0];
    assert_eq!((profile.sample_type, profile.period_nanos), (FAULT_PROFILE.sample_type, 1));
    let total: u64 = profile.samples.iter().map(|sample| sample.count).sum();
    let lost =
        dropped(&mut *tracer, "table of stacks full") + dropped(&mut *tracer, "stacks skipped by the kernel");
    assert!(
        total <= counted.0 + counted.1 && total + lost >= counted.0 + counted.1,
        "{total} and {lost} of {counted:?}"
    );
    let function =
        |frame: &collector::model::Frame| frame.lines.iter().any(|line| &*line.function == "touch");
    let of_touch = profile.samples.iter().filter(|sample| {
        let stack = &profile.stacks[sample.stack.0 as usize];
        stack.iter().any(|frame| function(&profile.frames[frame.0 as usize]))
    });
    let of_touch: u64 = of_touch.map(|sample| sample.count).sum();
    assert!(of_touch >= 2000, "{of_touch} of {total}");

    // Every thread has its own place in the table, which is not read meanwhile.
    let before = workload.stat();
    for _ in 0..20 {
        workload.ask("threads 2000 1");
        if dropped(&mut *tracer, "table of stacks full") > 0 {
            break;
        }
    }
    workload.wait_for_threads();
    let (minor, major) = since(workload.stat(), before);
    let recorder = collect(&mut *tracer);
    let total: u64 = recorder.profiles[0].samples.iter().map(|sample| sample.count).sum();
    let full = dropped(&mut *tracer, "table of stacks full");
    let skipped = dropped(&mut *tracer, "stacks skipped by the kernel");
    assert!(full > 0, "{total} of {minor}");
    assert!(
        total + full <= minor + major && total + full + skipped >= minor + major,
        "{total}, {full} without room, {skipped} skipped of {minor} and {major}"
    );
}
