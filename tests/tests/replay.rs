//! Every seed through its target, on a stable compiler: the inputs that fuzzing starts from, and every one that it
//! ever failed at.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tests::targets::{TARGETS, loader_object};

/// What one input may take; even without optimisation it is milliseconds.
const LIMIT: Duration = Duration::from_secs(10);

/// Targets measure the heap of the whole process, so that one test runs at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn seeds() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds")
}

fn entries(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn targets_have_seeds_and_a_fuzzer() {
    let names: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names.len(), TARGETS.len());
    assert_eq!(entries(&seeds()), names, "a folder of seeds for each target");
    for name in &names {
        assert!(!entries(&seeds().join(name)).is_empty(), "{name} has no seeds");
    }
    let fuzzers = entries(&seeds().join("../fuzz_targets"));
    assert_eq!(fuzzers, names.iter().map(|name| format!("{name}.rs")).collect(), "a wrapper for each target");
}

#[test]
fn seeds_pass() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, target) in TARGETS {
        for seed in entries(&seeds().join(name)) {
            let path = seeds().join(name).join(&seed);
            let bytes = fs::read(&path).unwrap();
            // Whatever fails next, its name is in the output.
            println!("{name}/{seed}: {} bytes", bytes.len());
            let start = Instant::now();
            target(&bytes);
            let took = start.elapsed();
            assert!(took < LIMIT, "{name}/{seed} took {took:?}");
        }
    }
}

/// What fuzzing on this machine has found so far, if anything; it is not committed.
#[test]
fn the_corpus_passes() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, target) in TARGETS {
        let corpus = seeds().join("../corpus").join(name);
        if !corpus.exists() {
            continue;
        }
        let inputs = entries(&corpus);
        println!("{name}: {} inputs", inputs.len());
        for input in inputs {
            println!("{name}/{input}");
            target(&fs::read(corpus.join(input)).unwrap());
        }
    }
}

/// Numbers that are the same in every run (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// Words at which sizes, counts and offsets break.
const WORDS: [u32; 8] = [0, 1, 8, 0x7f, 0xffff, 0x7fff_ffff, 0x8000_0000, u32::MAX];

#[test]
fn objects_with_changed_bytes_are_planned_or_refused() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let start = Instant::now();
    let mut runs = 0;
    // What compilers made; the hand-made ones are large on purpose.
    for seed in entries(&seeds().join("loader_object")).iter().filter(|name| name.ends_with(".bpf.o")) {
        let file = fs::read(seeds().join("loader_object").join(seed)).unwrap();
        for _ in 0..RUNS_OF_EACH {
            let mut changed = file.clone();
            for _ in 0..=numbers.below(3) {
                let at = numbers.below(changed.len());
                match numbers.below(4) {
                    0 => changed[at] ^= 1 << numbers.below(8),
                    1 => changed[at] = numbers.below(256) as u8,
                    2 => {
                        let word = WORDS[numbers.below(WORDS.len())].to_le_bytes();
                        let at = at & !3;
                        changed.iter_mut().skip(at).zip(word).for_each(|(to, from)| *to = from);
                    }
                    _ => changed.truncate(at.max(1)),
                }
            }
            loader_object(&changed);
            runs += 1;
        }
    }
    println!("{runs} changed objects in {:?}", start.elapsed());
}

/// A few seconds in all without optimisation.
const RUNS_OF_EACH: usize = 150;
