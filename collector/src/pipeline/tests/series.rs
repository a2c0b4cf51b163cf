use super::*;

fn new(proc: &FakeProc, temporality: Temporality) -> Pipeline {
    Pipeline::new(settings(proc.host(), temporality), at(100)).unwrap()
}

/// Service, metric, value, start and time in seconds.
fn rows(points: &[Got]) -> Vec<(String, String, f64, u64, u64)> {
    let seconds = |nanos: u64| nanos.saturating_sub(T0) / SECOND;
    let row = |got: &Got| {
        (got.service().to_owned(), got.metric.clone(), got.value, seconds(got.start), seconds(got.time))
    };
    points.iter().map(row).collect()
}

fn row(service: &str, metric: &str, value: f64, start: u64, time: u64) -> (String, String, f64, u64, u64) {
    (service.to_owned(), metric.to_owned(), value, start, time)
}

#[test]
fn services_that_find_no_room_are_one_and_counted() {
    let proc = FakeProc::new();
    let mut settings = settings(proc.host(), Temporality::Cumulative);
    // Room for 64 resources, four of which are always there.
    settings.memory.processes = 64 << 10;
    let mut pipeline = Pipeline::new(settings, at(100)).unwrap();
    for pid in 1000..1100 {
        proc.add(pid, 500, &format!("/usr/bin/service-{pid}"), "/", "");
        number(&CALLS, of(pid), "a", 1)(&mut pipeline);
        number(&HELD, of(pid), "a", 1)(&mut pipeline);
    }
    assert_eq!((pipeline.stats().folded, pipeline.stats().resources), (40, 64));
    // One that has ended is still one, however often it is told of.
    for _ in 0..3 {
        number(&CALLS, of(2000), "a", 0)(&mut pipeline);
        number(&CALLS, of(1000), "a", 0)(&mut pipeline);
    }
    assert_eq!(pipeline.stats().folded, 41);
    let points = points(&flush(&mut pipeline, at(110)));
    let others: Vec<_> = rows(&points).into_iter().filter(|row| row.0 == "other-services").collect();
    assert_eq!(
        others,
        [row("other-services", "t.calls", 40.0, 100, 110), row("other-services", "t.held", 40.0, 100, 110)]
    );
}

#[test]
fn processes_of_a_service_add_up() {
    let proc = FakeProc::new();
    proc.add(7, 500, "/usr/bin/shop", "/system.slice/shop.service", "");
    proc.add(8, 15_000, "/usr/bin/shop", "/system.slice/shop.service", "");
    proc.add(9, 500, "/usr/bin/java", "/", "OTEL_SERVICE_NAME=cart\0");
    let mut pipeline = new(&proc, Temporality::Cumulative);
    number(&CALLS, of(7), "a", 3)(&mut pipeline);
    number(&CALLS, of(9), "a", 5)(&mut pipeline);
    number(&HELD, of(7), "a", 10)(&mut pipeline);
    let first = points(&flush(&mut pipeline, at(110)));
    assert_eq!(
        rows(&first),
        [
            row("shop", "t.calls", 3.0, 100, 110),
            row("shop", "t.held", 10.0, 100, 110),
            row("cart", "t.calls", 5.0, 100, 110)
        ]
    );
    let shop = &first[0].resource;
    assert_eq!(shop.get("process.executable.path").map(String::as_str), Some("/usr/bin/shop"));
    assert_eq!(shop.get("process.linux.cgroup").map(String::as_str), Some("/system.slice/shop.service"));
    assert_eq!(
        (shop.get("process.owner").map(String::as_str), shop.get("process.pid")),
        (Some("1000"), None)
    );
    number(&CALLS, of(7), "a", 1)(&mut pipeline);
    number(&CALLS, of(8), "a", 100)(&mut pipeline);
    number(&HELD, of(7), "a", 4)(&mut pipeline);
    number(&HELD, of(8), "a", 40)(&mut pipeline);
    // Started at 150 s, in a window that began at 110 s: of a series that is there already, the start stays.
    number(&BYTES, of(8), "a", 1)(&mut pipeline);
    assert_eq!(
        rows(&points(&flush(&mut pipeline, at(160)))),
        [
            row("shop", "t.calls", 104.0, 100, 160),
            row("shop", "t.held", 44.0, 100, 160),
            row("shop", "t.bytes", 1.0, 150, 160),
            row("cart", "t.calls", 5.0, 100, 160)
        ]
    );
    // A process takes its part of a state with it, and leaves what it counted.
    proc.remove(8);
    let after = rows(&points(&flush(&mut pipeline, at(170))));
    assert_eq!(after[..2], [row("shop", "t.calls", 104.0, 100, 170), row("shop", "t.held", 4.0, 100, 170)]);
}

