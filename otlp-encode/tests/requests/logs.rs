//! Log records.

use crate::model::*;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1 as proto;
use opentelemetry_proto::tonic::resource::v1::Resource;
use otlp_encode::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// Log record, whether it is valid, the form of its attributes.
type Item = (proto::LogRecord, bool, u8);
/// An item with all that is around it.
type Arrived = ((Resource, String), (InstrumentationScope, String), proto::LogRecord);
type Tree = Vec<((Resource, String), Vec<((InstrumentationScope, String), Vec<Item>)>)>;

fn valid() -> impl Strategy<Value = proto::LogRecord> {
    let context = prop_oneof![
        Just((vec![], vec![])),
        Just((vec![1; 16], vec![])),
        any::<u8>().prop_map(|id| (vec![id | 1; 16], vec![id | 2; 8])),
    ];
    let what = (0..=24i32, text(), option::of(value()), text(), any::<u8>());
    (0..3u64, 0..1u64 << 60, context, what, attributes(), 0..3u32).prop_map(
        |(time_unix_nano, observed_time_unix_nano, (trace_id, span_id), what, attributes, dropped)| {
            let (severity_number, severity_text, body, event_name, flags) = what;
            proto::LogRecord {
                time_unix_nano,
                observed_time_unix_nano,
                severity_number,
                severity_text,
                body,
                attributes,
                dropped_attributes_count: dropped,
                flags: flags.into(),
                trace_id,
                span_id,
                event_name,
            }
        },
    )
}

fn spoil(record: &mut proto::LogRecord, way: u8) {
    match way % 4 {
        0 => (record.trace_id, record.span_id) = (vec![0; 16], vec![1; 8]),
        1 => (record.trace_id, record.span_id) = (vec![], vec![1; 8]),
        2 => (record.trace_id, record.span_id) = (vec![1; 16], vec![0; 8]),
        _ => record.attributes.push(KeyValue::default()),
    }
}

fn item() -> impl Strategy<Value = Item> {
    (valid(), option::weighted(0.2, any::<u8>()), any::<u8>()).prop_map(|(mut record, defect, form)| {
        if let Some(way) = defect {
            spoil(&mut record, way);
        }
        (record, defect.is_none(), form)
    })
}

fn tree() -> impl Strategy<Value = Tree> {
    vec((resource(), vec((scope(), vec(item(), 0..8)), 0..3)), 0..3)
}

fn add(records: &mut LogRecords<'_>, from: &proto::LogRecord, attributes: u8) -> Result<(), Error> {
    let record = LogRecord {
        time_unix_nano: from.time_unix_nano,
        observed_time_unix_nano: from.observed_time_unix_nano,
        severity: Severity::new(from.severity_number as u8).unwrap(),
        severity_text: &from.severity_text,
        body: from.body.as_ref().map(borrowed),
        dropped_attributes_count: from.dropped_attributes_count,
        trace_flags: from.flags as u8,
        trace_id: from.trace_id.as_slice().try_into().ok(),
        span_id: from.span_id.as_slice().try_into().ok(),
        event_name: &from.event_name,
    };
    records.add(&record, form(&from.attributes, attributes))
}

fn items(request: &ExportLogsServiceRequest) -> Vec<Arrived> {
    let mut items = Vec::new();
    for of_resource in request.resource_logs.iter().rev() {
        assert!(!of_resource.scope_logs.is_empty(), "no empty resource");
        let resource = (of_resource.resource.clone().unwrap(), of_resource.schema_url.clone());
        for of_scope in of_resource.scope_logs.iter().rev() {
            assert!(!of_scope.log_records.is_empty(), "no empty scope");
            let scope = (of_scope.scope.clone().unwrap(), of_scope.schema_url.clone());
            let records = of_scope.log_records.iter().rev();
            items.extend(records.map(|record| (resource.clone(), scope.clone(), record.clone())));
        }
    }
    items
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]
    #[test]
    fn valid_records_arrive_once_and_others_never(trees in vec(tree(), 1..3), limits in limits()) {
        let mut request = LogsRequest::new(limits);
        for tree in &trees {
            let (mut batches, mut expected) = (Batches::default(), Vec::new());
            let mut out = request.start(|batch| batches.push(batch));
            for (resource, scopes) in tree {
                let mut to_scopes = out.resource(&resource_blob(resource));
                for (scope, records) in scopes {
                    let mut to_records = to_scopes.scope(&scope_blob(scope));
                    for (record, valid, form) in records {
                        prop_assert_eq!(add(&mut to_records, record, *form).is_ok(), *valid);
                        expected.extend(valid.then(|| (resource.clone(), scope.clone(), record.clone())));
                    }
                }
            }
            out.finish();
            let mut arrived = Vec::new();
            for (request, count) in batches.decode::<ExportLogsServiceRequest>(limits) {
                let of_request = items(&request);
                prop_assert_eq!(of_request.len() as u64, count);
                arrived.extend(of_request);
            }
            prop_assert_eq!(format!("{arrived:?}"), format!("{expected:?}"));
        }
    }
}
