//! What people call the things in a profile, in text that is safe on a terminal and in a picture.
//!
//! Names come from processes that nobody vouches for: a `comm` may hold escape sequences. Every output shows
//! names through this module only.

use std::sync::Arc;

use crate::model::{Frame, FrameIdx, FrameKind, Mapping, Process, ProcessIdx, Profile, Sample, StackIdx};

/// Stands for the stack of a sample whose stack could not be read.
pub const NO_STACK: &str = "[no stack]";
/// Stands for code in no known file.
pub const UNKNOWN: &str = "[unknown]";

/// One function of a stack: a frame, or one of those inlined into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call<'a> {
    /// Its name; the module in brackets where no name is known.
    pub name: &'a Arc<str>,
    /// The frame it belongs to.
    pub frame: &'a Frame,
}

/// The clean names of a profile's frames and processes, made once.
#[derive(Debug)]
pub struct Names<'a> {
    profile: &'a Profile,
    /// Per frame, outermost first; never empty.
    frames: Vec<Vec<Arc<str>>>,
    processes: Vec<Arc<str>>,
}

impl<'a> Names<'a> {
    /// Cleans the names of `profile`.
    pub fn new(profile: &'a Profile) -> Self {
        let frames = profile.frames.iter().map(|frame| frame_names(profile, frame)).collect();
        Self { frames, ..Self::of_processes(profile) }
    }

    /// Only the names of processes, which is cheap.
    pub fn of_processes(profile: &'a Profile) -> Self {
        let processes = profile.processes.iter().map(|process| process_name(process).into()).collect();
        Self { profile, frames: Vec::new(), processes }
    }

    /// The name of a process: its `comm`, else its executable's file name, else its pid.
    pub fn process(&self, index: ProcessIdx) -> Arc<str> {
        self.processes.get(index.0 as usize).cloned().unwrap_or_else(|| UNKNOWN.into())
    }

    /// The calls of a stack, leaf first.
    pub fn leaf_first(&self, stack: StackIdx) -> impl Iterator<Item = Call<'_>> {
        self.stack(stack).iter().flat_map(|index| self.calls(*index).rev())
    }

    /// The calls of a stack, outermost first.
    pub fn outermost_first(&self, stack: StackIdx) -> impl Iterator<Item = Call<'_>> {
        self.stack(stack).iter().rev().flat_map(|index| self.calls(*index))
    }

    fn stack(&self, stack: StackIdx) -> &'a [FrameIdx] {
        self.profile.stacks.get(stack.0 as usize).map_or(&[], Vec::as_slice)
    }

    fn calls(&self, index: FrameIdx) -> impl DoubleEndedIterator<Item = Call<'_>> {
        let frame = self.profile.frames.get(index.0 as usize);
        let names = self.frames.get(index.0 as usize).map_or(&[][..], Vec::as_slice);
        frame.into_iter().flat_map(move |frame| names.iter().map(move |name| Call { name, frame }))
    }

    /// Short name of the file that a frame lies in.
    pub fn module(&self, frame: &Frame) -> String {
        module_name(self.profile, frame).map(clean).unwrap_or_default()
    }

    /// Short name of a mapped file.
    pub(super) fn module_of(&self, mapping: &Mapping) -> Arc<str> {
        clean(file_name(&mapping.path)).into()
    }

    /// Whether a frame lies in the executable of the sample's process, not in a library.
    pub fn in_executable(&self, frame: &Frame, process: ProcessIdx) -> bool {
        let executable = self
            .profile
            .processes
            .get(process.0 as usize)
            .and_then(|process| process.executable_path.as_ref());
        let mapping = frame.mapping.and_then(|index| self.profile.mappings.get(index.0 as usize));
        mapping.zip(executable).is_some_and(|(mapping, executable)| mapping.path == *executable)
    }
}

/// The samples of a profile that exist, with their count; zero counts carry nothing.
pub fn samples(profile: &Profile) -> impl Iterator<Item = &Sample> {
    profile.samples.iter().filter(|sample| sample.count > 0)
}

