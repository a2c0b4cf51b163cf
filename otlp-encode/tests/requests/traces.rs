//! Spans.

use crate::model::*;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1 as proto;
use otlp_encode::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// Span, whether it is valid, the form of its attributes.
type Item = (proto::Span, bool, u8);
/// An item with all that is around it.
type Arrived = ((Resource, String), (InstrumentationScope, String), proto::Span);
type Tree = Vec<((Resource, String), Vec<((InstrumentationScope, String), Vec<Item>)>)>;

fn id<const N: usize>() -> impl Strategy<Value = Vec<u8>> {
    (1..=255u8, any::<u8>()).prop_map(|(first, rest)| {
        let mut id = vec![rest; N];
        id[0] = first;
        id
    })
}

fn flags() -> impl Strategy<Value = u32> {
    (any::<u8>(), prop_oneof![Just(0), Just(0x100), Just(0x300)])
        .prop_map(|(low, high)| u32::from(low) | high)
}

fn event() -> impl Strategy<Value = proto::span::Event> {
    (0..3u64, "[a-z]{1,5}", attributes(), 0..3u32).prop_map(|(time, name, attributes, dropped)| {
        proto::span::Event { time_unix_nano: time, name, attributes, dropped_attributes_count: dropped }
    })
}

fn link() -> impl Strategy<Value = proto::span::Link> {
    (id::<16>(), id::<8>(), text(), attributes(), 0..3u32, flags()).prop_map(
        |(trace_id, span_id, trace_state, attributes, dropped, flags)| proto::span::Link {
            trace_id,
            span_id,
            trace_state,
            attributes,
            dropped_attributes_count: dropped,
            flags,
        },
    )
}

fn status() -> impl Strategy<Value = Option<proto::Status>> {
    prop_oneof![
        Just(None),
        Just(Some(proto::Status { message: String::new(), code: 1 })),
        text().prop_map(|message| Some(proto::Status { message, code: 2 })),
    ]
}

fn valid() -> impl Strategy<Value = proto::Span> {
    let ids = (id::<16>(), id::<8>(), option::of(id::<8>()), text(), flags());
    let what = (text(), 0..=5i32, 0..1u64 << 60, 0..1u64 << 40, status());
    let lists = (attributes(), vec(event(), 0..3), vec(link(), 0..3), (0..3u32, 0..3u32, 0..300u32));
    (ids, what, lists).prop_map(|(ids, what, lists)| {
        let (trace_id, span_id, parent_span_id, trace_state, flags) = ids;
        let (name, kind, start_time_unix_nano, duration, status) = what;
        let (attributes, events, links, dropped) = lists;
        proto::Span {
            trace_id,
            span_id,
            trace_state,
            parent_span_id: parent_span_id.unwrap_or_default(),
            flags,
            name,
            kind,
            start_time_unix_nano,
            end_time_unix_nano: start_time_unix_nano + duration,
            attributes,
            dropped_attributes_count: dropped.0,
            events,
            dropped_events_count: dropped.1,
            links,
            dropped_links_count: dropped.2,
            status,
        }
    })
}

fn spoil(span: &mut proto::Span, way: u8) {
    let twice = KeyValue { key: "twice".into(), ..KeyValue::default() };
    match (way % 8, span.events.first_mut(), span.links.first_mut()) {
        (0, _, _) => span.trace_id = vec![0; 16],
        (1, _, _) => span.span_id = vec![0; 8],
        (2, _, _) => span.parent_span_id = vec![0; 8],
        (3, Some(event), _) => event.name.clear(),
        (4, Some(event), _) => event.attributes.extend([twice.clone(), twice]),
        (5, _, Some(link)) => link.span_id = vec![0; 8],
        (6, _, Some(link)) => link.attributes.push(KeyValue::default()),
        (7, _, _) => span.attributes.extend([twice.clone(), twice]),
        _ => {
            span.start_time_unix_nano += 1;
            span.end_time_unix_nano = span.start_time_unix_nano - 1;
        }
    }
}

fn item() -> impl Strategy<Value = Item> {
    (valid(), option::weighted(0.2, any::<u8>()), any::<u8>()).prop_map(|(mut span, defect, form)| {
        if let Some(way) = defect {
            spoil(&mut span, way);
        }
        (span, defect.is_none(), form)
    })
}

fn tree() -> impl Strategy<Value = Tree> {
    vec((resource(), vec((scope(), vec(item(), 0..6)), 0..3)), 0..3)
}

