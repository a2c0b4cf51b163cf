//! Real files.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::{drain, id_of, request};
use crate::export::spool::{Spool, SpoolConfig, SpoolError};

/// Names the directory that a child of these tests works in.
const VARIABLE: &str = "SPOOL_TEST_DIRECTORY";

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("spool-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn config(&self) -> SpoolConfig {
        SpoolConfig { dir: self.0.join("var/spool"), max_bytes: 8 << 20, segment_bytes: 64 << 10 }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn names(config: &SpoolConfig) -> Vec<String> {
    fs::read_dir(&config.dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// This test program again, for one test, which finds `folder` in its environment.
fn child(test: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "--nocapture",
        &format!("{}::{test}", module_path!().split_once("::").unwrap().1),
    ]);
    command.env(VARIABLE, folder).stdout(Stdio::piped());
    command
}

#[test]
#[cfg_attr(not(feature = "spool"), ignore = "without the feature `spool`")]
fn requests_survive_the_process() {
    let folder = Folder::new();
    let (spool, recovered) = Spool::open(&folder.config()).unwrap();
    assert!(recovered.is_clean);
    let group: Vec<_> = (1..=30).map(|id| request(id, 10_000)).collect();
    spool.append(&group).unwrap();
    spool.acknowledge(spool.oldest().unwrap().unwrap().0).unwrap();
    assert!(names(&folder.config()).len() > 4);
    drop(spool);
    let (spool, recovered) = Spool::open(&folder.config()).unwrap();
    assert!(recovered.is_clean);
    assert_eq!(drain(&spool), (2..=30).collect::<Vec<_>>());
    drop(spool);
    assert!(names(&folder.config()).is_empty());
}

#[test]
#[cfg_attr(not(feature = "spool"), ignore = "without the feature `spool`")]
fn files_are_this_users_alone() {
    let folder = Folder::new();
    let spool = Spool::open(&folder.config()).unwrap().0;
    spool.append(&[request(1, 1)]).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let dir = folder.config().dir;
    assert_eq!(mode(dir.parent().unwrap()), 0o700);
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&dir.join("0000000000000001.spool")) & 0o077, 0);
}

#[test]
#[cfg_attr(not(feature = "spool"), ignore = "without the feature `spool`")]
fn a_directory_belongs_to_one_spool() {
    let folder = Folder::new();
    let spool = Spool::open(&folder.config()).unwrap().0;
    let error = Spool::open(&folder.config()).err().unwrap();
    assert!(matches!(*error, SpoolError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(folder.config().dir.to_str().unwrap()));
    drop(spool);
    Spool::open(&folder.config()).unwrap();
}

#[test]
#[cfg_attr(not(feature = "spool"), ignore = "without the feature `spool`")]
fn what_cannot_be_used_is_named() {
    let folder = Folder::new();
    let file = folder.0.join("file");
    fs::write(&file, "").unwrap();
    for dir in [file.clone(), file.join("below"), PathBuf::from("/proc/no/spool")] {
        let error = Spool::open(&SpoolConfig::new(dir.clone())).err().unwrap().to_string();
        assert!(error.starts_with(&format!("cannot use the spool directory {}: ", dir.display())), "{error}");
    }
    // A file of ours that is none.
    let config = folder.config();
    fs::create_dir_all(config.dir.join("0000000000000001.spool")).unwrap();
    let error = Spool::open(&config).err().unwrap().to_string();
    assert!(error.contains("0000000000000001.spool: "), "{error}");
}

#[test]
#[cfg_attr(not(feature = "spool"), ignore = "without the feature `spool`")]
fn a_directory_that_is_removed_is_an_error() {
    let folder = Folder::new();
    let config = SpoolConfig { max_bytes: 1 << 20, segment_bytes: 1 << 10, ..folder.config() };
    let spool = Spool::open(&config).unwrap().0;
    spool.append(&[request(1, 2_000)]).unwrap();
    fs::remove_dir_all(&config.dir).unwrap();
    let error = spool.append(&[request(2, 2_000)]).unwrap_err().to_string();
    let file = config.dir.join("0000000000000002.spool");
    assert!(error.starts_with(&format!("cannot create the spool file {}: ", file.display())), "{error}");
    assert_eq!(spool.oldest().unwrap(), None);
    assert_eq!(spool.stats().unreadable, 1);
}

#[test]
#[cfg_attr(not(feature = "spool"), ignore = "without the feature `spool`")]
fn reading_goes_on_while_others_append() {
    let folder = Folder::new();
    let spool = Spool::open(&folder.config()).unwrap().0;
    let last = 400;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for first in (1..=last).step_by(4) {
                let group: Vec<_> = (first..first + 4).map(|id| request(id, 1_000)).collect();
                assert!(spool.append(&group).unwrap().dropped.is_empty());
            }
        });
        let mut next = 1;
        while next <= last {
            let Some((record, request)) = spool.oldest().unwrap() else {
                std::thread::yield_now();
                continue;
            };
            assert_eq!(id_of(&request), next);
            spool.acknowledge(record).unwrap();
            next += 1;
        }
    });
    assert_eq!(spool.stats().waiting, 0);
}

