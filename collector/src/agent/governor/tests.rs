use super::*;

const TICK: Duration = Duration::from_secs(2);

/// Tracers whose cost follows a load as real ones' does.
struct Plant {
    governor: Governor,
    changes: Vec<Change>,
}

/// Costs at a load of 1, as shares of one core: what sampling cannot save, and what it can.
const COSTS: [(&str, bool, f64, f64); 3] =
    [("syscalls", true, 0.7, 0.3), ("profile", false, 0.1, 0.0), ("tcp", true, 0.0, 0.05)];

impl Plant {
    fn new(limit: f64) -> Self {
        let mut governor = Governor::new(limit, Duration::from_secs(10));
        COSTS.iter().for_each(|(name, samples, _, _)| governor.add(name, *samples));
        Self { governor, changes: Vec::new() }
    }

    fn cost(&self, load: f64) -> f64 {
        let of = |(name, _, fixed, sampled): &(&str, bool, f64, f64)| {
            let Allowance { one_in, attached } = self.governor.allowance(name);
            load * attached * (fixed + sampled / f64::from(one_in))
        };
        COSTS.iter().map(of).sum()
    }

    fn run(&mut self, ticks: usize, load: impl Fn(usize) -> f64) -> Vec<f64> {
        (0..ticks)
            .map(|tick| {
                let readings: Vec<Reading> = COSTS
                    .iter()
                    .map(|(tracer, _, fixed, sampled)| {
                        let Allowance { one_in, attached } = self.governor.allowance(tracer);
                        let hooks = load(tick) * attached * (fixed + sampled / f64::from(one_in));
                        Reading { tracer, hooks: TICK.mul_f64(hooks), own: Duration::ZERO }
                    })
                    .collect();
                self.changes.extend(self.governor.tick(TICK, Duration::ZERO, &readings));
                self.cost(load(tick))
            })
            .collect()
    }

    fn allowances(&self) -> Vec<Allowance> {
        COSTS.iter().map(|(name, _, _, _)| self.governor.allowance(name)).collect()
    }
}

#[test]
fn nothing_is_taken_below_the_limit() {
    let mut plant = Plant::new(1.0);
    plant.run(500, |_| 0.008);
    assert_eq!(plant.changes, []);
}

#[test]
fn sampling_is_taken_first_then_time_and_the_limit_holds() {
    let mut plant = Plant::new(1.0);
    // 34 % of a core: a million system calls a second.
    let costs = plant.run(100, |_| 0.34);
    assert!(costs[40..].iter().all(|cost| *cost <= 0.01), "{costs:?}");
    assert!(costs[40..].iter().all(|cost| *cost > 0.004), "not more than needed: {costs:?}");
    let first = plant.changes[0];
    assert_eq!((first.tracer, first.to.one_in, first.to.attached), ("syscalls", 32, 1.0));
    let kinds: Vec<bool> =
        plant.changes.iter().map(|change| change.to.attached != change.from.attached).collect();
    assert!(kinds.contains(&true), "sampling alone cannot do it");
    assert!(plant.governor.allowance("syscalls").attached < 0.1);
}

#[test]
fn a_light_tracer_is_left_alone_while_a_heavy_one_is_to_blame() {
    let mut plant = Plant::new(10.0);
    plant.run(200, |_| 0.3);
    assert_eq!(plant.governor.allowance("tcp"), Allowance::FULL);
    assert_eq!(plant.governor.allowance("profile"), Allowance::FULL);
}

#[test]
fn everything_is_given_back_when_the_load_is_gone() {
    let mut plant = Plant::new(1.0);
    plant.run(100, |_| 0.5);
    assert_ne!(plant.allowances(), [Allowance::FULL; 3]);
    plant.run(400, |_| 0.001);
    assert_eq!(plant.allowances(), [Allowance::FULL; 3]);
    assert!(!plant.governor.is_stuck());
}

#[test]
fn a_load_at_the_edge_does_not_make_it_swing() {
    for load in [0.009, 0.0101, 0.011, 0.013, 0.02, 0.05] {
        let mut plant = Plant::new(1.0);
        let costs = plant.run(2000, |_| load);
        let over = costs[20..].iter().filter(|cost| **cost > 0.01).count();
        assert!(over < 60, "{load}: over the limit in {over} of 2000 ticks");
        let late = plant.changes.len();
        plant.run(1000, |_| load);
        let swings = plant.changes.len() - late;
        assert!(
            swings <= 20,
            "{load}: {swings} changes in 1000 ticks that were alike: {:?}",
            &plant.changes[late..]
        );
    }
}

