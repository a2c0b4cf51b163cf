//! Object files with a few bytes changed at random, parsed and planned: whatever they are, nothing panics.

use crate::targets::{Kernel, plan_object};
use std::cell::RefCell;
use std::num::NonZero;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fs, io, thread};

/// An object file.
pub struct Object {
    /// Where it was found.
    pub path: PathBuf,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// Which mutations to try: those numbered from `first` on, of a seed. A number and a seed give the same one always.
#[derive(Debug, Clone, Copy)]
pub struct Mutations {
    /// Of the random numbers.
    pub seed: u64,
    /// Number of the first.
    pub first: u64,
    /// How many.
    pub count: u64,
}

/// What came of them.
#[derive(Debug, Default)]
pub struct Report {
    /// Still objects, of which every program was planned or refused for itself.
    pub planned: u64,
    /// Refused as a whole.
    pub refused: u64,
    /// Number of the mutation, file, and what the panic said.
    pub panics: Vec<(u64, PathBuf, String)>,
}

/// The files below `folder` whose names end with `.o`, by path.
pub fn objects(folder: &Path) -> io::Result<Vec<Object>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "o") {
            paths.push(path);
        }
    }
    paths.sort();
    paths.into_iter().map(|path| Ok(Object { bytes: fs::read(&path)?, path })).collect()
}

/// The mutation `number` of a seed: of which object, and its bytes, 1 to 8 of which were replaced.
pub fn mutation(objects: &[Object], seed: u64, number: u64) -> (&Object, Vec<u8>) {
    let mut random = Random(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let object = &objects[random.below(objects.len())];
    let mut bytes = object.bytes.clone();
    for _ in 0..=random.below(8) {
        let at = random.below(bytes.len());
        bytes[at] = random.next() as u8;
    }
    (object, bytes)
}

/// Tries all of them on as many threads as there are CPUs: every other one for a made-up kernel, the rest for one that has
/// the object's own types.
pub fn run(objects: &[Object], mutations: Mutations) -> Report {
    thread_local! {
        static MESSAGE: RefCell<String> = const { RefCell::new(String::new()) };
    }
    let previous = panic::take_hook();
    panic::set_hook(Box::new(|info| MESSAGE.set(info.to_string())));
    let next = AtomicU64::new(mutations.first);
    let report = Mutex::new(Report::default());
    let work = || loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number - mutations.first >= mutations.count {
            return;
        }
        let (object, bytes) = mutation(objects, mutations.seed, number);
        let kernel = if number % 2 == 0 { Kernel::MadeUp } else { Kernel::OwnTypes };
        let result = panic::catch_unwind(AssertUnwindSafe(|| plan_object(&bytes, kernel)));
        let mut report = report.lock().expect("nothing panics with the lock held");
        match result {
            Ok(Some(_)) => report.planned += 1,
            Ok(None) => report.refused += 1,
            Err(_) => report.panics.push((number, object.path.clone(), MESSAGE.take())),
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(work);
        }
    });
    panic::set_hook(previous);
    report.into_inner().expect("nothing panics with the lock held")
}

/// Random numbers (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
