//! Each rule, and the error that names it.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use otlp_encode::*;
use prost::Message;

fn resource() -> ResourceBlob {
    ResourceBlob::new(&[("service.name", "shop")], &ResourceInfo::default()).unwrap()
}

fn scope() -> ScopeBlob {
    ScopeBlob::new("test", &(), &ScopeInfo::default()).unwrap()
}

/// What the points of one metric are answered with.
fn metrics<T>(add: impl FnOnce(&mut Metrics<'_>, &MetricBlob) -> T) -> (T, u64) {
    let mut items = 0;
    let mut request = MetricsRequest::new(Limits::default());
    let mut out = request.start(|batch| items += batch.items);
    let answer = add(&mut out.resource(&resource()).scope(&scope()), &MetricBlob::new("m", "s", "").unwrap());
    out.finish();
    (answer, items)
}

#[test]
fn numbers() {
    let ended = NumberPoint { value: None, ..NumberPoint::new(5, 0) };
    let cases = [
        (NumberPoint::new(5, 1), Ok(())),
        (NumberPoint::new(5, -0.0), Ok(())),
        (ended, Ok(())),
        (NumberPoint { start_time_unix_nano: 5, ..NumberPoint::new(5, 1) }, Ok(())),
        (
            NumberPoint { start_time_unix_nano: 6, ..NumberPoint::new(5, 1) },
            Err(Error::NotAscending { field: "time_unix_nano" }),
        ),
        (NumberPoint::new(0, 1), Err(Error::Empty { field: "time_unix_nano" })),
        (NumberPoint::new(5, -1), Err(Error::OutOfRange { field: "value" })),
        (NumberPoint::new(5, f64::NAN), Err(Error::OutOfRange { field: "value" })),
    ];
    for (point, answer) in cases {
        let counter = metrics(|to, metric| to.sum(metric, Temporality::Delta, true).add(&point, &()));
        assert_eq!(counter.1, answer.is_ok().into());
        assert_eq!(counter.0, answer);
        // A gauge may have any value.
        let gauge = metrics(|to, metric| to.gauge(metric).add(&point, &())).0;
        assert_eq!(
            gauge.is_ok(),
            !matches!(answer, Err(ref error) if *error != Error::OutOfRange { field: "value" })
        );
    }
    let span = Exemplar { span: Some(([0; 16], [1; 8])), ..Exemplar::new(1, 2) };
    let twice = Exemplar { filtered_attributes: &[("a", 1), ("a", 2)], ..Exemplar::new(1, 2) };
    for (exemplar, error) in
        [(span, Error::Empty { field: "exemplars.span" }), (twice, Error::DuplicateAttribute)]
    {
        let point = NumberPoint { exemplars: &[Exemplar::new(1, 1), exemplar], ..NumberPoint::new(5, 1) };
        assert_eq!(metrics(|to, metric| to.gauge(metric).add(&point, &())), (Err(error), 0));
    }
}

#[test]
fn bounds_ascend_and_are_numbers() {
    assert!(Bounds::new(&[]).is_ok());
    assert!(Bounds::new(&[f64::NEG_INFINITY, 0.0, f64::INFINITY]).is_ok());
    for bounds in [&[1.0, 1.0][..], &[0.0, 2.0, 1.0], &[f64::NAN], &[0.0, f64::NAN], &[f64::NAN, 0.0]] {
        assert_eq!(Bounds::new(bounds), Err(Error::NotAscending { field: "explicit_bounds" }), "{bounds:?}");
    }
}

#[test]
fn histograms() {
    let bounds = Bounds::new(&[0.0, 1.0]).unwrap();
    let point = |counts| HistogramPoint::new(5, bounds, counts);
    let no_buckets = HistogramPoint { count: Some(7), ..HistogramPoint::new(5, Bounds::default(), &[]) };
    let cases = [
        (point(&[1, 2, 3]), Ok(())),
        (no_buckets, Ok(())),
        (HistogramPoint::new(5, Bounds::default(), &[4]), Ok(())),
        (HistogramPoint { count: Some(6), ..point(&[1, 2, 3]) }, Ok(())),
        (point(&[1, 2]), Err(Error::BucketCount { bounds: 2, buckets: 2 })),
        (point(&[]), Err(Error::BucketCount { bounds: 2, buckets: 0 })),
        (HistogramPoint { count: Some(7), ..point(&[1, 2, 3]) }, Err(Error::Count { count: 7, buckets: 6 })),
        (point(&[u64::MAX, 0, 0]), Ok(())),
        (point(&[u64::MAX, 0, 1]), Err(Error::Overflow { field: "count" })),
        (HistogramPoint { sum: Some(1.0), ..point(&[0, 0, 0]) }, Err(Error::OutOfRange { field: "sum" })),
        (
            HistogramPoint { min: Some(2.0), max: Some(1.0), ..point(&[1, 2, 3]) },
            Err(Error::NotAscending { field: "max" }),
        ),
        (
            HistogramPoint { no_recorded_value: true, ..point(&[1, 2, 3]) },
            Err(Error::OutOfRange { field: "count" }),
        ),
        (
            HistogramPoint { no_recorded_value: true, ..HistogramPoint::new(5, Bounds::default(), &[]) },
            Ok(()),
        ),
    ];
    for (number, (point, answer)) in cases.into_iter().enumerate() {
        let items = answer.is_ok().into();
        let got = metrics(|to, metric| to.histogram(metric, Temporality::Delta).add(&point, &()));
        assert_eq!(got, (answer, items), "case {number}");
    }
}

#[test]
fn exponential_histograms() {
    let buckets = ExponentialBuckets { offset: -3, bucket_counts: &[1, 2] };
    let point = ExponentialHistogramPoint::new(5, 0, 4, buckets);
    let last = ExponentialBuckets { offset: i32::MAX - 1, bucket_counts: &[1, 2] };
    let full = ExponentialBuckets { offset: 0, bucket_counts: &[u64::MAX] };
    let cases = [
        (point, Ok(())),
        (ExponentialHistogramPoint { scale: -10, count: Some(7), ..point }, Ok(())),
        (ExponentialHistogramPoint { scale: 21, ..point }, Err(Error::OutOfRange { field: "scale" })),
        (ExponentialHistogramPoint { scale: -11, ..point }, Err(Error::OutOfRange { field: "scale" })),
        (ExponentialHistogramPoint { count: Some(8), ..point }, Err(Error::Count { count: 8, buckets: 7 })),
        (
            ExponentialHistogramPoint { zero_threshold: -1.0, ..point },
            Err(Error::OutOfRange { field: "zero_threshold" }),
        ),
        (
            ExponentialHistogramPoint { zero_threshold: f64::NAN, ..point },
            Err(Error::OutOfRange { field: "zero_threshold" }),
        ),
        (ExponentialHistogramPoint { negative: last, ..point }, Err(Error::Overflow { field: "negative" })),
        (ExponentialHistogramPoint { negative: full, ..point }, Err(Error::Overflow { field: "count" })),
    ];
    for (number, (point, answer)) in cases.into_iter().enumerate() {
        let items = answer.is_ok().into();
        let got = metrics(|to, metric| to.exponential_histogram(metric, Temporality::Delta).add(&point, &()));
        assert_eq!(got, (answer, items), "case {number}");
    }
}

#[test]
fn summaries() {
    let at = |quantile| Quantile { quantile, value: 1.0 };
    let quantile = |field| {
        Err(match field {
            "order" => Error::NotAscending { field: "quantile" },
            field => Error::OutOfRange { field },
        })
    };
    let cases: [(&[Quantile], _); 7] = [
        (&[], Ok(())),
        (&[at(0.0), at(0.5), at(1.0)], Ok(())),
        (&[at(0.5), at(0.5)], quantile("order")),
        (&[at(0.5), at(0.1)], quantile("order")),
        (&[at(1.1)], quantile("quantile")),
        (&[at(f64::NAN)], quantile("quantile")),
        (&[Quantile { quantile: 0.5, value: -1.0 }], quantile("value")),
    ];
    for (quantiles, answer) in cases {
        let items = answer.is_ok().into();
        let point = SummaryPoint::new(5, 3, 1.0, quantiles);
        assert_eq!(
            metrics(|to, metric| to.summary(metric).add(&point, &())),
            (answer, items),
            "{quantiles:?}"
        );
    }
}

#[test]
fn headers() {
    assert_eq!(MetricBlob::new("", "s", "").err(), Some(Error::Empty { field: "name" }));
    let entity = EntityRef { kind: "service", id_keys: &["service.name"], ..EntityRef::default() };
    let resource = |entity| {
        let info = ResourceInfo { entity_refs: &[entity], ..ResourceInfo::default() };
        ResourceBlob::new(&[("service.name", "shop")], &info).err()
    };
    assert_eq!(resource(entity), None);
    assert_eq!(resource(EntityRef { kind: "", ..entity }), Some(Error::Empty { field: "entity_refs.type" }));
    assert_eq!(
        resource(EntityRef { id_keys: &[], ..entity }),
        Some(Error::Empty { field: "entity_refs.id_keys" })
    );
    for keys in [&["service.name", "host.id"][..], &["host.id"]] {
        assert_eq!(resource(EntityRef { id_keys: keys, ..entity }), Some(Error::UnknownKey));
        assert_eq!(resource(EntityRef { description_keys: keys, ..entity }), Some(Error::UnknownKey));
    }
}

/// A list within lists, or a map within maps.
fn nested(depth: usize, map: bool) -> Value<'static> {
    (0..depth).fold(Value::Int(1), |inner, _| {
        if map {
            Value::Map(Box::leak(Box::new([("k", inner)])))
        } else {
            Value::Array(Box::leak(Box::new([inner])))
        }
    })
}

