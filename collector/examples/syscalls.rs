//! Counts the system calls of one process, or of all, and prints a table each second.
//!
//!     cargo run --example syscalls -- [PID]
//!
//! as root; ends after ten seconds.

use std::error::Error;
use std::io;
use std::thread::sleep;
use std::time::Duration;

use bpf_loader::target::RunningTarget;
use collector::config::Filter;
use collector::output::activity::{self, Context};
use collector::output::terminal::Style;
use collector::telemetry::Recorder;
use collector::tracer::ladder::Forced;
use collector::tracer::{Settings, Start, syscalls};

fn main() -> Result<(), Box<dyn Error>> {
    let pids = std::env::args().nth(1).map(|pid| pid.parse()).transpose()?;
    let mut tracer = (syscalls::INFO.start)(&Start {
        filter: &Filter { pids: pids.into_iter().collect(), ..Filter::default() },
        settings: &Settings::default(),
        memory: 4 << 20,
        forced: &Forced::default(),
        target: &RunningTarget::new(),
    })?;
    for _ in 0..10 {
        sleep(Duration::from_secs(1));
        // A sink of your own may do with points and events what it likes; this one keeps them.
        let mut window = Recorder::default();
        tracer.drain(&mut window)?;
        tracer.collect(&mut window)?;
        let name = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let context =
            Context { seconds: 1.0, limit: 10, style: Style::default(), process_name: &|pid| name(pid) };
        for view in syscalls::INFO.views {
            activity::write(view, &window, &context, &mut io::stdout())?;
        }
    }
    println!("\n{:?}", tracer.stats()?);
    println!("{:?}", tracer.overhead()?);
    Ok(())
}
