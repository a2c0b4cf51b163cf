//! The program of `known_work`, for tests of this crate.

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [_, "work", port, dns, disk] => known_work::round::serve(port, dns, disk),
        _ => panic!("usage: workload work PORT DNS DISK"),
    }
}