#[test]
fn values_are_nested_as_deep_as_decoders_allow() {
    for map in [false, true] {
        // The deepest place that attributes have.
        let exemplar = |depth| {
            let attributes = [("deep", nested(depth, map))];
            let exemplar = Exemplar { filtered_attributes: &attributes, ..Exemplar::new(1, 1) };
            let point = NumberPoint { exemplars: &[exemplar], ..NumberPoint::new(5, 1) };
            let mut request = MetricsRequest::new(Limits::default());
            let (mut bytes, mut line) = (Vec::new(), String::new());
            let mut out = request.start(|batch| {
                bytes.extend_from_slice(batch.bytes);
                batch.json_line(&mut line).unwrap();
            });
            let metric = MetricBlob::new("m", "", "").unwrap();
            out.resource(&resource()).scope(&scope()).gauge(&metric).add(&point, &())?;
            out.finish();
            Ok(bytes)
        };
        let bytes = exemplar(MAX_VALUE_DEPTH).unwrap();
        use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
        assert!(ExportMetricsServiceRequest::decode(bytes.as_slice()).is_ok());
        assert_eq!(exemplar(MAX_VALUE_DEPTH + 1), Err(Error::ValueDepth));
    }
}

#[test]
fn keys_of_maps_are_unique_at_any_depth() {
    let twice = Value::Map(&[("a", Value::Int(1)), ("b", Value::Int(2)), ("a", Value::Int(3))]);
    let cases = [
        (twice, Err(Error::DuplicateAttribute)),
        (Value::Array(&[twice]), Err(Error::DuplicateAttribute)),
        (Value::Array(&[Value::Map(&[("a", Value::Int(1))]); 2]), Ok(())),
        (Value::Map(&[("", Value::Int(1))]), Ok(())),
    ];
    for (body, answer) in cases {
        let mut request = LogsRequest::new(Limits::default());
        let mut out = request.start(|_| {});
        let record = LogRecord { body: Some(body), ..LogRecord::default() };
        assert_eq!(out.resource(&resource()).scope(&scope()).add(&record, &()), answer);
        assert_eq!(
            out.resource(&resource()).scope(&scope()).add(&LogRecord::default(), &[("a", body)]),
            answer
        );
    }
}

