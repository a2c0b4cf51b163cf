//! The messages and fields are those of the proto files: all of them, with their names, numbers and types.

use opentelemetry_proto::DESCRIPTORS;
use otlp_encode::descriptor::{Descriptor, Field, Kind, Label};
use otlp_encode::{logs, metrics, profiles, trace};
use prost::Message;
use prost_types::field_descriptor_proto::{Label as ProtoLabel, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use std::collections::{BTreeMap, BTreeSet};

/// All messages of the proto files by full name, the nested ones too.
struct Files(BTreeMap<String, DescriptorProto>);

impl Files {
    fn read() -> Self {
        let mut files = Self(BTreeMap::new());
        let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
        // One file is of zPages, which are not OTLP.
        for file in set.file.into_iter().filter(|file| !file.package().contains("tracez")) {
            files.add(&format!(".{}", file.package()), file.message_type);
        }
        files
    }

    fn add(&mut self, parent: &str, messages: Vec<DescriptorProto>) {
        for mut message in messages {
            let name = format!("{parent}.{}", message.name());
            self.add(&name, std::mem::take(&mut message.nested_type));
            self.0.insert(name, message);
        }
    }

    /// Compares a message, and those in it that were not `seen` yet.
    fn compare(&self, name: &str, ours: &Descriptor, seen: &mut BTreeSet<String>) {
        if !seen.insert(name.to_owned()) {
            return;
        }
        let message = &self.0[name];
        let mut fields: Vec<_> = message.field.iter().collect();
        fields.sort_by_key(|field| (position(message, field), field.number()));
        let want: Vec<_> = fields.iter().map(|field| expected(message, field)).collect();
        let got: Vec<_> = ours.fields.iter().map(actual).collect();
        assert_eq!(got, want, "{name}");
        for (field, ours) in fields.iter().zip(ours.fields) {
            if let Kind::Message(nested) = ours.kind {
                self.compare(field.type_name(), nested(), seen);
            }
        }
    }
}

/// Where a field stands in the bytes: behind the lowest member of its `oneof`, even where other fields have numbers in
/// between.
fn position(message: &DescriptorProto, field: &FieldDescriptorProto) -> i32 {
    // `optional` makes a `oneof` of one field.
    let is_member = |other: &&FieldDescriptorProto| {
        other.number() == field.number()
            || field.oneof_index.is_some() && other.oneof_index == field.oneof_index
    };
    let lowest = message.field.iter().filter(is_member).map(FieldDescriptorProto::number).min();
    let lowest = lowest.unwrap_or(field.number());
    let splits = message
        .field
        .iter()
        .any(|other| !is_member(&other) && other.number() > lowest && other.number() < field.number());
    if splits { lowest } else { field.number() }
}

type Facts = (u32, u32, String, Label, String);

fn expected(message: &DescriptorProto, field: &FieldDescriptorProto) -> Facts {
    let is_id = ["trace_id", "span_id", "parent_span_id", "profile_id"].contains(&field.name());
    let (kind, packs) = match field.r#type() {
        Type::Double => ("Double", true),
        Type::Int64 => ("Int64", true),
        Type::Uint64 => ("Uint64", true),
        Type::Int32 | Type::Enum => ("Int32", true),
        Type::Fixed64 => ("Fixed64", true),
        Type::Fixed32 => ("Fixed32", true),
        Type::Bool => ("Bool", true),
        Type::Uint32 => ("Uint32", true),
        Type::Sfixed64 => ("Sfixed64", true),
        Type::Sint32 => ("Sint32", true),
        Type::String => ("String", false),
        Type::Bytes if is_id => ("Id", false),
        Type::Bytes => ("Bytes", false),
        Type::Message => ("Message", false),
        other => panic!("{}: {other:?} is new to OTLP", field.name()),
    };
    let label = match field.label() {
        ProtoLabel::Repeated if packs => Label::Packed,
        ProtoLabel::Repeated => Label::Repeated,
        _ => Label::Single,
    };
    let position = position(message, field) as u32;
    (field.number() as u32, position, field.name().to_owned(), label, kind.to_owned())
}

fn actual(field: &Field) -> Facts {
    let kind = match field.kind {
        Kind::Message(_) => "Message".to_owned(),
        kind => format!("{kind:?}"),
    };
    (field.number, field.position, field.name.trim_start_matches("r#").to_owned(), field.label, kind)
}

#[test]
fn every_message_and_field_of_otlp_is_there() {
    let files = Files::read();
    let mut seen = BTreeSet::new();
    let service = |name| format!(".opentelemetry.proto.collector.{name}ServiceRequest");
    let mut compare = |name, ours| files.compare(&service(name), ours, &mut seen);
    compare("metrics.v1.ExportMetrics", metrics::ExportMetricsServiceRequest::descriptor());
    compare("trace.v1.ExportTrace", trace::ExportTraceServiceRequest::descriptor());
    compare("logs.v1.ExportLogs", logs::ExportLogsServiceRequest::descriptor());
    compare("profiles.v1development.ExportProfiles", profiles::ExportProfilesServiceRequest::descriptor());

    let rest: BTreeSet<_> = files.0.keys().filter(|name| !seen.contains(*name)).collect();
    for name in rest {
        let is_answer = name.ends_with("Response") || name.ends_with("PartialSuccess");
        if let Some(stem) = name.strip_suffix("sData") {
            // What files hold in place of requests: the same fields.
            let signal = stem.rsplit('.').next().unwrap();
            let same = seen.iter().find(|name| name.contains(&format!("Export{signal}"))).unwrap();
            assert_eq!(files.0[name].field, files.0[same].field, "{name} and {same}");
        } else {
            assert!(is_answer, "{name} is not covered");
        }
    }
}

#[test]
fn constants_are_those_of_the_proto_files() {
    use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, DataPointFlags};
    assert_eq!(metrics::DELTA, AggregationTemporality::Delta as i32);
    assert_eq!(metrics::CUMULATIVE, AggregationTemporality::Cumulative as i32);
    assert_eq!(metrics::NO_RECORDED_VALUE, DataPointFlags::NoRecordedValueMask as u32);
}
