//! A window of samples through every output.

use super::input::Input;
use crate::profcheck::{self, Rule};
use collector::convert::pprof;
use collector::convert::profiles::{DEFAULT_MAX_REQUEST, ProfilesEncoder};
use collector::model::*;
use collector::output::terminal::Style;
use collector::output::timeline::Timeline;
use collector::output::top::Top;
use collector::output::{flamegraph, folded, table};
use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use prost::Message;
use std::io::Read;
use std::sync::Arc;

/// A profile whose texts are anything and whose indices may be wrong, to requests, pprof, and what people look at.
pub fn convert_profile(data: &[u8]) {
    let profile = profile(&mut Input::new(data));
    let valid = has_valid_indices(&profile);
    requests(&profile, DEFAULT_MAX_REQUEST, valid);
    requests(&profile, 4096, valid);

    let mut file = Vec::new();
    assert_eq!(pprof::write(&profile, &mut file).is_ok(), valid);
    if valid {
        let mut message = Vec::new();
        GzDecoder::new(file.as_slice()).read_to_end(&mut message).expect("it is gzip");
        assert!(!message.is_empty());
    }
    shown(&profile);
}

fn requests(profile: &Profile, limit: usize, valid: bool) {
    let mut samples = 0;
    let result = ProfilesEncoder::new(1, limit).encode(profile, [3; 16], |bytes, _| {
        let request = ExportProfilesServiceRequest::decode(bytes).expect("a request decodes");
        let mut violations = profcheck::check(&request);
        // Whoever makes a profile merges equal samples.
        violations.retain(|violation| violation.rule != Rule::SamplesUnique);
        assert!(violations.is_empty(), "{violations:?}");
        let scopes = request.resource_profiles.iter().flat_map(|resource| &resource.scope_profiles);
        samples +=
            scopes.flat_map(|scope| &scope.profiles).map(|profile| profile.samples.len()).sum::<usize>();
    });
    assert_eq!(result.is_ok(), valid);
    if valid {
        assert_eq!(samples, profile.samples.len());
    }
}

/// What people look at is shown whatever the indices are.
fn shown(profile: &Profile) {
    let mut lines = Vec::new();
    folded::write(profile, &mut lines).expect("a vector takes all");
    let lines = String::from_utf8(lines).expect("text");
    for line in lines.lines() {
        let (stack, count) = line.rsplit_once(' ').expect("a count ends the line");
        assert!(!stack.is_empty() && count.parse::<u64>().is_ok(), "{line:?}");
    }
    let mut picture = Vec::new();
    flamegraph::write(profile, "host", &mut picture).expect("a vector takes all");
    let picture = String::from_utf8(picture).expect("text");
    roxmltree::Document::parse(&picture).expect("a picture is XML");
    let (mut timeline, mut top) = (Timeline::default(), Top::new("host".to_owned()));
    for _ in 0..2 {
        timeline.add(profile);
        top.add(profile);
    }
    let mut page = Vec::new();
    flamegraph::write_over_time(profile, "host", &timeline, &mut page).expect("a vector takes all");
    let page = String::from_utf8(page).expect("text");
    let picture = page.split_once("<body>").and_then(|(_, body)| body.split_once("</body>"));
    roxmltree::Document::parse(picture.expect("a page has a body").0).expect("its picture is XML");
    // The columns have room for counts of 8 digits.
    let total = profile.samples.iter().fold(0u64, |total, sample| total.saturating_add(sample.count));
    for width in [40, 200] {
        let mut report = Vec::new();
        let style = Style { width, color: false };
        table::write(profile, "host", table::Limits::default(), style, &mut report)
            .expect("a vector takes all");
        top.write(20, style, &mut report).expect("a vector takes all");
        let report = String::from_utf8(report).expect("text");
        assert!(total >= 100_000_000 || report.lines().all(|line| line.chars().count() <= width), "{report}");
    }
}

fn profile(input: &mut Input<'_>) -> Profile {
    let mut profile = Profile {
        start_unix_nanos: input.u64(),
        duration_nanos: input.u64(),
        period_nanos: input.u64(),
        losses: Losses {
            skipped: input.u64(),
            table_full: input.u64(),
            no_stack: input.u64(),
            sideband: input.u64(),
        },
        ..Profile::default()
    };
    while !input.is_empty() {
        match input.u8() % 8 {
            0 => profile.processes.push(process(input)),
            1 => profile.threads.push(Thread::new(input.u32(), input.text())),
            2 => profile.mappings.push(mapping(input)),
            3 | 4 => {
                let frame = frame(input, &profile);
                profile.frames.push(frame);
            }
            5 => {
                let depth = input.u8() % 16;
                let stack = (0..depth).map(|_| FrameIdx(index(input, profile.frames.len()))).collect();
                profile.stacks.push(stack);
            }
            _ => profile.samples.push(Sample {
                process: ProcessIdx(index(input, profile.processes.len())),
                thread: ThreadIdx(index(input, profile.threads.len())),
                stack: StackIdx(index(input, profile.stacks.len())),
                count: input.u32().into(),
            }),
        }
    }
    profile
}

/// An index into a table of `len` entries, wrong for one byte in 64.
fn index(input: &mut Input<'_>, len: usize) -> u32 {
    match input.u8() {
        255 => u32::MAX,
        254 => 254,
        253 => len as u32,
        252 => 0,
        byte => u32::from(byte) % (len as u32).max(1),
    }
}

fn optional(input: &mut Input<'_>) -> Option<Arc<str>> {
    // Unknown text is `None`, never empty.
    Some(input.text()).filter(|text| !text.is_empty()).map(Into::into)
}

fn process(input: &mut Input<'_>) -> Process {
    let pid = input.u16().into();
    let (comm, executable_path, container_id) = (optional(input), optional(input), optional(input));
    // Not read of the input, so that older seeds still say what they said.
    let (parent_pid, pod_uid) = (pid / 2, container_id.clone());
    let service_name = optional(input);
    Process { pid, parent_pid, comm, executable_path, container_id, pod_uid, service_name }
}

fn mapping(input: &mut Input<'_>) -> Mapping {
    let id_len = usize::from(input.u8() % 24);
    let build_id = input.bytes(id_len);
    Mapping {
        path: input.text().into(),
        build_id: (!build_id.is_empty()).then(|| build_id.into()),
        memory_start: input.u64(),
        memory_limit: input.u64(),
        file_offset: input.u64(),
    }
}

fn frame(input: &mut Input<'_>, profile: &Profile) -> Frame {
    let choice = input.u8();
    Frame {
        kind: [FrameKind::Kernel, FrameKind::Native, FrameKind::Jit][usize::from(choice % 3)],
        mapping: (choice & 0x80 == 0).then(|| MappingIdx(index(input, profile.mappings.len()))),
        address: input.u64(),
        lines: (0..choice >> 2 & 3)
            .map(|_| Line {
                function: input.text().into(),
                system_name: optional(input),
                file: optional(input),
                line: input.u32(),
            })
            .collect(),
    }
}

fn has_valid_indices(profile: &Profile) -> bool {
    let within = |index: u32, len: usize| (index as usize) < len;
    profile.samples.iter().all(|sample| {
        within(sample.process.0, profile.processes.len())
            && within(sample.thread.0, profile.threads.len())
            && within(sample.stack.0, profile.stacks.len())
    }) && profile.stacks.iter().flatten().all(|frame| within(frame.0, profile.frames.len()))
        && profile
            .frames
            .iter()
            .filter_map(|frame| frame.mapping)
            .all(|m| within(m.0, profile.mappings.len()))
}
