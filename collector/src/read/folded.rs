//! Folded stacks: `process;outermost;...;leaf count`, a line each.

use std::collections::HashMap;

use super::build::{Builder, text};
use super::{ReadError, Recording, ValueType};
use crate::model::{Frame, FrameIdx, FrameKind, Line, Process};
use crate::output::names::NO_STACK;

pub(super) fn parse(bytes: &[u8]) -> Result<Recording, ReadError> {
    let mut builder = Builder::new();
    let mut known: HashMap<&[u8], FrameIdx> = HashMap::new();
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let wrong = || ReadError::Line { line: number + 1, expected: "a stack with a count behind it" };
        let space = line.iter().rposition(|byte| *byte == b' ').ok_or_else(wrong)?;
        let (stack, count) = line.split_at_checked(space).ok_or_else(wrong)?;
        let count = std::str::from_utf8(count).ok().and_then(|count| count.trim().parse().ok());
        let count: i64 = count.ok_or_else(wrong)?;
        let mut calls = stack.trim_ascii_end().split(|byte| *byte == b';');
        let comm = calls.next().map(text);
        let process = builder.process(Process { comm, ..Process::default() })?;
        let mut frames = Vec::new();
        for call in calls.filter(|call| *call != NO_STACK.as_bytes()) {
            frames.push(match known.get(call) {
                Some(frame) => *frame,
                None => {
                    let frame = builder.frame(frame(call))?;
                    known.insert(call, frame);
                    frame
                }
            });
        }
        frames.reverse();
        let stack = builder.stack(frames)?;
        builder.sample(process, stack, count)?;
    }
    let value = ValueType { kind: "samples".to_owned(), unit: "count".to_owned(), per: String::new() };
    Ok(builder.finish(value, "", 0, Vec::new()))
}

fn frame(call: &[u8]) -> Frame {
    let (kind, name) = match (call.strip_suffix(b"_[k]"), call.strip_suffix(b"_[j]")) {
        (Some(name), _) => (FrameKind::Kernel, name),
        (_, Some(name)) => (FrameKind::Jit, name),
        _ => (FrameKind::Native, call),
    };
    let line = Line { function: text(name), system_name: None, file: None, line: 0 };
    Frame { kind, mapping: None, address: 0, lines: vec![line] }
}
