//! pprof, `profile.proto`, as any tool writes it.
//!
//! The message is gone through several times, table by table, so that nothing is kept of it but what the profile needs.

use std::collections::HashMap;
use std::sync::Arc;

use super::build::{Builder, kind_of, push, text};
use super::wire::{Message, Value, each};
use super::{MAX_TYPES, ReadError, Recording, ValueType, choose};
use crate::model::{Frame, FrameIdx, Line, Losses, Mapping, MappingIdx, Process, ProcessIdx};
use crate::output::names::UNKNOWN;

const SAMPLE_TYPE: u64 = 1;
const SAMPLE: u64 = 2;
const MAPPING: u64 = 3;
const LOCATION: u64 = 4;
const FUNCTION: u64 = 5;
const STRING_TABLE: u64 = 6;
const TIME_NANOS: u64 = 9;
const DURATION_NANOS: u64 = 10;
const PERIOD_TYPE: u64 = 11;
const PERIOD: u64 = 12;
const COMMENT: u64 = 13;
const DEFAULT_SAMPLE_TYPE: u64 = 14;

pub(super) fn parse(bytes: &[u8], wanted: Option<&str>) -> Result<Recording, ReadError> {
    let whole = Message::new(bytes, "pprof message");
    let mut texts = Texts::read(whole)?;
    let (mut types, mut stated, mut period, mut period_type) = (Vec::new(), 0, 0, Value::Number(0));
    let mut builder = Builder::new();
    each(whole, |field, value| {
        match field {
            SAMPLE_TYPE if types.len() == MAX_TYPES => {
                return Err(ReadError::TooLarge { what: "sample types", limit: MAX_TYPES });
            }
            SAMPLE_TYPE => types.push(value),
            PERIOD_TYPE => period_type = value,
            PERIOD => period = positive(value),
            DEFAULT_SAMPLE_TYPE => stated = value.number(),
            TIME_NANOS => builder.profile().start_unix_nanos = positive(value),
            DURATION_NANOS => builder.profile().duration_nanos = positive(value),
            COMMENT => value.numbers(|comment| {
                let comment = texts.get(comment).ok();
                if let Some(losses) = comment.as_deref().and_then(losses) {
                    builder.profile().losses = losses;
                }
            })?,
            _ => {}
        }
        Ok(())
    })?;
    let per = match period_type {
        Value::Number(_) => ValueType::default(),
        Value::Bytes(_) => value_type(period_type, &mut texts, "")?,
    };
    let types: Vec<ValueType> =
        types.into_iter().map(|value| value_type(value, &mut texts, &per.kind)).collect::<Result<_, _>>()?;
    let stated = texts.get(stated)?;
    let chosen = choose(&types, Some(&*stated).filter(|name| !name.is_empty()), wanted)?;

    let frames = frames(whole, &mut texts, &mut builder)?;
    // By pprof's convention the first mapping is the program's.
    let program = builder.profile().mappings.first().and_then(|mapping| mapping.path.rsplit('/').next());
    let program: Arc<str> = program.filter(|name| !name.is_empty()).unwrap_or(UNKNOWN).into();
    each(whole, |field, value| match field {
        SAMPLE => sample(value.message("sample")?, chosen, &program, &frames, &mut texts, &mut builder),
        _ => Ok(()),
    })?;
    let mut others = types;
    let value = others.swap_remove(chosen);
    Ok(builder.finish(value, &per.unit, period, others))
}

/// The strings of the table; what is shown of them is made once.
struct Texts<'a> {
    table: Vec<&'a [u8]>,
    made: HashMap<u64, Arc<str>>,
}

impl<'a> Texts<'a> {
    fn read(whole: Message<'a>) -> Result<Self, ReadError> {
        let mut table = Vec::new();
        each(whole, |field, value| match field {
            STRING_TABLE => push(&mut table, value.text(), "strings").map(drop),
            _ => Ok(()),
        })?;
        Ok(Self { table, made: HashMap::new() })
    }

    fn get(&mut self, index: u64) -> Result<Arc<str>, ReadError> {
        if let Some(made) = self.made.get(&index) {
            return Ok(made.clone());
        }
        let found = usize::try_from(index).ok().and_then(|index| self.table.get(index));
        let made = match found {
            Some(bytes) => text(bytes),
            // Of a message without any text, all are empty.
            None if index == 0 => "".into(),
            None => return Err(ReadError::Index { table: "strings", index }),
        };
        self.made.insert(index, made.clone());
        Ok(made)
    }
}

/// An int64 that is no negative number.
fn positive(value: Value<'_>) -> u64 {
    i64::try_from(value.number()).map_or(0, |_| value.number())
}

fn value_type(value: Value<'_>, texts: &mut Texts<'_>, per: &str) -> Result<ValueType, ReadError> {
    let (mut kind, mut unit) = (0, 0);
    each(value.message("value type")?, |field, value| {
        match field {
            1 => kind = value.number(),
            2 => unit = value.number(),
            _ => {}
        }
        Ok(())
    })?;
    let (kind, unit) = (texts.get(kind)?.to_string(), texts.get(unit)?.to_string());
    Ok(ValueType { kind, unit, per: per.to_owned() })
}

