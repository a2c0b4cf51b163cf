use super::*;

fn new(proc: &FakeProc, temporality: Temporality, max_bytes: usize) -> Pipeline {
    let mut pipeline = Pipeline::new(settings(proc.host(), temporality), at(100)).unwrap();
    pipeline.serve_page(Some(max_bytes), 1 << 20);
    pipeline
}

fn page(pipeline: &Pipeline) -> String {
    String::from_utf8(pipeline.page().to_vec()).unwrap()
}

fn lines<'a>(page: &'a str, start: &str) -> Vec<&'a str> {
    page.lines().filter(|line| line.starts_with(start)).collect()
}

#[test]
#[cfg_attr(not(feature = "listen"), ignore = "without the feature `listen`")]
fn totals_are_on_it_whatever_is_exported() {
    for temporality in [Temporality::Cumulative, Temporality::Delta, Temporality::LowMemory] {
        let proc = FakeProc::new();
        let container = "c".repeat(64);
        proc.add(7, 500, "/usr/bin/shop", &format!("/docker/{container}"), "");
        proc.add(9, 500, "/usr/bin/cart", "/", "");
        let mut pipeline = new(&proc, temporality, 1 << 20);
        assert_eq!(page(&pipeline), "");
        for second in [110, 120, 130] {
            number(&CALLS, of(7), "a", 3)(&mut pipeline);
            number(&CALLS, of(9), "a", 5)(&mut pipeline);
            number(&HELD, of(9), "a", second as i64)(&mut pipeline);
            number(&OWN, Owner::Agent, "b", 1)(&mut pipeline);
            let times = Exponential::from_slots(0, 1, &[2], 1_500_000_000);
            let attributes = [("k", "a".into())];
            let value = PointValue::Histogram(&times);
            pipeline.point(Point { metric: &TIMES, owner: of(9), attributes: &attributes, value });
            if second == 110 {
                number(&LOAD, Owner::Host, "l", 4)(&mut pipeline);
            }
            flush(&mut pipeline, at(second));
            assert_eq!(lines(&page(&pipeline), "t_load_ratio").len(), usize::from(second < 130));
        }
        let page = page(&pipeline);
        let job = format!("job=\"shop\",instance=\"{container}\"");
        for line in [
            &format!("t_calls_total{{{job},k=\"a\"}} 9"),
            "t_calls_total{job=\"cart\",k=\"a\"} 15",
            "t_held{job=\"cart\",k=\"a\"} 130",
            "t_own_total{k=\"b\"} 3",
            "t_times_sum{job=\"cart\",k=\"a\"} 4.5",
            "t_times_count{job=\"cart\",k=\"a\"} 9",
            "ebpf_agent_page_omitted 0",
        ] {
            assert!(page.lines().any(|own| own == line), "{line} in {page}");
        }
        let targets = lines(&page, "target_info");
        let has = |parts: &[&str]| targets.iter().any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(has(&["service_name=\"ebpf-otlp\"", "service_instance_id=\"", "process_pid=\""]), "{page}");
        assert!(has(&[&job, "process_executable_path=\"/usr/bin/shop\"", "container_id=\"cc"]), "{page}");
        assert!(has(&["job=\"cart\",process_executable_name=\"cart\""]) && targets.len() == 3, "{page}");
        let first = page.lines().nth(2).unwrap();
        assert!(first.starts_with("t_own"), "the agent's own come first: {page}");
    }
}

#[test]
#[cfg_attr(not(feature = "listen"), ignore = "without the feature `listen`")]
fn what_is_known_before_a_window_ends_can_be_shown() {
    let proc = FakeProc::new();
    let mut pipeline = new(&proc, Temporality::Delta, 1 << 20);
    number(&OWN, Owner::Agent, "b", 1)(&mut pipeline);
    pipeline.refresh_page();
    assert!(page(&pipeline).contains("\nt_own_total{k=\"b\"} 1\n"));
    pipeline.serve_page(None, 1 << 20);
    pipeline.refresh_page();
    assert_eq!(page(&pipeline), "");
}

#[test]
#[cfg_attr(not(feature = "listen"), ignore = "without the feature `listen`")]
fn what_ends_with_its_process_is_shown_once_more() {
    let proc = FakeProc::new();
    proc.add(7, 500, "/usr/bin/shop", "/", "");
    let mut pipeline = new(&proc, Temporality::Cumulative, 1 << 20);
    number(&CALLS, of(7), "a", 3)(&mut pipeline);
    proc.remove(7);
    exited(&mut pipeline, 7, 5 * SECOND);
    flush(&mut pipeline, at(110));
    assert_eq!(lines(&page(&pipeline), "t_calls_total"), ["t_calls_total{job=\"shop\",k=\"a\"} 3"]);
    flush(&mut pipeline, at(120));
    assert!(lines(&page(&pipeline), "t_calls_total").is_empty());
}

/// A service that is told apart by less becomes another resource, with the same labels.
#[test]
#[cfg_attr(not(feature = "listen"), ignore = "without the feature `listen`")]
fn a_service_that_changes_is_on_it_once() {
    let proc = FakeProc::new();
    proc.add(7, 500, "/usr/bin/shop", "/", "OTEL_SERVICE_NAME=s\0");
    proc.add(8, 500, "/usr/bin/cart", "/", "OTEL_SERVICE_NAME=s\0");
    let mut pipeline = new(&proc, Temporality::Cumulative, 1 << 20);
    number(&CALLS, of(7), "a", 3)(&mut pipeline);
    flush(&mut pipeline, at(110));
    number(&CALLS, of(8), "a", 5)(&mut pipeline);
    flush(&mut pipeline, at(120));
    let page = page(&pipeline);
    assert_eq!(lines(&page, "t_calls_total"), ["t_calls_total{job=\"s\",k=\"a\"} 8"]);
    let targets = lines(&page, "target_info{job=\"s\"");
    assert!(targets.len() == 1 && !targets[0].contains("executable_path"), "what is true of both: {page}");
}

