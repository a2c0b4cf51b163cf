//! `load`: what the running kernel says to an object that libbpf loads.

use std::path::Path;

use crate::libbpf::{self, Object};

/// Loads the object whole, then each program alone. A line for each result, fields split by tabs; an errno of 0 means loaded:
///
/// ```text
/// open    ERRNO REASON
/// object  ERRNO REASON
/// map     NAME TYPE
/// program NAME SECTION ERRNO REASON
/// ```
pub fn run(path: &Path) {
    let object = match Object::open(path, None) {
        Ok(object) => object,
        Err(errno) => return println!("open\t{errno}\t{}", reason()),
    };
    println!("open\t0\t");
    println!("object\t{}\t{}", object.load(), reason());
    for map in object.maps() {
        println!("map\t{}\t{}", map.name(), map.kind_name());
    }
    for program in object.programs() {
        let name = program.name();
        let errno = match Object::open(path, None) {
            Ok(alone) => {
                alone.choose(&name);
                alone.load()
            }
            Err(errno) => errno,
        };
        println!("program\t{name}\t{}\t{errno}\t{}", program.section(), reason());
    }
}

/// What libbpf has said, in one line.
fn reason() -> String {
    let messages = libbpf::messages();
    let lines: Vec<&str> = messages.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    // A verifier's log is long, and says what is wrong last.
    let shown = match lines.len() {
        0..=8 => lines,
        n => [&lines[..4], &["..."], &lines[n - 6..]].concat(),
    };
    shown.join(" | ").replace('\t', " ")
}
