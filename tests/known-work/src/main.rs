//! ```text
//! known-work work PORT DNS DISK           does a round of it for each line on standard input
//! known-work measure SECONDS COMMAND...   has an agent, so started, measure at least two rounds, and prints a JSON object of what it said
//! known-work unprivileged COMMAND...      runs a program as a user with just CAP_BPF and CAP_PERFMON
//! ```

use std::process::ExitCode;
use std::time::Duration;

use known_work::{measure, round, unprivileged};

fn main() -> std::io::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["work", port, dns, disk] => round::serve(port, dns, disk)?,
        ["measure", seconds, _, ..] => {
            let time = Duration::from_secs(seconds.parse().map_err(std::io::Error::other)?);
            println!("{}", measure::measure(&arguments[2..], time)?);
        }
        ["unprivileged", _, ..] => unprivileged::exec(&arguments[1..])?,
        _ => {
            eprintln!(
                "usage: known-work work PORT DNS DISK | measure SECONDS COMMAND... | unprivileged COMMAND..."
            );
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}
