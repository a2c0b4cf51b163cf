//! Samples this machine in the background, and prints the functions with most CPU time at the end of each window.
//!
//!     cargo run --example profiling -- [SECONDS]
//!
//! as root.

use std::error::Error;
use std::io;
use std::thread::sleep;
use std::time::Duration;

use collector::config::{Config, Environment};
use collector::output::table::{self, Limits};
use collector::output::terminal::Style;
use collector::profiler::Profiler;

fn main() -> Result<(), Box<dyn Error>> {
    let seconds = std::env::args().nth(1).map_or(Ok(10), |s| s.parse())?;
    let config = Config { window: Duration::from_secs(5), ..Config::recommended(Environment::Development) };

    // The callback runs in the profiler's thread. `collector::convert` makes OTLP and pprof of the same profile.
    let limits = Limits { functions: 10, calls: 0, processes: 5 };
    let profiler = Profiler::start(config, move |profile| {
        let written = table::write(&profile, "this machine", limits, Style::default(), &mut io::stdout());
        if let Err(error) = written {
            eprintln!("{error}");
        }
    })?;
    sleep(Duration::from_secs(seconds));
    println!("\n{:?}", profiler.overhead());

    // The last window, shorter than the others, comes before this returns.
    profiler.stop()?;
    Ok(())
}