#[test]
fn a_load_that_comes_and_goes_is_followed_ever_less_eagerly() {
    let mut plant = Plant::new(1.0);
    // 40 s of load, 40 s without.
    plant.run(2000, |tick| if tick / 20 % 2 == 0 { 0.3 } else { 0.0 });
    let late = plant.changes.len();
    let costs = plant.run(1000, |tick| if tick / 20 % 2 == 0 { 0.3 } else { 0.0 });
    let over = costs.iter().filter(|cost| **cost > 0.01).count();
    assert!(over < 250, "over in {over} of 1000 ticks");
    assert!(plant.changes.len() - late < 400);
}

#[test]
fn bursts_of_the_process_itself_are_averaged() {
    let mut governor = Governor::new(1.0, Duration::from_secs(10));
    governor.add("profile", false);
    // Names are looked up when windows end: 80 ms every 10 s are 0.8 %.
    let tick = |governor: &mut Governor, millis: u64| {
        let own = Duration::from_millis(millis);
        governor.tick(TICK, Duration::ZERO, &[Reading { tracer: "profile", hooks: Duration::ZERO, own }])
    };
    for round in 0..600 {
        let change = tick(&mut governor, if round % 5 == 4 { 70 } else { 0 });
        assert_eq!(change, None, "{round}");
    }
    let changes = (0..100).filter_map(|round| tick(&mut governor, if round % 5 == 4 { 300 } else { 0 }));
    assert!(changes.count() > 0, "3 % are too much");
}

#[test]
fn without_a_limit_nothing_is_taken_and_all_is_given_back() {
    let mut plant = Plant::new(0.0);
    plant.run(100, |_| 1.0);
    assert_eq!(plant.changes, []);
    plant.governor.set_limit(1.0);
    plant.run(100, |_| 1.0);
    plant.governor.set_limit(0.0);
    plant.run(10, |_| 1.0);
    assert_eq!(plant.allowances(), [Allowance::FULL; 3]);
}

#[test]
fn it_says_when_there_is_nothing_left_to_take() {
    let mut governor = Governor::new(1.0, Duration::from_secs(10));
    governor.add("profile", false);
    let all = Duration::from_millis(500);
    let reading = [Reading { tracer: "profile", hooks: Duration::ZERO, own: Duration::ZERO }];
    for _ in 0..50 {
        governor.tick(TICK, all, &reading);
    }
    assert!(governor.is_stuck());
    assert_eq!(governor.tick(Duration::ZERO, all, &reading), None);
}

#[test]
fn changes_are_told_in_words() {
    let from = Allowance::FULL;
    let change = |to| Change { tracer: "syscalls", from, to, cost: 0.0234, limit: 0.01 }.to_string();
    assert_eq!(
        change(Allowance { one_in: 4, ..from }),
        "syscalls: samples one in 4 (before: 1), as tracing costs 2.34 % of a core and the limit is 1 %"
    );
    assert_eq!(
        change(Allowance { attached: 0.125, ..from }),
        "syscalls: attached 12.5 % of the time (before: 100 %), as tracing costs 2.34 % of a core and the limit is 1 %"
    );
}

/// A tracer whose own part comes at the end of windows of 10 s, after a tick of 2 s or 10 s as it is attached.
struct Bursts {
    governor: Governor,
    changes: Vec<Change>,
    time: Duration,
    /// Work for the next end of a window, which follows what was traced; a part is the same whatever that was.
    work: f64,
}

impl Bursts {
    const NAME: &'static str = "profile";

    fn new() -> Self {
        let mut governor = Governor::new(1.0, Duration::from_secs(10));
        governor.add(Self::NAME, true);
        Self { governor, changes: Vec::new(), time: Duration::ZERO, work: 0.0 }
    }

    /// Costs of a core at full allowance: hooks, and work at ends of windows. Returns the true cost of all of the time.
    fn run(&mut self, time: Duration, hooks: f64, work: f64) -> f64 {
        let (end, mut spent) = (self.time + time, 0.0);
        let start = self.time;
        while self.time < end {
            let Allowance { one_in, attached } = self.governor.allowance(Self::NAME);
            let length = if attached < 1.0 { 5 * TICK } else { TICK };
            let share = attached / f64::from(one_in);
            self.work += length.as_secs_f64() * (work * attached);
            let windows = |time: Duration| time.as_secs() / 10;
            let ended = windows(self.time + length) > windows(self.time);
            self.time += length;
            let own = if ended { std::mem::take(&mut self.work) } else { 0.0 };
            let hooks = length.as_secs_f64() * hooks * share;
            spent += own + hooks;
            let reading = Reading {
                tracer: Self::NAME,
                hooks: Duration::from_secs_f64(hooks),
                own: Duration::from_secs_f64(own),
            };
            self.changes.extend(self.governor.tick(length, Duration::ZERO, &[reading]));
        }
        spent / (self.time - start).as_secs_f64()
    }
}