#[test]
fn what_ended_is_exported_once_more() {
    let proc = FakeProc::new();
    proc.add(7, 500, "/usr/bin/shop", "/", "");
    let mut pipeline = new(&proc, Temporality::Cumulative);
    number(&CALLS, of(7), "a", 3)(&mut pipeline);
    assert_eq!(points(&flush(&mut pipeline, at(110))).len(), 1);
    number(&CALLS, of(7), "a", 2)(&mut pipeline);
    proc.remove(7);
    exited(&mut pipeline, 7, 5 * SECOND);
    assert_eq!(rows(&points(&flush(&mut pipeline, at(120)))), [row("shop", "t.calls", 5.0, 100, 120)]);
    assert_eq!((pipeline.stats().series.series, pipeline.stats().resources), (0, 4));
    // What was collected late has its name, and begins with its window.
    number(&CALLS, of(7), "a", 1)(&mut pipeline);
    assert_eq!(rows(&points(&flush(&mut pipeline, at(130)))), [row("shop", "t.calls", 1.0, 120, 130)]);
    assert!(flush(&mut pipeline, at(140)).is_empty());
    assert!(pipeline.stats().processes.processes <= 1);
}

#[test]
fn a_number_that_is_used_again_is_somebody_else() {
    let proc = FakeProc::new();
    proc.add(7, 500, "/usr/bin/shop", "/", "");
    let mut pipeline = new(&proc, Temporality::Cumulative);
    number(&CALLS, of(7), "a", 3)(&mut pipeline);
    number(&HELD, of(7), "a", 9)(&mut pipeline);
    flush(&mut pipeline, at(110));
    proc.add(7, 11_500, "/usr/bin/cart", "/", "");
    number(&CALLS, of(7), "a", 1)(&mut pipeline);
    assert_eq!(
        rows(&points(&flush(&mut pipeline, at(120)))),
        [
            row("shop", "t.calls", 3.0, 100, 120),
            row("shop", "t.held", 0.0, 100, 120),
            row("cart", "t.calls", 1.0, 115, 120)
        ]
    );
}

#[test]
fn processes_that_nobody_could_look_at() {
    let proc = FakeProc::new();
    proc.add(7, 500, "/usr/bin/shop", &format!("/docker/{}", "c".repeat(64)), "OTEL_SERVICE_NAME=cart\0");
    let mut pipeline = new(&proc, Temporality::Delta);
    number(&CALLS, of(7), "a", 1)(&mut pipeline);
    // Told by events: what a container has started is in it.
    pipeline.lifecycle(&execed(20, 7, "/bin/ls"));
    exited(&mut pipeline, 20, 105 * SECOND);
    number(&CALLS, of(20), "b", 2)(&mut pipeline);
    // Told by nobody but the one who counted.
    let comm = *b"grep\0\0\0\0\0\0\0\0\0\0\0\0";
    number(&CALLS, Owner::Process { pid: 21, comm }, "c", 4)(&mut pipeline);
    number(&CALLS, of(0), "d", 8)(&mut pipeline);
    let got = points(&flush(&mut pipeline, at(110)));
    let of = |key: &str| got.iter().find(|got| got.attributes["k"] == key).unwrap();
    for key in ["a", "b"] {
        assert_eq!(of(key).service(), "cart");
        assert_eq!(of(key).resource["container.id"], "c".repeat(64));
    }
    assert_eq!((of("c").service(), of("d").service()), ("grep", "other-pid-namespace"));
    assert_eq!(pipeline.stats().processes.unknown, 1);
}

