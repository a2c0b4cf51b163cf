//! `mutate FOLDER [COUNT [SEED [FIRST]]]`: parses and plans every program of COUNT mutations (a million) of the objects
//! in FOLDER for made-up kernels, and fails if one panics.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use std::{env, fs};
use tests::mutate::{Mutations, mutation, objects, run};

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let Some(folder) = arguments.next().map(PathBuf::from) else { return usage() };
    let numbers: Result<Vec<u64>, _> = arguments.map(|argument| argument.parse()).collect();
    let Ok(numbers) = numbers else { return usage() };
    let number = |at: usize, default| numbers.get(at).copied().unwrap_or(default);
    let mutations = Mutations { count: number(0, 1_000_000), seed: number(1, 1), first: number(2, 0) };
    let objects = match objects(&folder) {
        Ok(objects) if !objects.is_empty() => objects,
        Ok(_) => return fail(&format!("no objects in {}", folder.display())),
        Err(error) => return fail(&format!("{}: {error}", folder.display())),
    };
    let start = Instant::now();
    let report = run(&objects, mutations);
    for (number, path, message) in &report.panics {
        println!("mutation {number} of seed {}, of {}: {message}", mutations.seed, path.display());
    }
    if let Some((number, ..)) = report.panics.first() {
        let file = env::temp_dir().join("mutation.o");
        if fs::write(&file, mutation(&objects, mutations.seed, *number).1).is_ok() {
            println!("the first of them is {}", file.display());
        }
    }
    println!(
        "{} mutations of {} objects with seed {}: {} planned, {} refused, {} panics, in {:.0?}",
        mutations.count,
        objects.len(),
        mutations.seed,
        report.planned,
        report.refused,
        report.panics.len(),
        start.elapsed()
    );
    if report.panics.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn usage() -> ExitCode {
    eprintln!("usage: mutate FOLDER [COUNT [SEED [FIRST]]]");
    ExitCode::from(2)
}

fn fail(message: &str) -> ExitCode {
    eprintln!("mutate: {message}");
    ExitCode::FAILURE
}