#[test]
fn work_at_ends_of_windows_is_kept_below_the_limit_without_swinging() {
    for (hooks, work) in [(0.002, 0.02), (0.0, 0.05), (0.05, 0.0), (0.03, 0.03), (0.0, 0.3)] {
        let mut plant = Bursts::new();
        plant.run(Duration::from_secs(300), hooks, work);
        let late = plant.changes.len();
        let cost = plant.run(Duration::from_secs(3600), hooks, work);
        assert!((0.004..=0.0105).contains(&cost), "{hooks} + {work}: {cost}");
        let swings = plant.changes.len() - late;
        assert!(swings <= 60, "{hooks} + {work}: {swings} changes in an hour: {:?}", &plant.changes[late..]);
        plant.run(Duration::from_secs(1200), 0.0001, 0.0001);
        assert_eq!(plant.governor.allowance(Bursts::NAME), Allowance::FULL, "{hooks} + {work}");
    }
}

#[test]
fn sampling_is_judged_by_hooks_which_show_it_at_once() {
    let mut plant = Bursts::new();
    plant.run(Duration::from_secs(60), 0.05, 0.004);
    assert!(plant.changes.iter().all(|change| change.to.attached == 1.0), "{:?}", plant.changes);
    assert!(plant.governor.allowance(Bursts::NAME).one_in >= 8);
}

#[test]
fn a_change_that_nobody_would_notice_is_none() {
    let mut plant = Bursts::new();
    plant.run(Duration::from_secs(3000), 2.0, 3.0);
    for change in &plant.changes {
        let (from, to) = (change.from.attached, change.to.attached);
        assert!(
            change.from.one_in != change.to.one_in || (from - to).abs() > from.min(to) * 0.09,
            "{change}"
        );
    }
    assert!(plant.governor.is_stuck());
}

#[test]
fn a_tracer_is_not_told_to_sample_less_than_it_can() {
    let mut governor = Governor::new(1.0, Duration::from_secs(10));
    governor.add("profile", true);
    let reading = [Reading { tracer: "profile", hooks: TICK, own: Duration::ZERO }];
    let changes: Vec<Change> = (0..20)
        .filter_map(|_| {
            let change = governor.tick(TICK, Duration::ZERO, &reading);
            // It takes a sample a second at least.
            let one_in = governor.allowance("profile").one_in.min(19);
            governor.samples("profile", one_in);
            change
        })
        .collect();
    assert_eq!(governor.allowance("profile").one_in, 19);
    assert_eq!(changes.iter().filter(|change| change.from.one_in != change.to.one_in).count(), 1);
}

#[test]
fn what_the_process_does_for_all_is_theirs_whom_it_serves() {
    let mut governor = Governor::new(10.0, Duration::from_secs(30));
    ["tcp", "udp"].iter().for_each(|name| governor.add(name, false));
    let own = |tracer, millis| Reading { tracer, hooks: Duration::ZERO, own: Duration::from_millis(millis) };
    for _ in 0..200 {
        governor.tick(TICK, Duration::from_millis(40), &[own("tcp", 30), own("udp", 10)]);
    }
    let (tcp, udp) = (governor.cost_of("tcp"), governor.cost_of("udp"));
    assert!((tcp / udp - 3.0).abs() < 0.01 && (governor.cost() - tcp - udp).abs() < 1e-9, "{tcp} {udp}");
    assert!((0.035..0.045).contains(&governor.cost()), "{}", governor.cost());
}

#[test]
fn the_past_fades_as_an_exponential() {
    for step in 0..=400 {
        let time = f64::from(step) / 100.0;
        assert!((kept(time) / (-time).exp() - 1.0).abs() < 1e-3 * time.max(1e-12), "{time}");
    }
    assert_eq!((kept(0.0), kept(1e9), kept(f64::INFINITY)), (1.0, 0.0, 0.0));
    assert!((kept(0.25) - (-0.25_f64).exp()).abs() < 1e-7 && (kept(1.0) - (-1_f64).exp()).abs() < 1e-5);
}
