//! A profile to a pprof file: `profile.proto`, gzipped.
//!
//! Values are what the profile's samples count; of CPU samples also the time, `cpu` in `nanoseconds`, as readers expect.
//! Labels are `pid`, `tid`, `thread` and `process`, of time off the CPU also `woken_by`, and `trace_id` and `span_id` in hexadecimal where the
//! thread says what it works for. What was lost stands in a comment, always.

use super::{Error, build_id_hex, check_indices, executable_name, memory};
#[cfg(feature = "unwind")]
use crate::kernel_types::hexadecimal;
use crate::model::{Line, Losses, Profile, SampleType};
use flate2::Compression;
use flate2::write::GzEncoder;
use otlp_encode::wire::Writer;
use std::collections::HashMap;
use std::io::Write;

/// The messages of `profile.proto` (github.com/google/pprof), the fields that are used.
mod proto {
    use otlp_encode::message;

    message! {
        pub(super) struct Profile {
            sample_type: repeated<ValueType> = 1,
            sample: repeated<Sample> = 2,
            mapping: repeated<Mapping> = 3,
            location: repeated<Location> = 4,
            function: repeated<Function> = 5,
            string_table: repeated_string = 6,
            time_nanos: int64 = 9,
            duration_nanos: int64 = 10,
            period_type: message<ValueType> = 11,
            period: int64 = 12,
            comment: packed_int64 = 13,
        }
    }

    message! {
        pub(super) struct ValueType {
            r#type: int64 = 1,
            unit: int64 = 2,
        }
    }

    message! {
        pub(super) struct Sample {
            location_id: packed_uint64 = 1,
            value: packed_int64 = 2,
            label: repeated<Label> = 3,
        }
    }

    message! {
        pub(super) struct Label {
            key: int64 = 1,
            str: int64 = 2,
            num: int64 = 3,
        }
    }

    message! {
        pub(super) struct Mapping {
            id: uint64 = 1,
            memory_start: uint64 = 2,
            memory_limit: uint64 = 3,
            file_offset: uint64 = 4,
            filename: int64 = 5,
            build_id: int64 = 6,
            has_functions: bool = 7,
            has_filenames: bool = 8,
            has_line_numbers: bool = 9,
            has_inline_frames: bool = 10,
        }
    }

    message! {
        pub(super) struct Location {
            id: uint64 = 1,
            mapping_id: uint64 = 2,
            address: uint64 = 3,
            line: repeated<Line> = 4,
        }
    }

    message! {
        pub(super) struct Line {
            function_id: uint64 = 1,
            line: int64 = 2,
        }
    }

    message! {
        pub(super) struct Function {
            id: uint64 = 1,
            name: int64 = 2,
            system_name: int64 = 3,
            filename: int64 = 4,
        }
    }
}

/// Writes a profile as a `.pb.gz` file.
///
/// Errors: [`Error::Index`] for a profile whose indices are not in their tables; [`Error::Write`].
pub fn write(profile: &Profile, out: impl Write) -> Result<(), Error> {
    check_indices(profile)?;
    let mut writer = Writer::new();
    encode(profile, &mut writer);
    let mut gzip = GzEncoder::new(out, Compression::default());
    let mut finish = || {
        gzip.write_all(writer.as_bytes())?;
        gzip.try_finish()?;
        gzip.get_mut().flush()
    };
    finish().map_err(Error::Write)
}

/// Texts by their index in `string_table`, where the first is empty.
struct Strings<'a> {
    table: Vec<&'a str>,
    index: HashMap<&'a str, i64>,
}

impl<'a> Strings<'a> {
    fn new() -> Self {
        Self { table: vec![""], index: HashMap::from([("", 0)]) }
    }

    fn index(&mut self, text: &'a str) -> i64 {
        *self.index.entry(text).or_insert_with(|| {
            self.table.push(text);
            self.table.len() as i64 - 1
        })
    }
}

/// Functions by their id, which is one more than their place.
#[derive(Default)]
struct Functions {
    table: Vec<Function>,
    id: HashMap<Function, u64>,
}

/// A function's texts in the string table.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Function {
    name: i64,
    system_name: i64,
    filename: i64,
}

impl Functions {
    fn id<'a>(&mut self, line: &'a Line, strings: &mut Strings<'a>) -> u64 {
        let function = Function {
            name: strings.index(&line.function),
            // Where the system has no other name for it, readers expect the same one twice.
            system_name: strings.index(line.system_name.as_deref().unwrap_or(&line.function)),
            filename: strings.index(line.file.as_deref().unwrap_or_default()),
        };
        *self.id.entry(function).or_insert_with(|| {
            self.table.push(function);
            self.table.len() as u64
        })
    }
}

/// What is known of the frames of a mapping, so that readers don't look for it themselves.
#[derive(Clone, Copy, Default)]
struct Symbolized {
    functions: bool,
    filenames: bool,
    line_numbers: bool,
    inline_frames: bool,
}

fn symbolized(profile: &Profile) -> Vec<Symbolized> {
    let mut mappings = vec![Symbolized::default(); profile.mappings.len()];
    for frame in &profile.frames {
        let Some(mapping) = frame.mapping else { continue };
        let known = &mut mappings[mapping.0 as usize];
        known.functions |= !frame.lines.is_empty();
        known.filenames |= frame.lines.iter().any(|line| line.file.is_some());
        known.line_numbers |= frame.lines.iter().any(|line| line.line > 0);
        known.inline_frames |= frame.lines.len() > 1;
    }
    mappings
}