fn is_remote(flags: u32) -> Option<bool> {
    (flags & 0x100 != 0).then_some(flags & 0x200 != 0)
}

fn add(spans: &mut Spans<'_>, from: &proto::Span, attributes: u8) -> Result<(), Error> {
    let event = |from: &'_ proto::span::Event| -> Event<'_> {
        let from: &'static proto::span::Event = Box::leak(Box::new(from.clone()));
        Event {
            attributes: form(&from.attributes, attributes),
            dropped_attributes_count: from.dropped_attributes_count,
            ..Event::new(from.time_unix_nano, &from.name)
        }
    };
    let link = |from: &proto::span::Link| -> Link<'_> {
        let from: &'static proto::span::Link = Box::leak(Box::new(from.clone()));
        Link {
            trace_id: from.trace_id.as_slice().try_into().unwrap(),
            span_id: from.span_id.as_slice().try_into().unwrap(),
            trace_state: &from.trace_state,
            trace_flags: from.flags as u8,
            is_remote: is_remote(from.flags),
            attributes: form(&from.attributes, attributes),
            dropped_attributes_count: from.dropped_attributes_count,
        }
    };
    let events: Vec<_> = from.events.iter().map(event).collect();
    let links: Vec<_> = from.links.iter().map(link).collect();
    let time = from.start_time_unix_nano..from.end_time_unix_nano;
    let ids = (from.trace_id.as_slice().try_into().unwrap(), from.span_id.as_slice().try_into().unwrap());
    let kinds = [
        SpanKind::Unspecified,
        SpanKind::Internal,
        SpanKind::Server,
        SpanKind::Client,
        SpanKind::Producer,
        SpanKind::Consumer,
    ];
    let span = Span {
        trace_state: &from.trace_state,
        parent_span_id: from.parent_span_id.as_slice().try_into().ok(),
        trace_flags: from.flags as u8,
        parent_is_remote: is_remote(from.flags),
        kind: kinds[from.kind as usize],
        dropped_attributes_count: from.dropped_attributes_count,
        events: &events,
        dropped_events_count: from.dropped_events_count,
        links: &links,
        dropped_links_count: from.dropped_links_count,
        status: match &from.status {
            None => Status::Unset,
            Some(status) if status.code == 1 => Status::Ok,
            Some(status) => Status::Error(&status.message),
        },
        ..Span::new(ids.0, ids.1, &from.name, time)
    };
    spans.add(&span, form(&from.attributes, attributes))
}

fn items(request: &ExportTraceServiceRequest) -> Vec<Arrived> {
    let mut items = Vec::new();
    for of_resource in request.resource_spans.iter().rev() {
        assert!(!of_resource.scope_spans.is_empty(), "no empty resource");
        let resource = (of_resource.resource.clone().unwrap(), of_resource.schema_url.clone());
        for of_scope in of_resource.scope_spans.iter().rev() {
            assert!(!of_scope.spans.is_empty(), "no empty scope");
            let scope = (of_scope.scope.clone().unwrap(), of_scope.schema_url.clone());
            let spans = of_scope.spans.iter().rev();
            items.extend(spans.map(|span| (resource.clone(), scope.clone(), span.clone())));
        }
    }
    items
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]
    #[test]
    fn valid_spans_arrive_once_and_others_never(trees in vec(tree(), 1..3), limits in limits()) {
        let mut request = TracesRequest::new(limits);
        for tree in &trees {
            let (mut batches, mut expected) = (Batches::default(), Vec::new());
            let mut out = request.start(|batch| batches.push(batch));
            for (resource, scopes) in tree {
                let mut to_scopes = out.resource(&resource_blob(resource));
                for (scope, spans) in scopes {
                    let mut to_spans = to_scopes.scope(&scope_blob(scope));
                    for (span, valid, form) in spans {
                        prop_assert_eq!(add(&mut to_spans, span, *form).is_ok(), *valid);
                        expected.extend(valid.then(|| (resource.clone(), scope.clone(), span.clone())));
                    }
                }
            }
            out.finish();
            let mut arrived = Vec::new();
            for (request, count) in batches.decode::<ExportTraceServiceRequest>(limits) {
                let of_request = items(&request);
                prop_assert_eq!(of_request.len() as u64, count);
                arrived.extend(of_request);
            }
            prop_assert_eq!(format!("{arrived:?}"), format!("{expected:?}"));
        }
    }
}
