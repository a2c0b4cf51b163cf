//! ```text
//! known-work work PORT DNS DISK    does a round of it for each line on standard input
//! known-work measure COMMAND...    has an agent, so started, measure two rounds, and prints a JSON object of what it said
//! known-work unprivileged COMMAND...   runs a program as a user with just CAP_BPF and CAP_PERFMON
//! ```

use std::process::ExitCode;

use known_work::{measure, round, unprivileged};

fn main() -> std::io::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["work", port, dns, disk] => round::serve(port, dns, disk)?,
        ["measure", _, ..] => println!("{}", measure::measure(&arguments[1..])?),
        ["unprivileged", _, ..] => unprivileged::exec(&arguments[1..])?,
        _ => {
            eprintln!("usage: known-work work PORT DNS DISK | measure COMMAND... | unprivileged COMMAND...");
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}
