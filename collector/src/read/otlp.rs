//! OTLP export requests of profiles, in place.

use std::collections::HashMap;
use std::sync::Arc;

use super::build::{Builder, kind_of, push, text};
use super::wire::{Message, Value, each};
use super::{MAX_TYPES, ReadError, Recording, ValueType, choose};
use crate::model::{
    Frame, FrameIdx, FrameKind, Line, Losses, Mapping, MappingIdx, Process, ProcessIdx, Profile, StackIdx,
};

/// One request, or several behind their lengths.
pub(super) fn parse(bytes: &[u8], wanted: Option<&str>) -> Result<Recording, ReadError> {
    let single = parse_all(&[Message::new(bytes, "request")], wanted);
    match single {
        Ok(recording) => Ok(recording),
        // What is no request may be several; what is neither is told as the one that it is more likely to be.
        Err(error) => match split(bytes) {
            Some(requests) => parse_all(&requests, wanted),
            None => Err(error),
        },
    }
}

fn split(bytes: &[u8]) -> Option<Vec<Message<'_>>> {
    let mut rest = Message::new(bytes, "request");
    let mut requests = Vec::new();
    while !rest.bytes().is_empty() {
        push(&mut requests, rest.delimited().ok()?, "requests").ok()?;
    }
    Some(requests)
}

/// Requests that belong together, each with tables of its own.
pub(super) fn parse_all(requests: &[Message<'_>], wanted: Option<&str>) -> Result<Recording, ReadError> {
    let mut builder = Builder::new();
    let mut types: Vec<(ValueType, String)> = Vec::new();
    for request in requests {
        let strings = strings(*request)?;
        for_profiles(*request, |_, profile| {
            let found = value_type(profile, &strings)?;
            if types.contains(&found) {
                return Ok(());
            }
            if types.len() == MAX_TYPES {
                return Err(ReadError::TooLarge { what: "sample types", limit: MAX_TYPES });
            }
            types.push(found);
            Ok(())
        })?;
    }
    let (types, units): (Vec<ValueType>, Vec<String>) = types.into_iter().unzip();
    let chosen = choose(&types, None, wanted)?;
    let mut others = types;
    let value = others.swap_remove(chosen);
    let unit = units.get(chosen).cloned().unwrap_or_default();
    let (mut period, mut ranges) = (0, Vec::new());
    for request in requests {
        let mut tables = Tables::read(*request, &mut builder)?;
        for_profiles(*request, |resource, profile| {
            if value_type(profile, &tables.strings)?.0 != value {
                return Ok(());
            }
            period = of_profile(resource, profile, &mut tables, &mut builder, &mut ranges)?;
            Ok(())
        })?;
    }
    whole(ranges, builder.profile());
    Ok(builder.finish(value, &unit, period, others))
}

/// When a profile was taken, and what the whole machine lost meanwhile.
type Range = (u64, u64, Losses);

/// Of profiles of one window, which lost the same, the losses count once.
fn whole(mut ranges: Vec<Range>, profile: &mut Profile) {
    ranges.sort_unstable_by_key(|(start, duration, _)| (*start, *duration));
    ranges.dedup_by_key(|(start, duration, _)| (*start, *duration));
    profile.start_unix_nanos = ranges.first().map_or(0, |(start, ..)| *start);
    let end = ranges.iter().map(|(start, duration, _)| start.saturating_add(*duration)).max().unwrap_or(0);
    profile.duration_nanos = end.saturating_sub(profile.start_unix_nanos);
    for (_, _, losses) in ranges {
        profile.losses.absorb(&losses);
    }
}

/// Every profile with its resource, which may be empty.
fn for_profiles<'a>(
    request: Message<'a>,
    mut take: impl FnMut(Message<'a>, Message<'a>) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    each(request, |field, value| {
        if field != 1 {
            return Ok(());
        }
        let of_resource = value.message("resource's profiles")?;
        let mut resource = Message::new(&[], "resource");
        each(of_resource, |field, value| {
            if field == 1 {
                resource = value.message("resource")?;
            }
            Ok(())
        })?;
        each(of_resource, |field, value| match field {
            2 => each(value.message("scope's profiles")?, |field, value| match field {
                2 => take(resource, value.message("profile")?),
                _ => Ok(()),
            }),
            _ => Ok(()),
        })
    })
}

