//! Exports requests with numbered items as the agent would. `tests::generate::USAGE` says how.

use std::process::ExitCode;
use tests::generate::{Options, USAGE, run, to_json};

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args_os().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprint!("otlp-generate: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options, &mut std::io::stdout()) {
        Ok(stats) => {
            println!("{}", to_json(&stats));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("otlp-generate: {error}");
            ExitCode::FAILURE
        }
    }
}
