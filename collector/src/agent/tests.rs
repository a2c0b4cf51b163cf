//! The agent with tracers that are made up.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::config::{AgentConfig, TracerConfig};
use super::report::Report;
use super::running::Agent;
use crate::config::Filter;
use crate::error::{Error, Result};
use crate::key::{Key, Value};
use crate::model::Profile;
use crate::telemetry::{
    Definitions, Instrument, LogDef, LogRecord, Metric, Owner, Point, PointValue, Recorder, Severity, Sink,
    Subject,
};
use crate::tracer::ladder::Chosen;
use crate::tracer::{Info, Overhead, Settings, Start, Stats, Tracer};

static COUNT: Metric = Metric {
    name: "fake.count",
    unit: "1",
    description: "",
    instrument: Instrument::Counter,
    subject: Subject::Host,
    attributes: &[],
    source: "",
};
static EVENT: LogDef =
    LogDef { name: "fake.event", description: "", severity: Severity::Info, attributes: &[], source: "" };

const fn info(name: &'static str, start: fn(&Start<'_>) -> Result<Box<dyn Tracer>>) -> Info {
    Info {
        name,
        command: name,
        about: "",
        telemetry: Definitions::NONE,
        views: &[],
        ladders: &[],
        on_by_default: true,
        keys: KEYS,
        start,
    }
}

const KEYS: &[Key<Settings>] = &[Key {
    name: "frequency",
    doc: "",
    get: |settings| Value::Int(settings.profile.frequency.into()),
    set: |_, _| Ok(()),
}];

static GOOD: Info = info("good", |start| {
    if world(|world| world.refuses) {
        Err(Box::new(Error::NoPerfEvents))
    } else {
        Ok(Box::new(Fake::new(&GOOD, start)))
    }
});
static OTHER: Info = info("other", |start| Ok(Box::new(Fake::new(&OTHER, start))));
static BROKEN: Info = info("broken", |_| Err(Box::new(Error::NoPerfEvents)));
static ALL: &[&Info] = &[&GOOD, &BROKEN, &OTHER];

thread_local! {
    /// What the tests do to tracers, and what those say.
    static WORLD: RefCell<World> = RefCell::default();
}

#[derive(Default)]
struct World {
    /// Events by tracer that wait in its ring.
    events: Vec<(&'static str, u64)>,
    /// What was done.
    calls: Vec<String>,
    fails: Option<&'static str>,
    needs_restart: bool,
    /// Whether `good` cannot start.
    refuses: bool,
    start_takes: Duration,
    hits: u64,
    /// What the next tracer drops that drains, and that settles.
    drops: u64,
    late_drops: u64,
    /// Tracers that are detached.
    paused: Vec<&'static str>,
    wakers: Vec<(&'static str, UnixStream)>,
}

fn world<R>(change: impl FnOnce(&mut World) -> R) -> R {
    WORLD.with(|world| change(&mut world.borrow_mut()))
}

#[derive(Debug)]
struct Fake {
    info: &'static Info,
    ring: UnixStream,
    running: bool,
    dropped: u64,
}

impl Fake {
    fn new(info: &'static Info, start: &Start<'_>) -> Self {
        std::thread::sleep(world(|world| world.start_takes));
        let (ring, waker) = UnixStream::pair().unwrap();
        ring.set_nonblocking(true).unwrap();
        world(|world| {
            world.calls.push(format!("start {} {:?}", info.name, start.filter.comm));
            world.wakers.push((info.name, waker));
        });
        Self { info, ring, running: true, dropped: 0 }
    }

    fn say(&self, what: &str) {
        world(|world| world.calls.push(format!("{what} {}", self.info.name)));
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.say("drop");
    }
}

impl Tracer for Fake {
    fn info(&self) -> &'static Info {
        self.info
    }
    fn rungs(&self) -> &[Chosen] {
        &[]
    }
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.ring.as_fd()]
    }
    fn drain(&mut self, sink: &mut dyn Sink) -> Result<()> {
        let _ = (&self.ring).read(&mut [0; 16]);
        self.dropped += world(|world| std::mem::take(&mut world.drops));
        if world(|world| world.fails == Some(self.info.name)) {
            return Err(Box::new(Error::Stopped));
        }
        let own = |(name, _): &(&str, u64)| *name == self.info.name;
        let events: Vec<_> = world(|world| world.events.iter().copied().filter(own).collect());
        world(|world| world.events.retain(|event| !own(event)));
        for (name, boot_nanos) in events {
            sink.log(LogRecord { log: &EVENT, owner: Owner::Host, boot_nanos, body: name, attributes: &[] });
        }
        Ok(())
    }
    fn collect(&mut self, sink: &mut dyn Sink) -> Result<()> {
        self.say("collect");
        sink.point(Point { metric: &COUNT, owner: Owner::Host, attributes: &[], value: PointValue::Int(1) });
        Ok(())
    }
    fn settle(&mut self, _until: Option<Instant>) -> Result<Vec<Profile>> {
        self.dropped += world(|world| std::mem::take(&mut world.late_drops));
        Ok(Vec::new())
    }
    fn pause(&mut self) -> Result<()> {
        self.say("pause");
        world(|world| world.paused.push(self.info.name));
        self.running = false;
        Ok(())
    }
    fn resume(&mut self) -> Result<()> {
        self.say("resume");
        world(|world| world.paused.retain(|name| *name != self.info.name));
        self.running = true;
        Ok(())
    }
    fn is_running(&self) -> bool {
        self.running
    }
    fn set_filter(&mut self, filter: &Filter) -> Result<()> {
        if world(|world| world.needs_restart) {
            return Err(Box::new(Error::FilterNeedsRestart));
        }
        world(|world| world.calls.push(format!("filter {} {:?}", self.info.name, filter.comm)));
        Ok(())
    }
    fn stats(&mut self) -> Result<Stats> {
        let dropped = vec![("ring full", self.dropped)];
        Ok(Stats { hits: self.dropped, dropped, ..Stats::default() })
    }
    fn overhead(&self) -> Result<Overhead> {
        let hits = if self.info.name == "good" { world(|world| world.hits) } else { 0 };
        Ok(Overhead { hits, nanos_per_hit: 100.0, ..Overhead::default() })
    }
    fn map_bytes(&self) -> u64 {
        4096
    }
}