#[test]
fn what_differs_within_a_service_is_left_out() {
    let proc = FakeProc::new();
    for (pid, path) in [(7, "/usr/bin/shop"), (8, "/opt/bin/worker")] {
        proc.add(pid, 500, path, "/", "OTEL_SERVICE_NAME=shop\0");
    }
    let mut pipeline = new(&proc, Temporality::Cumulative);
    number(&CALLS, of(7), "a", 1)(&mut pipeline);
    assert_eq!(points(&flush(&mut pipeline, at(110)))[0].resource["process.executable.name"], "shop");
    number(&CALLS, of(7), "a", 2)(&mut pipeline);
    number(&CALLS, of(8), "a", 4)(&mut pipeline);
    // The first comes to its end with what it had, and another begins.
    let got = points(&flush(&mut pipeline, at(120)));
    assert_eq!(rows(&got), [row("shop", "t.calls", 3.0, 100, 120), row("shop", "t.calls", 4.0, 110, 120)]);
    assert!(got[0].resource.contains_key("process.executable.name"));
    assert!(!got[1].resource.contains_key("process.executable.name"));
    number(&CALLS, of(7), "a", 8)(&mut pipeline);
    assert_eq!(rows(&points(&flush(&mut pipeline, at(130)))), [row("shop", "t.calls", 12.0, 110, 130)]);
}

#[test]
fn each_process_where_it_is_asked_for() {
    let proc = FakeProc::new();
    proc.add(7, 500, "/usr/bin/shop", "/a/b", "");
    proc.add(8, 500, "/usr/bin/shop", "/a/c", "");
    let settings = Settings { per_process: true, ..settings(proc.host(), Temporality::Cumulative) };
    let mut pipeline = Pipeline::new(settings, at(100)).unwrap();
    number(&CALLS, of(7), "a", 1)(&mut pipeline);
    number(&CALLS, of(8), "a", 2)(&mut pipeline);
    let got = points(&flush(&mut pipeline, at(110)));
    let pids: Vec<_> = got.iter().map(|got| (&*got.resource["process.pid"], got.value)).collect();
    assert_eq!(pids, [("7", 1.0), ("8", 2.0)]);
    assert_eq!(got[1].resource["process.linux.cgroup"], "/a/c");
    assert_eq!(got[1].resource["process.parent_pid"], "1");
}

#[test]
fn temporalities() {
    let proc = FakeProc::new();
    for (preference, deltas) in [
        (Temporality::Cumulative, &[][..]),
        (Temporality::Delta, &["t.calls", "t.times", "t.own"]),
        (Temporality::LowMemory, &["t.calls", "t.times"]),
    ] {
        let mut pipeline = new(&proc, preference);
        let mut histogram = Exponential::new(1);
        histogram.add_slot(40, 3);
        for window in 0..2 {
            number(&CALLS, Owner::Host, "a", 3)(&mut pipeline);
            number(&HELD, Owner::Host, "a", 3)(&mut pipeline);
            number(&LOAD, Owner::Host, "a", 3)(&mut pipeline);
            number(&OWN, Owner::Agent, "a", 3)(&mut pipeline);
            let value = PointValue::Histogram(&histogram);
            pipeline.point(Point { metric: &TIMES, owner: Owner::Host, attributes: &[], value });
            let got = points(&flush(&mut pipeline, at(110 + 10 * window)));
            let delta: BTreeSet<_> = got.iter().filter(|got| got.is_delta).map(|got| &*got.metric).collect();
            assert_eq!(delta, deltas.iter().copied().collect());
            for got in got {
                let adds = !["t.held", "t.load"].contains(&&*got.metric);
                let times = if adds && !got.is_delta { window + 1 } else { 1 };
                assert_eq!(got.value, (3 * times) as f64, "{got:?}");
                let start = match &*got.metric {
                    "t.load" => 0,
                    _ if got.is_delta => T0 + (100 + 10 * window) * SECOND,
                    _ => T0 + 100 * SECOND,
                };
                assert_eq!((got.start, got.time), (start, T0 + (110 + 10 * window) * SECOND));
            }
        }
        // Without news, only what holds on is told.
        let silent = points(&flush(&mut pipeline, at(130)));
        assert!(silent.iter().all(|got| !got.is_delta && got.metric != "t.load"));
        assert_eq!(silent.len(), 4 - deltas.len());
    }
}

#[test]
fn histograms_are_bucket_for_bucket_the_kernels() {
    let proc = FakeProc::new();
    let mut pipeline = new(&proc, Temporality::Cumulative);
    let mut total = Exponential::new(2);
    for slot in [0, 5, 90, 175] {
        let mut histogram =
            Exponential { zero: 1, sum_nanos: 7_000_000_000, max_nanos: 9, ..Exponential::new(2) };
        histogram.add_slot(slot, slot.into());
        histogram.add_slot(90, 1);
        total.merge(&histogram);
        let value = PointValue::Histogram(&histogram);
        pipeline.point(Point { metric: &TIMES, owner: Owner::Host, attributes: &[], value });
        let got = points(&flush(&mut pipeline, at(110 + u64::from(slot))));
        let expected = (2, total.offset(), total.buckets.clone(), total.zero, total.sum_seconds());
        assert_eq!(got[0].histogram.as_ref(), Some(&expected));
        assert_eq!(got[0].value, total.count() as f64);
    }
}