fn dictionary<'a>(
    request: Message<'a>,
    mut take: impl FnMut(u64, Value<'a>) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    each(request, |field, value| match field {
        2 => each(value.message("dictionary")?, &mut take),
        _ => Ok(()),
    })
}

fn strings(request: Message<'_>) -> Result<Vec<&[u8]>, ReadError> {
    let mut strings = Vec::new();
    dictionary(request, |field, value| match field {
        5 => push(&mut strings, value.text(), "strings").map(drop),
        _ => Ok(()),
    })?;
    Ok(strings)
}

fn string<'a>(strings: &[&'a [u8]], index: u64) -> Result<&'a [u8], ReadError> {
    at(strings, index, "strings").or(if index == 0 { Ok(&[]) } else { Err(missing("strings", index)) })
}

fn missing(table: &'static str, index: u64) -> ReadError {
    ReadError::Index { table, index }
}

fn at<T: Copy>(table: &[T], index: u64, name: &'static str) -> Result<T, ReadError> {
    let found = usize::try_from(index).ok().and_then(|index| table.get(index));
    found.copied().ok_or(missing(name, index))
}

/// What a profile's samples count, and the unit of its period.
fn value_type(profile: Message<'_>, strings: &[&[u8]]) -> Result<(ValueType, String), ReadError> {
    let (mut value, mut period) = ((0, 0), (0, 0));
    let pair = |message: Message<'_>| {
        let (mut kind, mut unit) = (0, 0);
        each(message, |field, value| {
            match field {
                1 => kind = value.number(),
                2 => unit = value.number(),
                _ => {}
            }
            Ok(())
        })?;
        Ok((kind, unit))
    };
    each(profile, |field, found| {
        match field {
            1 => value = pair(found.message("value type")?)?,
            5 => period = pair(found.message("value type")?)?,
            _ => {}
        }
        Ok(())
    })?;
    let name = |index| Ok::<_, ReadError>(text(string(strings, index)?).to_string());
    Ok((ValueType { kind: name(value.0)?, unit: name(value.1)?, per: name(period.0)? }, name(period.1)?))
}

/// An attribute's value, as far as it says something here.
#[derive(Clone, Copy)]
enum Attribute<'a> {
    Text(&'a [u8]),
    Number(u64),
}

/// The tables of one request.
struct Tables<'a> {
    strings: Vec<&'a [u8]>,
    attributes: Vec<(&'a [u8], Attribute<'a>)>,
    stacks: Vec<Message<'a>>,
    /// Of the locations.
    frames: Vec<FrameIdx>,
    made: HashMap<u64, StackIdx>,
}

impl<'a> Tables<'a> {
    fn read(request: Message<'a>, builder: &mut Builder) -> Result<Self, ReadError> {
        let strings = strings(request)?;
        let mut texts: HashMap<u64, Arc<str>> = HashMap::new();
        let mut name = |index: u64| -> Result<Arc<str>, ReadError> {
            if let Some(made) = texts.get(&index) {
                return Ok(made.clone());
            }
            let made = text(string(&strings, index)?);
            texts.insert(index, made.clone());
            Ok(made)
        };
        let (mut mappings, mut functions) = (Vec::new(), Vec::new());
        let (mut attributes, mut stacks) = (Vec::new(), Vec::new());
        dictionary(request, |field, value| {
            match field {
                1 => {
                    let (mut mapping, mut path) = (Mapping::default(), 0);
                    each(value.message("mapping")?, |field, value| {
                        match field {
                            1 => mapping.memory_start = value.number(),
                            2 => mapping.memory_limit = value.number(),
                            3 => mapping.file_offset = value.number(),
                            4 => path = value.number(),
                            _ => {}
                        }
                        Ok(())
                    })?;
                    mapping.path = name(path)?;
                    let index = push(&mut builder.profile().mappings, mapping, "mappings")?;
                    push(&mut mappings, MappingIdx(index), "mappings")?;
                }
                3 => {
                    let (mut function, mut system, mut file) = (0, 0, 0);
                    each(value.message("function")?, |field, value| {
                        match field {
                            1 => function = value.number(),
                            2 => system = value.number(),
                            3 => file = value.number(),
                            _ => {}
                        }
                        Ok(())
                    })?;
                    let function = name(if function == 0 { system } else { function })?;
                    let file = Some(name(file)?).filter(|file| !file.is_empty());
                    push(&mut functions, (function, file), "functions")?;
                }
                6 => drop(push(
                    &mut attributes,
                    attribute(value.message("attribute")?, &strings)?,
                    "attributes",
                )?),
                7 => drop(push(&mut stacks, value.message("stack")?, "stacks")?),
                _ => {}
            }
            Ok(())
        })?;
        let mut frames = Vec::new();
        dictionary(request, |field, value| {
            if field == 2 {
                let frame = frame(value.message("location")?, &mappings, &functions, &attributes, builder)?;
                push(&mut frames, builder.frame(frame)?, "locations")?;
            }
            Ok(())
        })?;
        Ok(Self { strings, attributes, stacks, frames, made: HashMap::new() })
    }

