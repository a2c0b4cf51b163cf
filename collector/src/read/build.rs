//! What every reader fills: a profile whose tables hold everything once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use super::{MAX_CALLS, MAX_DEPTH, MAX_ENTRIES, MAX_TEXT, ReadError, Recording, ValueType};
use crate::model::{
    Frame, FrameIdx, FrameKind, Process, ProcessIdx, Profile, Sample, SampleType, StackIdx, Thread, ThreadIdx,
};
use crate::output::names::clean;

/// A text of a file, as people will see it.
pub(super) fn text(bytes: &[u8]) -> Arc<str> {
    // A character has four bytes at most.
    let bytes = bytes.get(..MAX_TEXT * 4).unwrap_or(bytes);
    let mut text = clean(&String::from_utf8_lossy(bytes));
    if let Some((end, _)) = text.char_indices().nth(MAX_TEXT) {
        text.truncate(end);
        text.push('\u{2026}');
    }
    text.into()
}

/// Adds to a table, unless it has too many entries.
pub(super) fn push<T>(table: &mut Vec<T>, entry: T, what: &'static str) -> Result<u32, ReadError> {
    if table.len() >= MAX_ENTRIES {
        return Err(ReadError::TooLarge { what, limit: MAX_ENTRIES });
    }
    table.push(entry);
    Ok(table.len() as u32 - 1)
}

/// What kind of code lies at an address of a file of this path.
pub(super) fn kind_of(path: &str, address: u64) -> FrameKind {
    // Addresses of a kernel are the upper half on every 64-bit machine that has mappings in profiles.
    if path.starts_with("[kernel") || path.starts_with("[guest.kernel") || address >> 63 == 1 {
        FrameKind::Kernel
    } else {
        FrameKind::Native
    }
}

#[derive(Default)]
pub(super) struct Builder {
    pub recording: Recording,
    processes: HashMap<Process, ProcessIdx>,
    stacks: HashMap<Vec<FrameIdx>, StackIdx>,
    samples: HashMap<(ProcessIdx, StackIdx), usize>,
    calls: u64,
    lines: usize,
}

impl Builder {
    pub fn new() -> Self {
        let mut builder = Self::default();
        builder.profile().threads.push(Thread::new(0, ""));
        builder
    }

    pub fn profile(&mut self) -> &mut Profile {
        &mut self.recording.profile
    }

    pub fn process(&mut self, process: Process) -> Result<ProcessIdx, ReadError> {
        let table = &mut self.recording.profile.processes;
        once(&mut self.processes, process, |process| Ok(ProcessIdx(push(table, process, "processes")?)))
    }

    pub fn frame(&mut self, frame: Frame) -> Result<FrameIdx, ReadError> {
        self.lines = self.lines.saturating_add(frame.lines.len());
        if self.lines > MAX_ENTRIES {
            return Err(ReadError::TooLarge { what: "lines", limit: MAX_ENTRIES });
        }
        Ok(FrameIdx(push(&mut self.recording.profile.frames, frame, "frames")?))
    }

    /// Of a stack that is new, or that is there already; leaf first.
    pub fn stack(&mut self, mut frames: Vec<FrameIdx>) -> Result<StackIdx, ReadError> {
        let is_cut = frames.len() > MAX_DEPTH;
        frames.truncate(MAX_DEPTH);
        let recording = &mut self.recording;
        let table = &mut recording.profile.stacks;
        once(&mut self.stacks, frames, |frames| {
            recording.cut += u64::from(is_cut);
            Ok(StackIdx(push(table, frames, "stacks")?))
        })
    }

    /// Adds to the samples of a process and stack.
    pub fn sample(&mut self, process: ProcessIdx, stack: StackIdx, value: i64) -> Result<(), ReadError> {
        let Ok(count) = u64::try_from(value) else {
            self.recording.negative += 1;
            return Ok(());
        };
        let profile = &mut self.recording.profile;
        let calls = &mut self.calls;
        let place = once(&mut self.samples, (process, stack), |_| {
            let frames = profile.stacks.get(stack.0 as usize).map(Vec::as_slice).unwrap_or_default();
            let lines = |frame: &FrameIdx| {
                profile.frames.get(frame.0 as usize).map_or(0, |frame| frame.lines.len().max(1))
            };
            *calls += frames.iter().map(|frame| lines(frame) as u64).sum::<u64>() + 1;
            if *calls > MAX_CALLS {
                return Err(ReadError::TooLarge {
                    what: "calls on different stacks",
                    limit: MAX_CALLS as usize,
                });
            }
            let sample = Sample { process, thread: ThreadIdx(0), stack, count: 0 };
            Ok(push(&mut profile.samples, sample, "samples")? as usize)
        })?;
        if let Some(sample) = profile.samples.get_mut(place) {
            sample.count = sample.count.saturating_add(count);
        }
        Ok(())
    }

    /// `period` is in the unit that `value` is per, of which `per_unit` is the name.
    pub fn finish(
        mut self,
        value: ValueType,
        per_unit: &str,
        period: u64,
        others: Vec<ValueType>,
    ) -> Recording {
        let profile = &mut self.recording.profile;
        // The samples are CPU time where one of them stands for some.
        profile.period_nanos = match value.nanos() {
            Some(nanos) => nanos,
            None if value.unit == "count" && value.per == "cpu" && per_unit == "nanoseconds" => period,
            None => 0,
        };
        profile.sample_type = SampleType::CPU;
        self.recording.value = value;
        self.recording.others = others;
        self.recording
    }
}

/// What is in the map, or goes there.
fn once<K: Clone + Eq + Hash, V: Copy>(
    known: &mut HashMap<K, V>,
    key: K,
    add: impl FnOnce(K) -> Result<V, ReadError>,
) -> Result<V, ReadError> {
    if let Some(value) = known.get(&key) {
        return Ok(*value);
    }
    let value = add(key.clone())?;
    known.insert(key, value);
    Ok(value)
}