#[test]
fn what_finds_no_room_is_folded_and_counted() {
    let proc = FakeProc::new();
    for temporality in [Temporality::Cumulative, Temporality::Delta] {
        let memory = Memory { series: 20_000, ..Memory::split(8 << 20) };
        let mut pipeline =
            Pipeline::new(Settings { memory, ..settings(proc.host(), temporality) }, at(100)).unwrap();
        let mut seen = 0.0;
        for window in 0..20 {
            for n in 0..200 {
                number(&CALLS, Owner::Host, &format!("key {} {n}", window / 4), 1)(&mut pipeline);
                number(&HELD, Owner::Host, &format!("key {n}"), 1)(&mut pipeline);
            }
            let got = points(&flush(&mut pipeline, at(110 + 10 * window)));
            let calls: f64 = got.iter().filter(|got| got.metric == "t.calls").map(|got| got.value).sum();
            if temporality == Temporality::Delta {
                assert_eq!(calls, 200.0);
            }
            let folded = got.iter().filter(|got| got.attributes.contains_key("otel.metric.overflow"));
            seen += folded.map(|got| if got.is_delta { got.value } else { 0.0 }).sum::<f64>();
            assert!(pipeline.stats().series.bytes <= 21_000);
        }
        let stats = pipeline.stats().series;
        assert!(stats.folded > 0 && stats.lost > 0 && stats.refused == 0, "{stats:?}");
        if temporality == Temporality::Delta {
            assert_eq!(seen, stats.folded as f64);
        }
    }
}

#[test]
fn a_metric_of_two_tracers_is_one() {
    static AGAIN: Metric =
        Metric { description: "other", ..metric("t.calls", Instrument::Counter, Subject::Process) };
    let proc = FakeProc::new();
    let mut pipeline = new(&proc, Temporality::Cumulative);
    number(&CALLS, Owner::Host, "a", 1)(&mut pipeline);
    number(&AGAIN, Owner::Host, "b", 2)(&mut pipeline);
    number(&AGAIN, Owner::Host, "a", 4)(&mut pipeline);
    let requests = flush(&mut pipeline, at(110));
    let decoded = ExportMetricsServiceRequest::decode(requests[0].body.clone()).unwrap();
    assert_eq!(decoded.resource_metrics[0].scope_metrics[0].metrics.len(), 1);
    let values: Vec<f64> = points(&requests).iter().map(|got| got.value).collect();
    assert_eq!(values, [5.0, 2.0]);
}

