//! The commands that show what the tracers of one kind find.

use std::path::PathBuf;

use collector::built_in::TerminalBuiltIn;
use collector::output::Format;
use collector::tracer::TRACERS;

use super::Run;

/// What is shown instead of `run`'s summaries.
#[derive(Debug, PartialEq)]
pub struct Table {
    _built_in: TerminalBuiltIn,
    /// The command.
    pub command: &'static str,
    /// As JSON.
    pub json: bool,
    /// Files of profiles.
    pub outputs: Vec<(PathBuf, Format)>,
}

impl Table {
    /// For a command; `None` if it has no tracers of its own.
    pub(super) fn of(command: &'static str) -> Option<Self> {
        // `profile` has tables of its own.
        let _built_in = TerminalBuiltIn::get()?;
        let has_tracers = command != "profile" && TRACERS.iter().any(|info| info.command == command);
        has_tracers.then(|| Self { _built_in, command, json: false, outputs: Vec::new() })
    }

    /// Tracers of the command that are on unless others are named. The heap is that of given processes.
    pub(super) fn tracers(&self, run: &Run) -> Vec<String> {
        let has_pids = run.flags.iter().any(|flag| flag.key == "filter.pids");
        let wanted = |info: &&collector::tracer::Info| {
            info.command == self.command && (info.on_by_default || (info.name == "heap" && has_pids))
        };
        TRACERS.iter().copied().filter(wanted).map(|info| info.name.to_owned()).collect()
    }
}
