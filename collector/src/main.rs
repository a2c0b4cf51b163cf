//! The `ebpf-otlp` command.
// Small builds have no code for it (`tests/static/cargo`).
#![cfg_attr(not(test), warn(clippy::use_debug))]
#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

use cli::args::{self, Command};

fn main() -> ExitCode {
    let command = match args::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(message) => {
            cli::say(format_args!("ebpf-otlp: {message}"));
            return ExitCode::from(2);
        }
    };
    let result = match command {
        Command::Help(text) => cli::print(&text),
        Command::Nothing => {
            cli::say(args::help::overview().trim_end());
            return ExitCode::from(2);
        }
        Command::Version => cli::print(&cli::features::version()),
        Command::Check(options) => cli::check::run(&options),
        #[cfg(feature = "terminal")]
        Command::Profile(options) => cli::profile::run(&options),
        #[cfg(feature = "compare")]
        Command::Compare(options) => cli::compare::run(&options),
        #[cfg(feature = "load")]
        Command::Load(options) => cli::load::run(&options),
        #[cfg(feature = "inspect")]
        Command::Inspect(options) => cli::inspect::run(&options),
        #[cfg(feature = "btf-generate")]
        Command::Btf(options) => cli::btf::run(&options),
        Command::Run(options) => cli::run::run(&options),
        #[cfg(feature = "terminal")]
        Command::Completions(shell) => cli::completions::run(shell),
        #[cfg(feature = "terminal")]
        Command::ConfigExample => cli::print(&collector::agent::config::example()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        // Whatever failed has been reported where it belongs.
        Ok(false) => ExitCode::FAILURE,
        // Whoever read our output has enough of it; what it would have said is unknown.
        Err(e) if cli::is_broken_pipe(&*e) => ExitCode::FAILURE,
        Err(e) => {
            cli::say(format_args!("ebpf-otlp: {}", cli::one_line(&*e)));
            if cli::is_usage(&*e) { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}