/// Every location as a frame, by its id.
fn frames(
    whole: Message<'_>,
    texts: &mut Texts<'_>,
    builder: &mut Builder,
) -> Result<HashMap<u64, FrameIdx>, ReadError> {
    let mut mappings: HashMap<u64, MappingIdx> = HashMap::new();
    let mut functions: HashMap<u64, (Arc<str>, Option<Arc<str>>)> = HashMap::new();
    each(whole, |field, value| {
        match field {
            MAPPING => {
                let (id, mapping) = mapping(value.message("mapping")?, texts)?;
                let index = push(&mut builder.profile().mappings, mapping, "mappings")?;
                mappings.insert(id, MappingIdx(index));
            }
            FUNCTION => {
                let (mut id, mut name, mut system_name, mut file) = (0, 0, 0, 0);
                each(value.message("function")?, |field, value| {
                    match field {
                        1 => id = value.number(),
                        2 => name = value.number(),
                        3 => system_name = value.number(),
                        4 => file = value.number(),
                        _ => {}
                    }
                    Ok(())
                })?;
                let name = texts.get(if name == 0 { system_name } else { name })?;
                let file = Some(texts.get(file)?).filter(|file| !file.is_empty());
                functions.insert(id, (name, file));
            }
            _ => {}
        }
        Ok(())
    })?;
    let mut frames = HashMap::new();
    each(whole, |field, value| {
        if field != LOCATION {
            return Ok(());
        }
        let (mut id, mut mapping_id, mut address, mut lines) = (0, 0, 0, Vec::new());
        each(value.message("location")?, |field, value| {
            match field {
                1 => id = value.number(),
                2 => mapping_id = value.number(),
                3 => address = value.number(),
                4 => drop(push(&mut lines, line(value.message("line")?, &functions)?, "lines")?),
                _ => {}
            }
            Ok(())
        })?;
        let mapping = match mapping_id {
            0 => None,
            id => Some(*mappings.get(&id).ok_or(ReadError::Index { table: "mappings", index: id })?),
        };
        let path = mapping.and_then(|index| builder.profile().mappings.get(index.0 as usize));
        let kind = kind_of(path.map_or("", |mapping| &mapping.path), address);
        frames.insert(id, builder.frame(Frame { kind, mapping, address, lines })?);
        Ok(())
    })?;
    Ok(frames)
}

fn mapping(message: Message<'_>, texts: &mut Texts<'_>) -> Result<(u64, Mapping), ReadError> {
    let (mut id, mut path, mut mapping) = (0, 0, Mapping::default());
    each(message, |field, value| {
        match field {
            1 => id = value.number(),
            2 => mapping.memory_start = value.number(),
            3 => mapping.memory_limit = value.number(),
            4 => mapping.file_offset = value.number(),
            5 => path = value.number(),
            _ => {}
        }
        Ok(())
    })?;
    mapping.path = texts.get(path)?;
    Ok((id, mapping))
}

fn line(
    message: Message<'_>,
    functions: &HashMap<u64, (Arc<str>, Option<Arc<str>>)>,
) -> Result<Line, ReadError> {
    let (mut function, mut number) = (0, 0);
    each(message, |field, value| {
        match field {
            1 => function = value.number(),
            2 => number = value.number(),
            _ => {}
        }
        Ok(())
    })?;
    let known = functions.get(&function).ok_or(ReadError::Index { table: "functions", index: function })?;
    let line = u32::try_from(number).unwrap_or(0);
    Ok(Line { function: known.0.clone(), system_name: None, file: known.1.clone(), line })
}

fn sample(
    message: Message<'_>,
    chosen: usize,
    program: &Arc<str>,
    frames: &HashMap<u64, FrameIdx>,
    texts: &mut Texts<'_>,
    builder: &mut Builder,
) -> Result<(), ReadError> {
    let (mut stack, mut unknown) = (Vec::new(), None);
    let (mut values, mut value_at_hand) = (0, None);
    let (mut pid, mut name) = (0, None);
    each(message, |field, value| {
        match field {
            1 => value.numbers(|id| match frames.get(&id) {
                Some(frame) => stack.push(*frame),
                None => unknown = Some(id),
            })?,
            2 => value.numbers(|number| {
                if values == chosen {
                    value_at_hand = Some(number as i64);
                }
                values += 1;
            })?,
            3 => label(value.message("label")?, texts, &mut pid, &mut name)?,
            _ => {}
        }
        Ok(())
    })?;
    if let Some(index) = unknown {
        return Err(ReadError::Index { table: "locations", index });
    }
    let value = value_at_hand.ok_or(ReadError::Index { table: "values", index: chosen as u64 })?;
    let comm = Some(name.unwrap_or_else(|| program.clone()));
    let process: ProcessIdx = builder.process(Process { pid, comm, ..Process::default() })?;
    let stack = builder.stack(stack)?;
    builder.sample(process, stack, value)
}

/// Takes what tells the process from a label, if it does.
fn label(
    message: Message<'_>,
    texts: &mut Texts<'_>,
    pid: &mut u32,
    name: &mut Option<Arc<str>>,
) -> Result<(), ReadError> {
    let (mut key, mut string, mut number) = (0, 0, 0);
    each(message, |field, value| {
        match field {
            1 => key = value.number(),
            2 => string = value.number(),
            3 => number = value.number(),
            _ => {}
        }
        Ok(())
    })?;
    match &*texts.get(key)? {
        "pid" => *pid = u32::try_from(number).unwrap_or(0),
        "process" | "comm" => *name = Some(texts.get(string)?).filter(|name| !name.is_empty()),
        _ => {}
    }
    Ok(())
}

/// What our own comment says was lost.
fn losses(comment: &str) -> Option<Losses> {
    let mut numbers = comment
        .strip_prefix("lost samples: ")?
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse::<u64>().ok())
        .skip(1);
    let mut next = || numbers.next();
    Some(Losses { skipped: next()?, table_full: next()?, no_stack: next()?, sideband: next()? })
}