#[test]
fn many_keys_are_told_apart() {
    let names: Vec<String> = (0..500).map(|number| format!("key.{number}")).collect();
    let mut pairs: Vec<(&str, i64)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    assert!(AttributesBlob::new(&pairs.as_slice()).is_ok());
    for twice in [0, 250, 499] {
        pairs.push((&names[twice], 2));
        assert_eq!(AttributesBlob::new(&pairs.as_slice()).err(), Some(Error::DuplicateAttribute));
        pairs.pop();
    }
    // A blob, and others that stand before and after it.
    let blob = AttributesBlob::new(&pairs.as_slice()).unwrap();
    let around = |before: &'static str, after: &'static str| {
        let attributes = |to: &mut AttributeWriter<'_>| {
            to.add(after, 1);
            to.extend(&blob);
            to.add(before, 1);
        };
        AttributesBlob::new(&attributes).map(|blob| blob.len())
    };
    assert_eq!(around("a", "b"), Ok(502));
    for (before, after) in [("a", "a"), ("key.77", "b"), ("a", "key.0"), ("key.499", "b")] {
        assert_eq!(around(before, after), Err(Error::DuplicateAttribute));
    }
}

#[test]
fn maps_of_any_size_take_little_time() {
    let names: Vec<String> = (0..200_000).map(|number| format!("key.{number}")).collect();
    let mut entries: Vec<(&str, Value<'_>)> =
        names.iter().map(|name| (name.as_str(), Value::Int(1))).collect();
    let mut request = LogsRequest::new(Limits::default());
    let mut add = |entries: &[(&str, Value<'_>)]| {
        let mut out = request.start(|_| {});
        let record = LogRecord { body: Some(Value::Map(entries)), ..LogRecord::default() };
        out.resource(&resource()).scope(&scope()).add(&record, &entries)
    };
    // Would take minutes, if each were looked for among those before.
    assert_eq!(add(&entries), Ok(()));
    entries[7].0 = "key.199999";
    assert_eq!(add(&entries), Err(Error::DuplicateAttribute));
}

/// Where every length takes as many bytes as are kept for it.
#[test]
fn a_large_request_is_split_at_the_limit_to_the_byte() {
    let text = "x".repeat(1_500_000);
    let sizes = |max_bytes| {
        let mut request = LogsRequest::new(Limits { max_bytes, ..Limits::default() });
        let mut sizes = Vec::new();
        let mut out = request.start(|batch| sizes.push((batch.bytes.len(), batch.items)));
        let resource = resource();
        let mut scopes = out.resource(&resource);
        let scope = scope();
        let mut records = scopes.scope(&scope);
        for _ in 0..2 {
            let record = LogRecord { body: Some(Value::Str(&text)), ..LogRecord::default() };
            records.add(&record, &()).unwrap();
        }
        out.finish();
        sizes
    };
    let whole = sizes(usize::MAX);
    assert_eq!(sizes(whole[0].0), whole);
    assert_eq!(sizes(whole[0].0 - 1).len(), 2);
}

#[test]
fn an_item_beyond_what_the_protocol_allows_is_refused_alone() {
    let (large, small) = ("x".repeat(Limits::MAX_BYTES), "y".repeat(Limits::MAX_BYTES - 1000));
    let mut request = LogsRequest::new(Limits { max_bytes: 10_000, ..Limits::default() });
    let mut batches = Vec::new();
    let mut out = request.start(|batch| {
        let decoded = ExportLogsServiceRequest::decode(batch.bytes).unwrap();
        batches.push((batch.items, decoded.encoded_len()));
    });
    let mut scopes = out.resource(&ResourceBlob::default());
    let scope = ScopeBlob::default();
    let mut records = scopes.scope(&scope);
    let record = |text| LogRecord { body: Some(Value::Str(text)), ..LogRecord::default() };
    records.add(&record("first"), &()).unwrap();
    assert!(
        matches!(records.add(&record(&large), &()), Err(Error::TooLarge { bytes }) if bytes > large.len())
    );
    records.add(&record("second"), &()).unwrap();
    records.add(&record(&small), &()).unwrap();
    records.add(&record("third"), &()).unwrap();
    out.finish();
    let items: Vec<u64> = batches.iter().map(|&(items, _)| items).collect();
    assert_eq!(items, [2, 1, 1]);
    assert!((small.len()..Limits::MAX_BYTES).contains(&batches[1].1));
}

#[test]
fn dropped_guards_and_leaked_sessions_do_no_harm() {
    let mut request = LogsRequest::new(Limits::default());
    let mut batches = Vec::new();
    let (a, b) = (resource(), ResourceBlob::new(&[("service.name", "b")], &ResourceInfo::default()).unwrap());
    let record = LogRecord::default();
    {
        let mut out = request.start(|batch| batches.push(batch.bytes.to_vec()));
        out.resource(&a).scope(&scope()).add(&record, &()).unwrap();
        // Opened, and nothing added.
        out.resource(&a);
        out.resource(&a).scope(&scope());
        let mut scopes = out.resource(&b);
        scopes.scope(&scope());
        scopes.scope(&scope()).add(&record, &()).unwrap();
        // Dropped without `finish`.
    }
    let decoded = ExportLogsServiceRequest::decode(batches[0].as_slice()).unwrap();
    assert_eq!(decoded.resource_logs.len(), 2);
    assert!(decoded.resource_logs.iter().all(|resource| resource.scope_logs[0].log_records.len() == 1));
    let mut leaked = request.start(|_| unreachable!());
    leaked.resource(&a).scope(&scope()).add(&record, &()).unwrap();
    std::mem::forget(leaked);
    request.start(|_| unreachable!("nothing was added to this one")).finish();
}
