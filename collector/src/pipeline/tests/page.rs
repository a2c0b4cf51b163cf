use super::*;

fn new(proc: &FakeProc, temporality: Temporality, max_bytes: usize) -> Pipeline {
    let mut pipeline = Pipeline::new(settings(proc.host(), temporality), at(100)).unwrap();
    pipeline.serve_page(Some(max_bytes));
    pipeline
}

fn page(pipeline: &Pipeline) -> String {
    String::from_utf8(pipeline.page().to_vec()).unwrap()
}

fn lines<'a>(page: &'a str, start: &str) -> Vec<&'a str> {
    page.lines().filter(|line| line.starts_with(start)).collect()
}

#[test]
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
fn what_is_known_before_a_window_ends_can_be_shown() {
    let proc = FakeProc::new();
    let mut pipeline = new(&proc, Temporality::Delta, 1 << 20);
    number(&OWN, Owner::Agent, "b", 1)(&mut pipeline);
    pipeline.refresh_page();
    assert!(page(&pipeline).contains("\nt_own_total{k=\"b\"} 1\n"));
    pipeline.serve_page(None);
    pipeline.refresh_page();
    assert_eq!(page(&pipeline), "");
}

#[test]
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

#[test]
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
