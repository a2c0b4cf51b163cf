//! What a receiver adds up is what went in, whatever happens in between.

use super::*;

const METRICS: [&Metric; 3] = [&CALLS, &BYTES, &TIMES];
const KEYS: [&str; 4] = ["a", "b", "c", "d"];
const SERVICES: u64 = 5;

/// A receiver that believes start times, as the data model wants.
#[derive(Default)]
struct Receiver {
    /// Of each stream: start, time and value of the last point.
    last: BTreeMap<String, (u64, u64, f64)>,
    /// What all streams of a metric, key and service add up to.
    sums: BTreeMap<(String, String, String), f64>,
    /// States in the last flush.
    states: BTreeMap<String, f64>,
}

impl Receiver {
    fn take(&mut self, points: Vec<Got>) {
        self.states.clear();
        for got in points {
            let key = got.attributes.get("k").cloned().unwrap_or_else(|| "overflow".to_owned());
            if got.metric == HELD.name {
                *self.states.entry(got.service().to_owned()).or_default() += got.value;
                continue;
            }
            let stream = format!("{:?} {} {:?}", got.resource, got.metric, got.attributes);
            assert!(got.start > 0 && got.start <= got.time, "{got:?}");
            let last = self.last.insert(stream, (got.start, got.time, got.value));
            let more = match last {
                None => got.value,
                Some((start, time, value)) => {
                    assert!(got.time > time, "{got:?} after {time}");
                    if got.start == start && !got.is_delta {
                        assert!(got.value >= value, "{got:?} after {value}");
                        got.value - value
                    } else {
                        // Nothing is in two intervals.
                        assert!(got.start >= time, "{got:?} after {time}");
                        got.value
                    }
                }
            };
            *self.sums.entry((got.service().to_owned(), got.metric, key)).or_default() += more;
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// A run of random events; `series` is the memory for series.
fn run(seed: u64, temporality: Temporality, series: usize, per_process: bool) {
    let mut random = Random(seed);
    let proc = FakeProc::new();
    // By how much the wall clock was set forward.
    let mut set = 0;
    let wall = |now: u64, set: u64| Reading { unix_nanos: at(now + set).unix_nanos, ..at(now) };
    let fresh = |now: Reading| {
        let memory = Memory { series, ..Memory::split(8 << 20) };
        let settings = Settings { memory, per_process, ..settings(proc.host(), temporality) };
        Pipeline::new(settings, now).unwrap()
    };
    let mut now = 100;
    let mut pipeline = fresh(wall(now, set));
    let mut receiver = Receiver::default();
    let mut sums: BTreeMap<(String, String, String), f64> = BTreeMap::new();
    // Pid to service, start in ticks, and held bytes.
    let mut living: BTreeMap<u32, (u64, u64, i64)> = BTreeMap::new();
    // Numbers of those that ended in this window, and of whom nobody told.
    let mut silent = BTreeSet::new();
    let mut folds = 0;
    for _ in 0..600 {
        match random.below(20) {
            0..=2 => {
                // Few numbers, so that they are used again; without an event, in another window.
                let pid = 10 + random.below(12) as u32;
                let service = random.below(SERVICES);
                if silent.contains(&pid) || (per_process && living.contains_key(&pid)) {
                    continue;
                }
                if let Some((_, ticks, _)) = living.remove(&pid) {
                    exited(&mut pipeline, pid, ticks * 10_000_000);
                }
                let ticks = now * 100 - random.below(3);
                now += 1;
                // Services of two executables.
                let path = format!("/bin/x{}", random.below(2));
                proc.add(pid, ticks, &path, "/", &format!("OTEL_SERVICE_NAME=s{service}\0"));
                living.insert(pid, (service, ticks, 0));
            }
            3 => {
                let Some(&pid) = living.keys().nth(random.below(living.len().max(1) as u64) as usize) else {
                    continue;
                };
                let (_, ticks, _) = living.remove(&pid).unwrap();
                proc.remove(pid);
                let is_told = random.below(2) == 0;
                if is_told {
                    exited(&mut pipeline, pid, ticks * 10_000_000);
                }
                // Two processes of one number in one window would be one resource in one request.
                if !is_told || per_process {
                    silent.insert(pid);
                }
            }
            4..=5 => {
                now += 1 + random.below(9);
                // States are told in every window by those who live.
                for (pid, (.., held)) in &living {
                    number(&HELD, of(*pid), "h", *held)(&mut pipeline);
                }
                let got = points(&flush(&mut pipeline, wall(now, set)));
                receiver.take(got);
                // Who was looked at in this window and ended without an event is found out in the next.
                let all_told = silent.is_empty();
                silent.clear();
                let stats = pipeline.stats().series;
                folds += stats.folded;
                assert_eq!(stats.refused, 0);
                if stats.lost == 0 && all_told {
                    let mut states: BTreeMap<String, f64> = BTreeMap::new();
                    for (service, _, held) in living.values() {
                        *states.entry(format!("s{service}")).or_default() += *held as f64;
                    }
                    let of = |states: &BTreeMap<String, f64>| {
                        states
                            .iter()
                            .filter(|(_, n)| **n != 0.0)
                            .map(|(s, n)| (s.clone(), *n))
                            .collect::<Vec<_>>()
                    };
                    assert_eq!(of(&receiver.states), of(&states));
                }
            }
            6 if random.below(8) == 0 => {
                // The agent is restarted: it flushes, and begins anew.
                now += 1;
                receiver.take(points(&flush(&mut pipeline, wall(now, set))));
                now += random.below(50);
                pipeline = fresh(wall(now, set));
            }
            7 if random.below(8) == 0 => set += 1 + random.below(1000),
            _ => {
                let Some((pid, process_of)) = living.iter_mut().nth(random.below(6) as usize) else {
                    continue;
                };
                let (service, _, held) = process_of;
                let metric = METRICS[random.below(3) as usize];
                let key = KEYS[random.below(4) as usize];
                let value = random.below(1000);
                *held += value as i64 - 300;
                let attributes: [Attribute<'_>; 1] = [("k", key.into())];
                let mut histogram = Exponential::new(random.below(2) as u8 * 2);
                histogram.add_slot(random.below(60) as u32, value);
                let value_of_point = match metric.instrument {
                    Instrument::Histogram => PointValue::Histogram(&histogram),
                    _ => PointValue::Int(value as i64),
                };
                let owner = of(*pid);
                pipeline.point(Point { metric, owner, attributes: &attributes, value: value_of_point });
                let of = (format!("s{service}"), metric.name.to_owned(), key.to_owned());
                *sums.entry(of).or_default() += value as f64;
            }
        }
    }
    now += 1;
    receiver.take(points(&flush(&mut pipeline, wall(now, set))));
    sums.retain(|_, n| *n != 0.0);
    receiver.sums.retain(|_, n| *n != 0.0);
    if folds == 0 {
        assert_eq!(receiver.sums, sums, "seed {seed}");
    } else {
        // By metric, with what was folded.
        let by_metric = |sums: &BTreeMap<(String, String, String), f64>| {
            let mut all: BTreeMap<String, f64> = BTreeMap::new();
            sums.iter().for_each(|((_, metric, _), n)| *all.entry(metric.clone()).or_default() += n);
            all
        };
        assert_eq!(by_metric(&receiver.sums), by_metric(&sums), "seed {seed}");
    }
}

#[test]
fn what_arrives_is_what_went_in() {
    for seed in 0..9 {
        for temporality in [Temporality::Cumulative, Temporality::Delta, Temporality::LowMemory] {
            run(seed, temporality, 4 << 20, seed % 3 == 0);
        }
    }
}

#[test]
fn nothing_is_lost_where_there_is_no_room() {
    for seed in 100..104 {
        for temporality in [Temporality::Cumulative, Temporality::Delta] {
            run(seed, temporality, 3000, false);
        }
    }
}