fn losses_comment(losses: &Losses) -> String {
    let Losses { skipped, table_full, no_stack, sideband } = losses;
    let lost = skipped.saturating_add(*table_full);
    format!(
        "lost samples: {lost} (skipped {skipped}, table full {table_full}); samples without a stack: {no_stack}; \
         lost sideband records: {sideband}"
    )
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Writes the message. Texts and functions get their numbers first, because the tables stand behind what refers to
/// them, and so are written before it.
fn encode(profile: &Profile, writer: &mut Writer) {
    let comment = losses_comment(&profile.losses);
    let build_ids: Vec<String> = profile.mappings.iter().map(build_id_hex).collect();
    #[cfg(feature = "unwind")]
    let span_ids: Vec<Option<(String, String)>> = profile
        .threads
        .iter()
        .map(|thread| thread.span.map(|span| (hexadecimal(&span.trace_id), hexadecimal(&span.span_id))))
        .collect();

    let mut strings = Strings::new();
    let mut functions = Functions::default();
    let comment = strings.index(&comment);
    let mut pair = |(kind, unit): (&'static str, &'static str)| (strings.index(kind), strings.index(unit));
    let (value, period) = (pair(profile.sample_type.value), pair(profile.sample_type.period));
    // What counts samples stands for so many periods.
    let has_periods = profile.sample_type.value == SampleType::CPU.value;
    let value_types = if has_periods { vec![value, period] } else { vec![value] };
    let [pid, tid, thread, process] = ["pid", "tid", "thread", "process"].map(|text| strings.index(text));
    let paths: Vec<i64> = profile.mappings.iter().map(|mapping| strings.index(&mapping.path)).collect();
    let build_ids: Vec<i64> = build_ids.iter().map(|id| strings.index(id)).collect();
    let threads: Vec<i64> = profile.threads.iter().map(|thread| strings.index(&thread.name)).collect();
    #[cfg(feature = "unwind")]
    let woken_by = strings.index("woken_by");
    #[cfg(feature = "unwind")]
    let wakers: Vec<Option<i64>> = profile
        .threads
        .iter()
        .map(|thread| thread.woken_by.as_deref().map(|waker| strings.index(waker)))
        .collect();
    #[cfg(feature = "unwind")]
    let (trace_id, span_id) = (strings.index("trace_id"), strings.index("span_id"));
    #[cfg(feature = "unwind")]
    let spans: Vec<Option<[(i64, i64, u32); 2]>> = span_ids
        .iter()
        .map(|ids| {
            let (trace, span) = ids.as_ref()?;
            Some([(trace_id, strings.index(trace), 0), (span_id, strings.index(span), 0)])
        })
        .collect();
    let processes: Vec<i64> = profile
        .processes
        .iter()
        .map(|process| process.comm.as_deref().or(executable_name(process)).unwrap_or_default())
        .map(|name| strings.index(name))
        .collect();
    let lines: Vec<Vec<(u64, u32)>> = profile
        .frames
        .iter()
        .map(|frame| frame.lines.iter().map(|line| (functions.id(line, &mut strings), line.line)).collect())
        .collect();
    let symbolized = symbolized(profile);

    let value_type = |to: &mut proto::ValueType<'_>, (kind, unit): (i64, i64)| {
        to.unit(unit);
        to.r#type(kind);
    };
    proto::Profile::encode(writer, |to| {
        to.comment([comment]);
        to.period(signed(profile.period_nanos));
        to.period_type(|to| value_type(to, period));
        to.duration_nanos(signed(profile.duration_nanos));
        to.time_nanos(signed(profile.start_unix_nanos));
        to.string_table(strings.table.iter().copied());
        to.function(functions.table.iter().enumerate(), |to, (index, function)| {
            to.filename(function.filename);
            to.system_name(function.system_name);
            to.name(function.name);
            to.id(index as u64 + 1);
        });
        to.location(0..profile.frames.len(), |to, index| {
            let frame = &profile.frames[index];
            to.line(&lines[index], |to, &(function, line)| {
                to.line(line.into());
                to.function_id(function);
            });
            to.address(frame.address);
            to.mapping_id(frame.mapping.map_or(0, |mapping| u64::from(mapping.0) + 1));
            to.id(index as u64 + 1);
        });
        to.mapping(0..profile.mappings.len(), |to, index| {
            let (mapping, known) = (&profile.mappings[index], symbolized[index]);
            let memory = memory(mapping);
            to.has_inline_frames(known.inline_frames);
            to.has_line_numbers(known.line_numbers);
            to.has_filenames(known.filenames);
            to.has_functions(known.functions);
            to.build_id(build_ids[index]);
            to.filename(paths[index]);
            to.file_offset(mapping.file_offset);
            to.memory_limit(memory.end);
            to.memory_start(memory.start);
            to.id(index as u64 + 1);
        });
        to.sample(&profile.samples, |to, sample| {
            let (of_process, of_thread) = (sample.process.0 as usize, sample.thread.0 as usize);
            let labels = [
                (pid, 0, profile.processes[of_process].pid),
                (tid, 0, profile.threads[of_thread].tid),
                (thread, threads[of_thread], 0),
                (process, processes[of_process], 0),
            ];
            #[cfg(feature = "unwind")]
            let labels = labels
                .into_iter()
                .chain(wakers[of_thread].map(|waker| (woken_by, waker, 0)))
                .chain(spans[of_thread].into_iter().flatten());
            to.label(labels, |to, (key, text, number)| {
                to.num(number.into());
                to.str(text);
                to.key(key);
            });
            let periods = has_periods.then(|| signed(sample.count.saturating_mul(profile.period_nanos)));
            to.value(std::iter::once(signed(sample.count)).chain(periods).collect::<Vec<_>>());
            to.location_id(
                profile.stacks[sample.stack.0 as usize].iter().map(|frame| u64::from(frame.0) + 1),
            );
        });
        to.sample_type(value_types, value_type);
    });
}

#[cfg(test)]
mod tests;
