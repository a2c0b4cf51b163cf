//! What libbpf does with an object, for comparison with bpf-loader.
//!
//! ```text
//! conformance-libbpf load OBJECT            loads it whole, then each program alone
//! conformance-libbpf relocate BTF OBJECT... compares the relocated instructions of every program, nothing is run
//! ```

mod functions;
mod libbpf;
mod load;
mod relocate;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    libbpf::collect_messages();
    match arguments[..] {
        ["load", object] => {
            load::run(Path::new(object));
            ExitCode::SUCCESS
        }
        ["relocate", btf, ref objects @ ..] => {
            let paths: Vec<&Path> = objects.iter().map(Path::new).collect();
            ExitCode::from(u8::from(!relocate::run(Path::new(btf), &paths)))
        }
        _ => {
            eprintln!("usage: conformance-libbpf load OBJECT | relocate BTF OBJECT...");
            ExitCode::from(2)
        }
    }
}
