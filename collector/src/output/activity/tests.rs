use super::*;
use crate::telemetry::{Instrument, Metric, Owner, Point, PointValue, Sink, Subject};
use otlp_encode::Value;

static CALLS: Metric = metric("test.duration", Instrument::Histogram, &["call"]);
static ERRORS: Metric = metric("test.errors", Instrument::Counter, &["call", "error.type"]);
static VIEW: View = View {
    title: "Calls",
    rows: "calls",
    by_process: true,
    by: &[("call", "CALL")],
    columns: &[
        Column { heading: "CALLS", metric: &CALLS, only: &[], show: Show::Count },
        Column { heading: "P99", metric: &CALLS, only: &[], show: Show::Percentile(99) },
        Column { heading: "ERRORS", metric: &ERRORS, only: &[], show: Show::Most("error.type") },
    ],
};

const fn metric(name: &'static str, instrument: Instrument, attributes: &'static [&'static str]) -> Metric {
    Metric { name, unit: "s", description: "", instrument, subject: Subject::Process, attributes, source: "" }
}

fn recorded() -> Recorder {
    let mut recorder = Recorder::default();
    let mut add = |metric, pid, attributes: &[(&'static str, Value<'_>)], value: PointValue<'_>| {
        let owner = Owner::Process { pid, comm: [0; 16] };
        recorder.point(Point { metric, owner, attributes, value });
    };
    let mut fast = Exponential::new(0);
    fast.add_slot(10, 5);
    let mut slow = Exponential::new(0);
    slow.add_slot(29, 3);
    add(&CALLS, 7, &[("call", "read".into())], PointValue::Histogram(&fast));
    add(&CALLS, 7, &[("call", "read".into())], PointValue::Histogram(&fast));
    add(&CALLS, 8, &[("call", "poll".into())], PointValue::Histogram(&slow));
    let error = |name: &'static str| [("call", "read".into()), ("error.type", name.into())];
    add(&ERRORS, 7, &error("EAGAIN"), PointValue::Int(1));
    add(&ERRORS, 7, &error("EINTR"), PointValue::Int(4));
    recorder
}

fn table(width: usize, limit: usize) -> String {
    let style = Style { width, color: false };
    let context = Context { seconds: 2.0, limit, style, process_name: &|pid| format!("p\x1b{pid}") };
    let mut out = Vec::new();
    write(&VIEW, &recorded(), &context, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn rows_are_sorted_by_their_first_column() {
    let expected = "\nCalls\n    CALLS       P99 ERRORS                         PID PROCESS  CALL\n       \
                    10    1.91us EINTR 4, EAGAIN 1                7 p?7      read\n        \
                    3     1.00s                                  8 p?8      poll\n";
    assert_eq!(table(100, 10).replace('\u{fffd}', "?"), expected);
}

#[test]
fn what_does_not_fit_is_left_out_and_said() {
    let text = table(60, 1);
    assert!(text.contains("(and 1 more calls)") && !text.contains("ERRORS"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 60), "{text}");
}

#[test]
fn an_empty_table_says_so() {
    let style = Style::default();
    let context = Context { seconds: 1.0, limit: 5, style, process_name: &|pid| pid.to_string() };
    let mut out = Vec::new();
    write(&VIEW, &Recorder::default(), &context, &mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), "\nCalls\n  none\n");
}