fn config(names: &[&'static str]) -> AgentConfig {
    let mut config = AgentConfig::default();
    config.tracers.clear();
    for name in names {
        config.tracers.insert(name, TracerConfig { enabled: true, ..TracerConfig::default() });
    }
    config.agent.cpu_limit = 0.0;
    config
}

fn start(names: &[&'static str]) -> Agent {
    world(|world| *world = World::default());
    Agent::start_some(ALL, config(names), Duration::from_secs(1)).unwrap()
}

fn calls() -> Vec<String> {
    world(|world| std::mem::take(&mut world.calls))
}

fn poll_for(agent: &mut Agent, time: Duration, sink: &mut dyn Sink) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        agent.poll(end, sink).unwrap();
    }
}

fn bodies(recorder: &Recorder) -> Vec<(u64, String)> {
    recorder.logs.iter().map(|item| (item.boot_nanos.0, item.text.clone().unwrap_or_default())).collect()
}

#[test]
fn what_cannot_start_is_told_and_the_others_go_on() {
    let mut agent = start(&["good", "broken", "other"]);
    assert_eq!(calls(), ["start good None", "start other None"]);
    let [failure] = agent.failures() else { panic!("{:?}", agent.failures()) };
    assert!(failure.name == "broken" && !failure.counts, "nobody asked for it by name");
    assert!(
        agent.take_warnings().iter().any(|note| note.starts_with("broken: this kernel has no perf events"))
    );
    drop(agent);
    let error = Agent::start_some(ALL, config(&["broken"]), Duration::from_secs(1)).unwrap_err();
    assert!(matches!(*error, Error::NoPerfEvents));
}

#[test]
fn what_starting_takes_is_no_part_of_the_first_window() {
    let slow = config(&["good"]);
    world(|world| *world = World { start_takes: Duration::from_millis(300), ..World::default() });
    let mut agent = Agent::start_some(ALL, slow, Duration::from_secs(1)).unwrap();
    let window = agent.collect(&mut Recorder::default()).window;
    assert!(window < Duration::from_millis(250), "{window:?}");
}

#[test]
fn a_ring_that_fills_is_drained_at_once_and_events_come_in_order() {
    let mut agent = start(&["good", "other"]);
    let mut recorder = Recorder::default();
    poll_for(&mut agent, Duration::from_millis(300), &mut recorder);
    world(|world| {
        world.events = vec![("other", 2), ("good", 3), ("good", 1), ("other", 4)];
        let waker = world.wakers.iter_mut().find(|(name, _)| *name == "other").unwrap();
        waker.1.write_all(b"x").unwrap();
    });
    let asked = Instant::now();
    agent.poll(asked + Duration::from_secs(5), &mut recorder).unwrap();
    assert!(asked.elapsed() < Duration::from_millis(100), "{:?}", asked.elapsed());
    let expected = [(1, "good"), (2, "other"), (3, "good"), (4, "other")];
    assert_eq!(bodies(&recorder), expected.map(|(time, name)| (time, name.to_owned())));
}

