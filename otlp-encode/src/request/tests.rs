//! The second request needs no more memory than the first.

use super::*;
use crate::dictionary::{Line, MappingIdx};
use crate::{AttributeWriter, Value};
use alloc::format;

const LIMITS: Limits = Limits { max_bytes: 20_000, max_items: u64::MAX };

fn blobs() -> (ResourceBlob, ScopeBlob) {
    let resource = ResourceBlob::new(&[("service.name", "shop")], &ResourceInfo::default());
    let scope = ScopeBlob::new("test", &(), &ScopeInfo::default());
    (resource.unwrap_or_default(), scope.unwrap_or_default())
}

/// Runs `fill` until requests were split several times, then compares what memory there is.
fn check<R, C: PartialEq + core::fmt::Debug>(
    mut request: R,
    mut fill: impl FnMut(&mut R) -> u64,
    capacities: impl Fn(&R) -> C,
) {
    assert!(fill(&mut request) > 3, "it was split");
    let before = capacities(&request);
    for _ in 0..3 {
        fill(&mut request);
    }
    assert_eq!(capacities(&request), before);
}

#[test]
fn of_metrics() {
    let (resource, scope) = blobs();
    let metric = MetricBlob::new("m", "s", "").unwrap_or_else(|error| panic!("{error}"));
    let fill = |request: &mut MetricsRequest| {
        let mut batches = 0;
        let mut out = request.start(|_| batches += 1);
        for number in 0..50 {
            let mut scopes = out.resource(&resource);
            let mut metrics = scopes.scope(&scope);
            let mut points = metrics.histogram(&metric, Temporality::Delta);
            for _ in 0..20 {
                let counts = [number];
                let point = HistogramPoint::new(1, Bounds::default(), &counts);
                assert_eq!(points.add(&point, &[("key", "value"), ("other", "x")]), Ok(()));
                assert!(points.add(&point, &[("key", 1), ("key", 2)]).is_err());
            }
        }
        out.finish();
        batches
    };
    check(MetricsRequest::new(LIMITS), fill, |request| request.frames.capacities());
}

#[test]
fn of_logs() {
    let (resource, scope) = blobs();
    let fill = |request: &mut LogsRequest| {
        let mut batches = 0;
        let mut out = request.start(|_| batches += 1);
        let mut scopes = out.resource(&resource);
        let mut records = scopes.scope(&scope);
        for number in 0..2000 {
            let body = [("list", Value::Array(&[Value::Int(1), Value::Empty])), ("n", Value::Int(number))];
            let record = LogRecord { body: Some(Value::Map(&body)), ..LogRecord::default() };
            let attributes = |to: &mut AttributeWriter<'_>| to.add("double", number as f64);
            assert_eq!(records.add(&record, &attributes), Ok(()));
        }
        out.finish();
        batches
    };
    check(LogsRequest::new(LIMITS), fill, |request| request.frames.capacities());
}

#[test]
fn of_traces() {
    let (resource, scope) = blobs();
    let many: alloc::vec::Vec<_> = (0..100).map(|number| format!("key.{number}")).collect();
    let many = |to: &mut AttributeWriter<'_>| many.iter().for_each(|key| to.add(key, "value"));
    let fill = |request: &mut TracesRequest| {
        let mut batches = 0;
        let mut out = request.start(|_| batches += 1);
        let mut scopes = out.resource(&resource);
        let mut spans = scopes.scope(&scope);
        for number in 0..100 {
            let events = [Event { attributes: &many, ..Event::new(number, "event") }];
            let links = [Link { attributes: &[("key", "value")], ..Link::new([1; 16], [2; 8]) }];
            let span =
                Span { events: &events, links: &links, ..Span::new([1; 16], [2; 8], "span", 1..number + 2) };
            assert_eq!(spans.add(&span, &many), Ok(()));
        }
        out.finish();
        batches
    };
    let attributes = crate::AttributeLimits { count: 90, value_length: Some(3) };
    let request =
        TracesRequest::new(LIMITS).with_span_limits(SpanLimits { attributes, ..SpanLimits::default() });
    check(request, fill, |request| request.frames.capacities());
}

#[test]
fn of_profiles() {
    let (resource, scope) = blobs();
    let info = ProfileInfo::default();
    let fill = |request: &mut ProfilesRequest| {
        let mut batches = 0;
        let mut out = request.start(None, |_| batches += 1);
        let mut scopes = out.resource(&resource);
        let mut profiles = scopes.scope(&scope);
        let mut samples = profiles.profile(&info);
        for number in 0..1500 {
            let name = format!("{number}");
            let answer = samples.add(&[1], &[], |dictionary| {
                let thread = dictionary.attribute("thread.id", "", number);
                let function = dictionary.function(&name, "", "", 0);
                let line = Line { function, line: 1, column: 0 };
                let location = dictionary.location(MappingIdx::default(), 0, &[line], &[]);
                (dictionary.stack(&[location]), [thread], Default::default())
            });
            assert_eq!(answer, Ok(()));
        }
        out.finish();
        batches
    };
    check(ProfilesRequest::new(LIMITS, 0), fill, ProfilesRequest::capacities);
}

#[test]
fn memory_for_a_huge_item_is_given_back() {
    let (resource, scope) = blobs();
    let huge = "x".repeat(1 << 20);
    let payload = ProfileInfo { original_payload: Some(("x", huge.as_bytes())), ..ProfileInfo::default() };
    let fill = |request: &mut ProfilesRequest, name: &str, info: &ProfileInfo<'_>| {
        let mut out = request.start(None, |_| {});
        let mut scopes = out.resource(&resource);
        let answer = scopes.scope(&scope).profile(info).add(&[1], &[], |dictionary| {
            let attributes = [dictionary.attribute("key", "", name)];
            let mapping = dictionary.mapping(0..1, 0, name, &[]);
            let location = dictionary.location(mapping, 0, &[], &[]);
            (dictionary.stack(&[location]), attributes, Default::default())
        });
        assert_eq!(answer, Ok(()));
    };
    let mut request = ProfilesRequest::new(LIMITS, 0);
    fill(&mut request, "x", &ProfileInfo::default());
    let usual = format!("{:?}", request.capacities());
    for (name, info) in [(huge.as_str(), &ProfileInfo::default()), ("x", &payload)] {
        fill(&mut request, name, info);
        assert_ne!(format!("{:?}", request.capacities()), usual);
        fill(&mut request, "x", &ProfileInfo::default());
        assert_eq!(format!("{:?}", request.capacities()), usual);
    }
}