#[test]
fn what_is_not_valid_is_refused_and_counted() {
    let proc = FakeProc::new();
    let mut pipeline = new(&proc, Temporality::Cumulative);
    number(&CALLS, Owner::Host, "a", -1)(&mut pipeline);
    number(&TIMES, Owner::Host, "a", 1)(&mut pipeline);
    let twice: [Attribute<'_>; 2] = [("k", 1.into()), ("k", 2.into())];
    let mut add = |metric, attributes, value| {
        pipeline.point(Point { metric, owner: Owner::Host, attributes, value });
    };
    add(&CALLS, &twice, PointValue::Int(1));
    add(&CALLS, &[], PointValue::Double(f64::NAN));
    add(&CALLS, &[], PointValue::Histogram(&Exponential::new(0)));
    assert!(flush(&mut pipeline, at(110)).is_empty());
    assert_eq!((pipeline.stats().series.refused, pipeline.stats().series.series), (5, 0));
}

#[test]
fn the_clock_is_set() {
    let proc = FakeProc::new();
    for (seconds, back) in [(3600, false), (3600, true)] {
        let mut pipeline = new(&proc, Temporality::Delta);
        number(&CALLS, Owner::Host, "a", 1)(&mut pipeline);
        number(&HELD, Owner::Host, "a", 1)(&mut pipeline);
        flush(&mut pipeline, at(110));
        let set = |seconds_since_boot| {
            let Reading { boot_nanos, unix_nanos } = at(seconds_since_boot);
            let by = seconds * SECOND;
            Reading { boot_nanos, unix_nanos: if back { unix_nanos - by } else { unix_nanos + by } }
        };
        number(&CALLS, Owner::Host, "a", 2)(&mut pipeline);
        let got = points(&flush(&mut pipeline, set(120)));
        // The window is as long as it was, and a state begins with it.
        assert_eq!((got[0].start, got[0].time), (set(110).unix_nanos, set(120).unix_nanos));
        assert_eq!((got[1].start, got[1].time), (set(110).unix_nanos, set(120).unix_nanos));
        number(&CALLS, Owner::Host, "a", 2)(&mut pipeline);
        let got = points(&flush(&mut pipeline, set(130)));
        assert_eq!((got[0].start, got[0].time), (set(120).unix_nanos, set(130).unix_nanos));
        assert_eq!(pipeline.stats().clock_steps, 1);
    }
}

#[test]
fn what_counts_since_its_start_begins_anew_when_the_clock_is_set() {
    for (by, back) in [(3600, false), (3600, true), (1, true), (1, false)] {
        let proc = FakeProc::new();
        proc.add(7, 11_500, "/usr/bin/shop", "/", "");
        let mut pipeline = new(&proc, Temporality::Cumulative);
        let set = |seconds_since_boot| {
            let Reading { boot_nanos, unix_nanos } = at(seconds_since_boot);
            let by = by * SECOND;
            Reading { boot_nanos, unix_nanos: if back { unix_nanos - by } else { unix_nanos + by } }
        };
        let add = |pipeline: &mut Pipeline, value| {
            number(&CALLS, Owner::Host, "a", value)(pipeline);
            number(&HELD, Owner::Host, "a", value)(pipeline);
        };
        let times = |got: &Got| (got.metric.as_str().to_owned(), got.value, got.start, got.time);
        let row = |metric: &str, value, start: Reading, time: Reading| {
            (metric.to_owned(), value, start.unix_nanos, time.unix_nanos)
        };
        let of_host = |got: Vec<Got>| -> Vec<_> {
            got.iter().filter(|got| got.service().is_empty()).map(times).collect()
        };
        add(&mut pipeline, 1);
        flush(&mut pipeline, at(110));
        add(&mut pipeline, 2);
        // A process that began in the window in which the clock was set, counted by both clocks.
        number(&CALLS, of(7), "a", 5)(&mut pipeline);
        // Spans are flushed earlier, and see it first.
        pipeline.flush(set(115), &[Signal::Traces], &mut |_| panic!("there are none"));
        let got = points(&flush(&mut pipeline, set(120)));
        let shop: Vec<_> = got.iter().filter(|got| got.service() == "shop").map(times).collect();
        assert_eq!(shop, [row("t.calls", 5.0, at(115), at(120))]);
        // The last of the old series, by the old clock; states by the new one.
        let last = [row("t.calls", 3.0, at(100), at(120)), row("t.held", 2.0, set(110), set(120))];
        assert_eq!(of_host(got), last);
        add(&mut pipeline, 4);
        let got = points(&flush(&mut pipeline, set(130)));
        let first = [row("t.calls", 4.0, set(120), set(130)), row("t.held", 4.0, set(110), set(130))];
        assert_eq!(of_host(got), first, "no start is after its time, and nothing is told twice");
        add(&mut pipeline, 8);
        let got = of_host(points(&flush(&mut pipeline, set(140))));
        assert_eq!(got[0], row("t.calls", 12.0, set(120), set(140)));
    }
}

#[test]
fn the_same_input_is_the_same_bytes() {
    let run = || {
        let proc = FakeProc::new();
        for pid in 1..40 {
            proc.add(pid, 500, &format!("/bin/p{}", pid % 7), "/", "");
        }
        let mut pipeline = new(&proc, Temporality::Cumulative);
        let mut bytes = Vec::new();
        for window in 0..3 {
            for n in 0..400_u32 {
                number(&CALLS, of(1 + n * 7 % 39), &format!("{}", n % 11), 1)(&mut pipeline);
                number(&HELD, of(1 + n * 5 % 39), &format!("{}", n % 3), n.into())(&mut pipeline);
            }
            proc.remove(5 + window);
            bytes.extend(flush(&mut pipeline, at(110 + 10 * u64::from(window))).into_iter().map(|r| r.body));
        }
        bytes
    };
    assert_eq!(run(), run());
}