#[test]
fn a_tracer_that_fails_is_stopped_and_the_others_go_on() {
    let mut agent = start(&["good", "other"]);
    calls();
    world(|world| world.fails = Some("good"));
    let mut recorder = Recorder::default();
    let report = agent.collect(&mut recorder);
    assert_eq!(calls(), ["drop good", "collect other"]);
    assert_eq!(report.tracers.iter().map(|tracer| tracer.name).collect::<Vec<_>>(), ["other"]);
    assert!(report.failures[0].name == "good" && report.failures[0].counts);
    assert!(!agent.is_idle());
    world(|world| world.fails = Some("other"));
    poll_for(&mut agent, Duration::from_millis(600), &mut recorder);
    assert!(agent.is_idle());
}

#[test]
fn filters_change_while_it_runs_and_settings_by_starting_again() {
    let mut agent = start(&["good", "other"]);
    let mut recorder = Recorder::default();
    calls();
    let mut changed = config(&["good", "other"]);
    changed.filter.comm = Some("a".to_owned());
    agent.reload(changed.clone(), &mut recorder).unwrap();
    assert_eq!(calls(), ["filter good Some(\"a\")", "filter other Some(\"a\")"]);

    world(|world| world.needs_restart = true);
    changed.filter.comm = Some("b".to_owned());
    changed.tracers.remove("other");
    agent.reload(changed.clone(), &mut recorder).unwrap();
    assert_eq!(
        calls(),
        ["collect other", "drop other", "collect good", "drop good", "start good Some(\"b\")"],
        "nothing that was counted is lost"
    );
    assert_eq!(recorder.numbers.values().sum::<f64>(), 2.0);

    changed.settings.profile.frequency += 1;
    agent.reload(changed.clone(), &mut recorder).unwrap();
    assert_eq!(calls(), ["collect good", "drop good", "start good Some(\"b\")"]);
    agent.reload(changed, &mut recorder).unwrap();
    assert_eq!(calls(), [""; 0], "nothing has changed");
}

#[test]
fn what_was_dropped_is_known_after_a_reload_and_a_failure() {
    let mut agent = start(&["good", "other"]);
    let mut recorder = Recorder::default();
    let dropped = |report: &Report, name: &str| {
        let running = report.tracers.iter().find(|tracer| tracer.name == name).map(|tracer| &tracer.stats);
        let ended = report.ended.iter().find(|(own, _)| *own == name).map(|(_, stats)| stats);
        assert!(running.is_none() || ended.is_none(), "one or the other");
        (running.is_some(), running.or(ended).map(|stats| (stats.hits, stats.total_dropped())))
    };
    world(|world| world.drops = 3);
    let mut report = agent.collect(&mut recorder);
    assert_eq!(dropped(&report, "good"), (true, Some((3, 3))));
    world(|world| world.late_drops = 1);
    let window = report.window;
    agent.settle(None, &mut report, &mut recorder);
    assert_eq!(dropped(&report, "good"), (true, Some((4, 4))), "given up after the window");
    assert_eq!(report.window, window);
    let mut changed = config(&["good", "other"]);
    for drops in [(5, 9), (0, 9), (2, 11)] {
        // Dropped since the last window.
        world(|world| world.drops = drops.0);
        changed.settings.profile.frequency += 1;
        agent.reload(changed.clone(), &mut recorder).unwrap();
        let report = agent.report();
        assert_eq!(dropped(&report, "good"), (true, Some((drops.1, drops.1))));
        assert_eq!(dropped(&report, "other"), (true, Some((0, 0))));
    }
    world(|world| (world.drops, world.fails) = (4, Some("good")));
    let report = agent.collect(&mut recorder);
    assert_eq!(dropped(&report, "good"), (false, Some((15, 15))), "it failed");
    changed.tracers.remove("other");
    agent.reload(changed, &mut recorder).unwrap();
    assert_eq!(dropped(&agent.report(), "other"), (false, Some((0, 0))), "it was stopped");
}

#[test]
fn a_filter_that_names_nothing_changes_nothing() {
    let mut agent = start(&["good"]);
    let mut recorder = Recorder::default();
    calls();
    let mut wrong = config(&["good"]);
    wrong.filter.cgroup = Some("/no/such/cgroup".into());
    assert!(agent.reload(wrong, &mut recorder).is_err());
    assert_eq!(calls(), [""; 0]);
    assert_eq!(agent.config(), &config(&["good"]));
}