    fn stack(&mut self, index: u64, builder: &mut Builder) -> Result<StackIdx, ReadError> {
        if let Some(made) = self.made.get(&index) {
            return Ok(*made);
        }
        let (mut frames, mut unknown) = (Vec::new(), None);
        each(at(&self.stacks, index, "stacks")?, |field, value| {
            if field == 1 {
                value.numbers(|location| match at(&self.frames, location, "locations") {
                    Ok(frame) => frames.push(frame),
                    Err(error) => unknown = Some(error),
                })?;
            }
            Ok(())
        })?;
        if let Some(error) = unknown {
            return Err(error);
        }
        let made = builder.stack(frames)?;
        self.made.insert(index, made);
        Ok(made)
    }

    fn attribute(&self, index: u64) -> Result<(&'a [u8], Attribute<'a>), ReadError> {
        at(&self.attributes, index, "attributes")
    }
}

fn attribute<'a>(message: Message<'a>, strings: &[&'a [u8]]) -> Result<(&'a [u8], Attribute<'a>), ReadError> {
    let (mut key, mut held) = (0, Attribute::Text(&[]));
    each(message, |field, value| {
        match field {
            1 => key = value.number(),
            2 => held = any_value(value.message("attribute's value")?, strings)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok((string(strings, key)?, held))
}

fn any_value<'a>(message: Message<'a>, strings: &[&'a [u8]]) -> Result<Attribute<'a>, ReadError> {
    let mut held = Attribute::Text(&[]);
    each(message, |field, value| {
        match field {
            1 => held = Attribute::Text(value.text()),
            3 => held = Attribute::Number(value.number()),
            8 => held = Attribute::Text(string(strings, value.number())?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(held)
}

fn frame(
    message: Message<'_>,
    mappings: &[MappingIdx],
    functions: &[(Arc<str>, Option<Arc<str>>)],
    attributes: &[(&[u8], Attribute<'_>)],
    builder: &mut Builder,
) -> Result<Frame, ReadError> {
    let (mut mapping, mut address, mut lines, mut stated) = (0, 0, Vec::new(), None);
    each(message, |field, value| {
        match field {
            1 => mapping = value.number(),
            2 => address = value.number(),
            3 => {
                let (mut function, mut number) = (0, 0);
                each(value.message("line")?, |field, value| {
                    match field {
                        1 => function = value.number(),
                        2 => number = value.number(),
                        _ => {}
                    }
                    Ok(())
                })?;
                let known = usize::try_from(function).ok().and_then(|index| functions.get(index));
                let (name, file) = known.cloned().ok_or(missing("functions", function))?;
                let line = u32::try_from(number).unwrap_or(0);
                push(&mut lines, Line { function: name, system_name: None, file, line }, "lines")?;
            }
            4 => value.numbers(|index| {
                if let Ok((b"profile.frame.type", Attribute::Text(kind))) =
                    at(attributes, index, "attributes")
                {
                    stated = Some(kind);
                }
            })?,
            _ => {}
        }
        Ok(())
    })?;
    // Entry 0 stands for none.
    let mapping = if mapping == 0 { None } else { Some(at(mappings, mapping, "mappings")?) };
    let path = mapping.and_then(|index| builder.profile().mappings.get(index.0 as usize));
    let kind = match stated {
        Some(b"kernel") => FrameKind::Kernel,
        #[cfg(feature = "python")]
        Some(b"cpython") => FrameKind::Python,
        Some(b"native" | b"go" | b"rust") => FrameKind::Native,
        // Whatever an interpreter or a virtual machine runs.
        Some(_) => FrameKind::Jit,
        None => kind_of(path.map_or("", |mapping| &mapping.path), address),
    };
    Ok(Frame { kind, mapping, address, lines })
}

/// Takes in a profile's samples; its period.
fn of_profile(
    resource: Message<'_>,
    profile: Message<'_>,
    tables: &mut Tables<'_>,
    builder: &mut Builder,
    ranges: &mut Vec<Range>,
) -> Result<u64, ReadError> {
    let (mut start, mut duration, mut period, mut losses) = (0, 0, 0, Losses::default());
    let mut process = process(resource, tables)?;
    each(profile, |field, value| {
        match field {
            3 => start = value.number(),
            4 => duration = value.number(),
            6 => period = value.number(),
            11 => value.numbers(|index| {
                let Ok((key, Attribute::Number(count))) = tables.attribute(index) else { return };
                match key {
                    b"ebpf.profile.skipped_samples" => losses.skipped = count,
                    b"ebpf.profile.table_full_samples" => losses.table_full = count,
                    b"ebpf.profile.stackless_samples" => losses.no_stack = count,
                    b"ebpf.profile.lost_sideband_records" => losses.sideband = count,
                    _ => {}
                }
            })?,
            // What the process calls itself is what its first thread is called, where that has samples.
            2 => each(value.message("sample")?, |field, value| {
                if field != 2 || process.pid == 0 {
                    return Ok(());
                }
                let (mut id, mut name) = (None, None);
                value.numbers(|index| match tables.attribute(index) {
                    Ok((b"thread.id", Attribute::Number(tid))) => id = Some(tid),
                    Ok((b"thread.name", Attribute::Text(text))) => name = Some(text),
                    _ => {}
                })?;
                if let (Some(name), true) = (name, id == Some(process.pid.into())) {
                    process.comm = Some(text(name));
                }
                Ok(())
            })?,
            _ => {}
        }
        Ok(())
    })?;
    push(ranges, (start, duration, losses), "profiles")?;
    let process = builder.process(process)?;
    each(profile, |field, value| match field {
        2 => sample(value.message("sample")?, process, tables, builder),
        _ => Ok(()),
    })?;
    Ok(i64::try_from(period).map_or(0, |_| period))
}

fn process(resource: Message<'_>, tables: &Tables<'_>) -> Result<Process, ReadError> {
    let mut process = Process::default();
    each(resource, |field, value| {
        if field != 1 {
            return Ok(());
        }
        let (mut key, mut held) = (&[][..], Attribute::Text(&[]));
        each(value.message("attribute")?, |field, value| {
            match field {
                1 => key = value.text(),
                2 => held = any_value(value.message("attribute's value")?, &tables.strings)?,
                3 => key = string(&tables.strings, value.number())?,
                _ => {}
            }
            Ok(())
        })?;
        let known = match held {
            Attribute::Text(bytes) => Some(text(bytes)).filter(|text| !text.is_empty()),
            Attribute::Number(number) => {
                match key {
                    b"process.pid" => process.pid = u32::try_from(number).unwrap_or(0),
                    b"process.parent_pid" => process.parent_pid = u32::try_from(number).unwrap_or(0),
                    _ => {}
                }
                None
            }
        };
        match key {
            b"process.executable.name" => process.comm = known,
            b"process.executable.path" => process.executable_path = known,
            b"container.id" => process.container_id = known,
            b"k8s.pod.uid" => process.pod_uid = known,
            b"service.name" => process.service_name = known,
            _ => {}
        }
        Ok(())
    })?;
    Ok(process)
}

fn sample(
    message: Message<'_>,
    process: ProcessIdx,
    tables: &mut Tables<'_>,
    builder: &mut Builder,
) -> Result<(), ReadError> {
    let (mut stack, mut sum, mut values, mut timestamps) = (0, 0i64, false, 0);
    each(message, |field, value| {
        match field {
            1 => stack = value.number(),
            4 => value.numbers(|number| {
                values = true;
                sum = sum.saturating_add(number as i64);
            })?,
            5 => {
                timestamps = match value {
                    Value::Number(_) => timestamps + 1,
                    Value::Bytes(packed) => timestamps + packed.bytes().len() as i64 / 8,
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    let stack = tables.stack(stack, builder)?;
    // Without values, each time is one event.
    builder.sample(process, stack, if values { sum } else { timestamps })
}