fn frame_names(profile: &Profile, frame: &Frame) -> Vec<Arc<str>> {
    let names: Vec<Arc<str>> = frame
        .lines
        .iter()
        .rev()
        .map(|line| match &line.function {
            name if name.is_empty() => UNKNOWN.into(),
            // Most need no copy.
            name if !name.chars().any(acts) => name.clone(),
            name => clean(name).into(),
        })
        .collect();
    if !names.is_empty() {
        return names;
    }
    vec![match module_name(profile, frame) {
        Some(bracketed) if bracketed.starts_with('[') => clean(bracketed).into(),
        Some(module) => format!("[{}]", clean(module)).into(),
        None if frame.kind == FrameKind::Kernel => "[kernel]".into(),
        None => UNKNOWN.into(),
    }]
}

fn module_name<'p>(profile: &'p Profile, frame: &Frame) -> Option<&'p str> {
    let mapping = profile.mappings.get(frame.mapping?.0 as usize)?;
    Some(file_name(&mapping.path)).filter(|name| !name.is_empty())
}

fn process_name(process: &Process) -> String {
    let executable = process.executable_path.as_deref().map(file_name);
    match process.comm.as_deref().or(executable).filter(|name| !name.is_empty()) {
        Some(name) => clean(name),
        None => format!("pid {}", process.pid),
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// `text` with `?` for what would act on a terminal instead of being shown: control characters and changes of
/// the writing direction.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if acts(c) { '?' } else { c }).collect()
}

fn acts(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Line, MappingIdx};

    fn line(function: &str) -> Line {
        Line { function: function.into(), system_name: None, file: None, line: 0 }
    }

    fn frame(kind: FrameKind, mapping: Option<u32>, lines: Vec<Line>) -> Frame {
        Frame { kind, mapping: mapping.map(MappingIdx), address: 1, lines }
    }

    fn profile() -> Profile {
        let mapping = |path: &str| Mapping { path: path.into(), ..Mapping::default() };
        Profile {
            processes: vec![
                Process { pid: 1, comm: Some("a\x1b[2J".into()), ..Process::default() },
                Process { pid: 2, executable_path: Some("/bin/b".into()), ..Process::default() },
                Process { pid: 3, ..Process::default() },
            ],
            mappings: vec![mapping("/bin/b"), mapping("[vdso]"), mapping("/lib/c.so")],
            frames: vec![
                frame(FrameKind::Kernel, None, vec![]),
                frame(FrameKind::Native, Some(0), vec![line("inner"), line("outer")]),
                frame(FrameKind::Native, Some(1), vec![]),
                frame(FrameKind::Native, Some(2), vec![]),
                frame(FrameKind::Native, None, vec![]),
                frame(FrameKind::Native, None, vec![line("")]),
            ],
            stacks: vec![(0..6).map(FrameIdx).collect()],
            ..Profile::default()
        }
    }

    #[test]
    fn inlined_functions_stand_inside_their_callers() {
        let profile = profile();
        let names = Names::new(&profile);
        let leaf_first: Vec<&str> = names.leaf_first(StackIdx(0)).map(|call| &**call.name).collect();
        let expected = ["[kernel]", "inner", "outer", "[vdso]", "[c.so]", "[unknown]", "[unknown]"];
        assert_eq!(leaf_first, expected);
        let mut outermost_first: Vec<&str> =
            names.outermost_first(StackIdx(0)).map(|call| &**call.name).collect();
        outermost_first.reverse();
        assert_eq!(outermost_first, expected);
    }

    #[test]
    fn processes_are_named_by_what_is_known() {
        let profile = profile();
        let names = Names::new(&profile);
        let all: Vec<Arc<str>> = (0..4).map(|index| names.process(ProcessIdx(index))).collect();
        assert_eq!(all.iter().map(|name| &**name).collect::<Vec<_>>(), ["a?[2J", "b", "pid 3", "[unknown]"]);
    }

    #[test]
    fn own_code_is_told_from_libraries() {
        let profile = profile();
        let names = Names::new(&profile);
        assert!(names.in_executable(&profile.frames[1], ProcessIdx(1)));
        assert!(!names.in_executable(&profile.frames[3], ProcessIdx(1)));
        assert!(!names.in_executable(&profile.frames[4], ProcessIdx(2)));
        assert_eq!(names.module(&profile.frames[3]), "c.so");
        assert_eq!(names.module(&profile.frames[4]), "");
    }

    #[test]
    fn indices_out_of_range_show_nothing() {
        let profile = Profile { stacks: vec![vec![FrameIdx(9)]], ..Profile::default() };
        let names = Names::new(&profile);
        assert_eq!(names.leaf_first(StackIdx(0)).count(), 0);
        assert_eq!(names.leaf_first(StackIdx(1)).count(), 0);
    }
}