#[test]
fn a_tracer_that_ran_and_cannot_start_again_has_failed() {
    let mut agent = start(&["good", "other"]);
    let mut recorder = Recorder::default();
    let mut changed = config(&["good", "other"]);
    changed.settings.profile.frequency += 1;
    changed.tracers.values_mut().for_each(|tracer| tracer.asked = false);
    world(|world| world.refuses = true);
    agent.reload(changed, &mut recorder).unwrap();
    let failures: Vec<_> = agent.failures().iter().map(|failure| (failure.name, failure.counts)).collect();
    assert_eq!(failures, [("good", true)]);
}

#[test]
fn a_window_in_whose_middle_a_tracer_is_detached_is_covered_in_part() {
    let mut agent = start(&["good"]);
    let mut recorder = Recorder::default();
    agent.collect(&mut recorder);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(agent.collect(&mut recorder).tracers[0].coverage, 1.0);
    std::thread::sleep(Duration::from_millis(50));
    agent.slots_mut()[0].set_attached(false).unwrap();
    std::thread::sleep(Duration::from_millis(150));
    let coverage = agent.collect(&mut recorder).tracers[0].coverage;
    assert!((0.05..0.6).contains(&coverage), "{coverage}");
    // What is detached at the very end was attached all the time until then.
    agent.slots_mut()[0].set_attached(true).unwrap();
    agent.collect(&mut recorder);
    agent.detach();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(agent.collect(&mut recorder).tracers[0].coverage, 1.0);
}

#[test]
fn a_costly_tracer_is_attached_part_of_the_time_and_says_so() {
    let mut agent = start(&["good", "other"]);
    let mut quick = config(&["good", "other"]);
    quick.agent.cpu_limit = 1.0;
    let mut recorder = Recorder::default();
    agent.reload(quick, &mut recorder).unwrap();
    agent.set_ticks(Duration::from_millis(100));
    agent.collect(&mut recorder);
    calls();
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        // At least 58 ns each: a good part of a core.
        world(|world| world.hits += if world.paused.contains(&"good") { 0 } else { 20_000 });
        agent.poll(Instant::now() + Duration::from_millis(2), &mut recorder).unwrap();
    }
    let notes = agent.take_notes();
    assert!(notes.iter().any(|note| note.starts_with("good: attached ")), "{notes:?}");
    let report = agent.collect(&mut recorder);
    let coverage = |name: &str| report.tracers.iter().find(|tracer| tracer.name == name).unwrap().coverage;
    assert!(coverage("good") < 0.9 && coverage("good") > 0.0, "{}", coverage("good"));
    assert_eq!(coverage("other"), 1.0, "exactly: its counts are exact");
    let calls = calls();
    let count = |what: &str| calls.iter().filter(|call| *call == what).count();
    assert!(count("pause good") >= 3 && count("resume good") >= 2 && count("pause other") == 0, "{calls:?}");
}

#[test]
fn nothing_is_attached_after_detach_and_all_is_collected() {
    let mut agent = start(&["good", "other"]);
    calls();
    agent.detach();
    let mut recorder = Recorder::default();
    agent.collect(&mut recorder);
    assert_eq!(calls(), ["pause good", "pause other", "collect good", "collect other"]);
    drop(agent);
    assert_eq!(calls(), ["drop good", "drop other"]);
}

#[test]
#[cfg_attr(not(feature = "listen"), ignore = "without the feature `listen`")]
fn the_endpoint_answers_in_the_same_loop() {
    let mut config = config(&["good", "broken"]);
    config.tracers.get_mut("broken").unwrap().asked = true;
    config.agent.listen = Some("127.0.0.1:0".parse().unwrap());
    let mut agent = Agent::start_some(ALL, config, Duration::from_secs(1)).unwrap();
    agent.set_metrics("x 1\n".into());
    let address = agent.address().unwrap();
    let client = std::thread::spawn(move || {
        let get = |path: &str| {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        };
        ["/healthz", "/readyz", "/metrics"].map(get)
    });
    let mut recorder = Recorder::default();
    while !client.is_finished() {
        agent.poll(Instant::now() + Duration::from_millis(20), &mut recorder).unwrap();
    }
    let [health, ready, metrics] = client.join().unwrap();
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("broken: this kernel"), "{ready}");
    assert!(metrics.ends_with("\r\n\r\nx 1\n"), "{metrics}");
}