/// What a receiver of pages sees fall, it takes for a new beginning, and counts twice.
#[test]
#[cfg_attr(not(feature = "listen"), ignore = "without the feature `listen`")]
fn what_counts_never_falls_as_a_service_changes() {
    for temporality in [Temporality::Cumulative, Temporality::Delta] {
        let proc = FakeProc::new();
        let mut pipeline = new(&proc, temporality, 1 << 20);
        let (calls, told) = (std::cell::Cell::new(0), "t_calls_total{job=\"s\",k=\"a\"} ");
        let times = Exponential::from_slots(0, 1, &[2], 1_500_000_000);
        let attributes = [("k", "a".into())];
        let call = |pipeline: &mut Pipeline, pid: u32| {
            number(&CALLS, of(pid), "a", pid.into())(pipeline);
            number(&READ, of(pid), "a", pid.into())(pipeline);
            let value = PointValue::Histogram(&times);
            pipeline.point(Point { metric: &TIMES, owner: of(pid), attributes: &attributes, value });
            calls.set(calls.get() + pid);
        };
        let (mut second, mut windows) = (100, 0);
        let mut end = |pipeline: &mut Pipeline, last: u32| {
            second += 10;
            let requests = flush(pipeline, at(second));
            let exported = points(&requests);
            let page = page(pipeline);
            assert_eq!(lines(&page, told), [format!("{told}{}", calls.get())], "{temporality:?} {page}");
            windows += 1;
            let count = format!("t_times_count{{job=\"s\",k=\"a\"}} {}", 3 * windows);
            assert!(page.lines().any(|line| line == count), "{count} in {page}");
            assert_eq!(
                lines(&page, "t_read"),
                [format!("t_read_ratio{{job=\"s\",k=\"a\"}} {last}")],
                "{page}"
            );
            exported
        };
        // The executable differs, then the user, then the unit.
        proc.add(1, 500, "/usr/bin/shop", "/", "OTEL_SERVICE_NAME=s\0");
        call(&mut pipeline, 1);
        end(&mut pipeline, 1);
        for (pid, executable, cgroup) in
            [(2, "/opt/shop", "/"), (3, "/opt/cart", "/"), (4, "/opt/cart", "/system.slice/a.service")]
        {
            proc.add(pid, 500, executable, cgroup, "OTEL_SERVICE_NAME=s\0");
            call(&mut pipeline, pid);
            end(&mut pipeline, pid);
            call(&mut pipeline, pid);
            let exported = end(&mut pipeline, pid);
            let own: f64 = exported.iter().filter(|got| got.metric == "t.calls").map(|got| got.value).sum();
            let windows = if temporality == Temporality::Delta { 1 } else { 2 };
            assert_eq!(own, f64::from(windows * pid), "what is exported begins anew");
        }
        // When it ends, so does its past.
        for pid in 1..=4 {
            proc.remove(pid);
            exited(&mut pipeline, pid, 5 * SECOND);
        }
        flush(&mut pipeline, at(300));
        flush(&mut pipeline, at(310));
        assert!(lines(&page(&pipeline), "t_calls").is_empty() && pipeline.stats().series.bytes < 100);
    }
}

#[test]
#[cfg_attr(not(feature = "listen"), ignore = "without the feature `listen`")]
fn it_is_bounded() {
    let proc = FakeProc::new();
    let mut pipeline = new(&proc, Temporality::Cumulative, 2000);
    number(&OWN, Owner::Agent, "b", 1)(&mut pipeline);
    for n in 0..1000 {
        number(&CALLS, of(0), &n.to_string(), 1)(&mut pipeline);
    }
    flush(&mut pipeline, at(110));
    let page = page(&pipeline);
    let shown = lines(&page, "t_calls_total").len();
    assert!(shown > 10 && page.len() < 2500 && page.contains("t_own_total"), "{page}");
    // Our own line of facts found no room either.
    assert!(page.ends_with(&format!("\nebpf_agent_page_omitted {}\n", 1000 - shown + 1)), "{page}");
}

/// Opened and closed while the agent runs too.
#[test]
#[cfg_attr(not(feature = "listen"), ignore = "without the feature `listen`")]
fn its_totals_are_within_the_share_of_series() {
    let proc = FakeProc::new();
    let memory = Memory { series: 40_000, ..Memory::split(8 << 20) };
    let mut pipeline =
        Pipeline::new(Settings { memory, ..settings(proc.host(), Temporality::Delta) }, at(100)).unwrap();
    let window = |pipeline: &mut Pipeline, second| {
        for n in 0..200 {
            number(&CALLS, Owner::Host, &format!("key {n}"), 1)(pipeline);
        }
        flush(pipeline, at(second));
    };
    let all = |pipeline: &mut Pipeline| {
        let totals =
            pipeline.page.as_mut().and_then(|served| served.totals()).map(|totals| totals.stats().bytes);
        (pipeline.store.stats().bytes, totals.unwrap_or(0))
    };
    window(&mut pipeline, 110);
    assert!(all(&mut pipeline).0 > 39_000);
    pipeline.serve_page(Some(1 << 20), 40_000);
    window(&mut pipeline, 120);
    window(&mut pipeline, 130);
    let (series, totals) = all(&mut pipeline);
    assert!((19_000..=20_200).contains(&series) && (19_000..=20_200).contains(&totals), "{series} {totals}");
    pipeline.serve_page(None, 40_000);
    window(&mut pipeline, 140);
    let (series, totals) = all(&mut pipeline);
    assert!(series > 39_000 && totals == 0, "{series} {totals}");
}