/// What [`what_was_accepted_survives_a_kill`] kills: says each request that was accepted, and each that is acknowledged.
#[test]
fn child_that_appends() {
    let Some(folder) = std::env::var_os(VARIABLE) else { return };
    let folder = std::mem::ManuallyDrop::new(Folder(folder.into()));
    let spool = Spool::open(&folder.config()).unwrap().0;
    let say = |line: String| std::io::stdout().write_all(line.as_bytes()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for first in (1..).step_by(3) {
                spool.append(&[0, 1, 2].map(|n| request(first + n, 3_000))).unwrap();
                say(format!("accepted {first}\n"));
            }
        });
        loop {
            let Some((record, request)) = spool.oldest().unwrap() else { continue };
            spool.acknowledge(record).unwrap();
            say(format!("acknowledged {}\n", id_of(&request)));
            std::thread::sleep(Duration::from_micros(300));
        }
    });
}

#[test]
#[cfg_attr(not(feature = "spool"), ignore = "without the feature `spool`")]
fn what_was_accepted_survives_a_kill() {
    for lines in [1, 7, 40] {
        let folder = Folder::new();
        let mut child = child("child_that_appends", &folder.0).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let is_ours = |line: &String| line.starts_with("accepted ") || line.starts_with("acknowledged ");
        let mut said: Vec<String> = output.by_ref().filter(is_ours).take(lines).collect();
        child.kill().unwrap();
        said.extend(output.filter(is_ours));
        child.wait().unwrap();
        let of = |word: &str| -> BTreeSet<u64> {
            said.iter().filter_map(|line| line.strip_prefix(word)?.trim().parse().ok()).collect()
        };
        let acknowledged = of("acknowledged ");
        let accepted: BTreeSet<u64> = of("accepted ").iter().flat_map(|first| *first..first + 3).collect();
        let (spool, recovered) = Spool::open(&folder.config()).unwrap();
        assert!(!recovered.is_clean || recovered.held.waiting == Default::default());
        let found = drain(&spool);
        assert!(found.windows(2).all(|pair| pair[1] == pair[0] + 1), "in order and without gaps");
        let found: BTreeSet<u64> = found.into_iter().collect();
        assert!(found.is_disjoint(&acknowledged), "acknowledgements survive a kill");
        // One may be acknowledged and not said yet.
        let missing = accepted.difference(&found).filter(|id| !acknowledged.contains(id)).count();
        assert!(missing <= 1, "{missing} of {} are missing", accepted.len());
    }
}

/// What [`a_full_file_system_loses_nothing`] runs where nothing else is mounted.
#[test]
fn child_on_a_small_file_system() {
    let Some(folder) = std::env::var_os(VARIABLE) else { return };
    let folder = std::mem::ManuallyDrop::new(Folder(folder.into()));
    // Larger than the file system, so that this one is full first.
    let spool = Spool::open(&folder.config()).unwrap().0;
    let mut waiting = Vec::new();
    let mut dropped = 0;
    for id in 1..=300 {
        let appended = spool.append(&[request(id, 10_000)]).unwrap();
        waiting.push(id);
        dropped += appended.dropped.len();
        waiting.drain(..appended.dropped.len());
    }
    assert!(dropped > 100, "{dropped} dropped");
    // Someone else takes what is left; what is there is still delivered, and makes room again.
    let blocks = vec![0; 4096];
    let mut filler = fs::File::create(folder.0.join("filler")).unwrap();
    while filler.write_all(&blocks).is_ok() {}
    assert_eq!(drain(&spool), waiting);
    spool.append(&[request(301, 10_000)]).unwrap();
    drop(spool);
    assert_eq!(drain(&Spool::open(&folder.config()).unwrap().0), [301]);
    println!("all is well");
}

#[test]
#[cfg_attr(not(feature = "spool"), ignore = "without the feature `spool`")]
fn a_full_file_system_loses_nothing() {
    let folder = Folder::new();
    let child = child("child_on_a_small_file_system", &folder.0);
    let script = format!("mount -t tmpfs -o size=1m tmpfs {} && exec \"$@\"", folder.0.display());
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh"]).arg(child.get_program()).args(child.get_args());
    let probe = Command::new("unshare").args(["--mount", "true"]).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        println!("skipped: a private mount namespace takes root and unshare(1)");
        return;
    }
    let output = command.env(VARIABLE, &folder.0).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("mount:") {
        println!("skipped: no tmpfs can be mounted here: {errors}");
        return;
    }
    assert!(output.status.success() && text.contains("all is well"), "{text}{errors}");
}
