//! Keeps the cost of tracing under its limit. A pure state machine: readings come in, changes go out.
//!
//! Cost is what the agent's process spends and what its hooks cost the processes that hit them, as a share of one core.
//! Above the limit, first less is sampled, which leaves counts exact; where that does not help, or there is nothing to sample,
//! the costliest tracer is attached only part of the time, and its coverage says so. Below the limit for long enough, what was
//! taken is given back step by step, as far as it is predicted to fit. A step back that had to be undone soon makes the next
//! one wait twice as long, so that a load at the edge does not make it swing.

use crate::sorted::SortedMap;
use crate::units::{share_of, show_decimal, show_fixed};
use std::fmt;
use std::time::Duration;

/// What is aimed at, as a share of the limit.
const AIM: f64 = 0.8;
/// Below this share of the limit, something is given back.
const LOW: f64 = 0.6;
/// Above this many limits, nobody waits for a second tick.
const URGENT: f64 = 1.5;
/// Time above the limit before something is taken, and time that a change is given to show its effect in hooks.
const SETTLE: Duration = Duration::from_secs(4);
/// Longest calm that is waited for before something is given back.
const MOST_PATIENCE: Duration = Duration::from_secs(640);
/// Calm times after which an old regret is forgotten, in times of [`Governor::regret`].
const FORGET: u32 = 4;
/// Sparsest sampling.
pub const MAX_ONE_IN: u32 = 1024;
/// Least share of the time for which a tracer is attached.
pub const MIN_ATTACHED: f64 = 0.01;
/// Most that sampling gets sparser at once.
const MAX_SPARSER: u32 = 32;
/// Sampling that saves less than this share of what a tracer's hooks cost is no help.
const HELPS: f64 = 0.2;
/// A change of the time attached by less than this is not worth making.
const NOTICEABLE: f64 = 0.1;
/// Most that is given back at once.
const MOST_GIVEN: f64 = 4.0;

/// What one tracer cost in a tick.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// Which.
    pub tracer: &'static str,
    /// What its hooks cost others.
    pub hooks: Duration,
    /// What the agent's process spent on it.
    pub own: Duration,
}

/// How much a tracer may do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Allowance {
    /// One in so many of what may be sampled.
    pub one_in: u32,
    /// Share of the time for which it is attached.
    pub attached: f64,
}

impl Allowance {
    /// Everything.
    pub const FULL: Self = Self { one_in: 1, attached: 1.0 };
}

/// A decision, to be carried out and told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// Whose.
    pub tracer: &'static str,
    /// What it was allowed.
    pub from: Allowance,
    /// What it is allowed now.
    pub to: Allowance,
    /// Cost of everything, as a share of one core.
    pub cost: f64,
    /// The limit.
    pub limit: f64,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.tracer)?;
        if self.to.one_in != self.from.one_in {
            write!(f, "samples one in {} (before: {})", self.to.one_in, self.from.one_in)?;
        } else {
            let percent = |share: f64| show_decimal(f64::from((share * 1000.0 + 0.5) as u32) / 10.0);
            write!(
                f,
                "attached {} % of the time (before: {} %)",
                percent(self.to.attached),
                percent(self.from.attached)
            )?;
        }
        write!(
            f,
            ", as tracing costs {} % of a core and the limit is {} %",
            show_fixed(self.cost * 100.0, 2),
            show_decimal(self.limit * 100.0)
        )
    }
}

#[derive(Debug)]
struct State {
    allowance: Allowance,
    /// Sparsest sampling that it knows; 1 where there is nothing to sample.
    sparsest: u32,
    /// Sampling less has shown no effect.
    sampling_is_no_help: bool,
    /// What hooks cost when sampling was made sparser, to see whether that helps.
    hooks_before: Option<f64>,
    /// What the process spends on it, and on what it has told.
    own: Smooth,
    /// Shares of one core in the last tick: of the hooks, and of everything.
    hooks: f64,
    cost: f64,
}

/// What is left of the past after so much of the horizon: `exp(-time)`, to five digits or more where it matters. The real one has
/// a table of 2 KB.
fn kept(time: f64) -> f64 {
    let small = time / 256.0;
    let grown = 1.0 + small + small * small / 2.0;
    1.0 / (0..8).fold(grown, |power, _| power * power)
}

/// A mean that forgets. It begins at nothing, so that what starting takes is no reason for anything.
#[derive(Debug, Default)]
struct Smooth {
    sum: f64,
}

impl Smooth {
    fn add(&mut self, value: Duration, elapsed: Duration, horizon: Duration) -> f64 {
        let (horizon, elapsed) = (horizon.as_secs_f64(), elapsed.as_secs_f64());
        let kept = kept(elapsed / horizon);
        // So that what is the same in every tick is what it tends to, however long ticks are.
        self.sum = self.sum * kept + value.as_secs_f64() * (1.0 - kept) * horizon / elapsed;
        self.sum / horizon
    }

    /// What was cheap or dear about the time so far will be so many times as much.
    fn scale(&mut self, factor: f64) {
        self.sum *= factor;
    }
}

/// The state machine.
#[derive(Debug)]
pub struct Governor {
    /// Share of one core; 0: no limit.
    limit: f64,
    /// What the process itself spends comes in bursts, when windows end: over how long it is averaged.
    horizon: Duration,
    tracers: SortedMap<&'static str, State>,
    cost: f64,
    since_change: Duration,
    /// Time since something was given back.
    since_given: Duration,
    over: Duration,
    calm: Duration,
    patience: Duration,
    settle: Duration,
    stuck: bool,
}

impl Governor {
    /// With a limit in percent of one core, 0 for none, and windows of this length.
    pub fn new(limit_percent: f64, interval: Duration) -> Self {
        let horizon = interval.clamp(Duration::from_secs(30), Duration::from_secs(120));
        Self {
            limit: limit_percent / 100.0,
            horizon,
            tracers: SortedMap::new(),
            cost: 0.0,
            since_change: Duration::ZERO,
            since_given: Duration::MAX,
            over: Duration::ZERO,
            calm: Duration::ZERO,
            // Sooner, what was given back does not show in what the process spends.
            patience: horizon,
            settle: SETTLE,
            stuck: false,
        }
    }

    #[cfg(test)]
    pub(super) fn set_settle(&mut self, settle: Duration) {
        self.settle = settle;
    }

    /// A step back is regretted if the limit is passed within this time.
    fn regret(&self) -> Duration {
        self.horizon + self.horizon / 2
    }

    /// Another limit, from now on.
    pub fn set_limit(&mut self, limit_percent: f64) {
        self.limit = limit_percent / 100.0;
        (self.over, self.calm, self.stuck) = (Duration::ZERO, Duration::ZERO, false);
    }

    /// A tracer that started; `samples` if its sampling can be changed.
    pub fn add(&mut self, tracer: &'static str, samples: bool) {
        let state = State {
            allowance: Allowance::FULL,
            sparsest: if samples { MAX_ONE_IN } else { 1 },
            sampling_is_no_help: false,
            hooks_before: None,
            own: Smooth::default(),
            hooks: 0.0,
            cost: 0.0,
        };
        self.tracers.insert(tracer, state);
    }

    /// A tracer that ended.
    pub fn remove(&mut self, tracer: &str) {
        self.tracers.remove(tracer);
    }

    /// A tracer samples one in so many now; where that is less sparse than it was told to, it knows no sparser.
    pub fn samples(&mut self, tracer: &str, one_in: u32) {
        if let Some(state) = self.tracers.get_mut(tracer) {
            if one_in < state.allowance.one_in {
                state.sparsest = one_in;
            }
            state.allowance.one_in = one_in;
        }
    }

    /// What a tracer is allowed.
    pub fn allowance(&self, tracer: &str) -> Allowance {
        self.tracers.get(tracer).map_or(Allowance::FULL, |state| state.allowance)
    }

    /// Cost of everything in the last tick, as a share of one core.
    pub fn cost(&self) -> f64 {
        self.cost
    }

    /// Cost of one tracer in the last tick, as a share of one core, with its part of what the process does for all.
    pub fn cost_of(&self, tracer: &str) -> f64 {
        self.tracers.get(tracer).map_or(0.0, |state| state.cost)
    }

    /// Whether the limit is passed, though there is nothing left to take.
    pub fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Takes in what the tracers cost in the time that has passed, and `rest`, what the process spent on no tracer; decides.
    pub fn tick(&mut self, elapsed: Duration, rest: Duration, readings: &[Reading]) -> Option<Change> {
        if elapsed.is_zero() {
            return None;
        }
        // The rest is work on what the tracers told: names, series, export. So it is theirs, by what was spent on each.
        let own: f64 = readings.iter().map(|reading| reading.own.as_secs_f64()).sum();
        self.cost = 0.0;
        for reading in readings {
            let Some(state) = self.tracers.get_mut(reading.tracer) else { continue };
            let part = if own > 0.0 { reading.own.as_secs_f64() / own } else { 1.0 / readings.len() as f64 };
            state.hooks = reading.hooks.as_secs_f64() / elapsed.as_secs_f64();
            let spent = state.own.add(reading.own + share_of(rest, part), elapsed, self.horizon);
            state.cost = state.hooks + spent;
            self.cost += state.cost;
        }
        let cost = self.cost;
        self.since_change = self.since_change.saturating_add(elapsed);
        self.since_given = self.since_given.saturating_add(elapsed);
        if self.limit <= 0.0 {
            return self.give_all();
        }
        if cost > self.limit {
            self.calm = Duration::ZERO;
            self.over += elapsed;
        } else {
            self.over = Duration::ZERO;
            self.stuck = false;
            self.calm = if cost < self.limit * LOW { self.calm + elapsed } else { Duration::ZERO };
        }
        if self.since_change < self.settle {
            return None;
        }
        self.judge_sampling();
        if self.over >= self.settle || cost > self.limit * URGENT {
            return self.take();
        }
        if self.since_given.min(self.since_change) > self.regret() * FORGET {
            self.patience = self.horizon;
        }
        if self.calm >= self.patience { self.give() } else { None }
    }

    /// Sees whether the sparser sampling of late has helped. Only hooks show that so soon.
    fn judge_sampling(&mut self) {
        for state in self.tracers.values_mut() {
            if let Some(before) = state.hooks_before.take() {
                state.sampling_is_no_help = state.hooks > before * (1.0 - HELPS);
            }
        }
    }

    /// The costliest first.
    fn by_cost(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.tracers.iter().map(|(name, state)| (state.cost, *name)).collect();
        names.sort_unstable_by(|(a, x), (b, y)| b.total_cmp(a).then_with(|| x.cmp(y)));
        names.into_iter().map(|(_, name)| name).collect()
    }

    fn take(&mut self) -> Option<Change> {
        if self.since_given <= self.regret() {
            self.patience = (self.patience * 2).min(MOST_PATIENCE);
            self.since_given = Duration::MAX;
        }
        let (cost, limit) = (self.cost, self.limit);
        let excess = cost - limit * AIM;
        // The costliest first, by sampling as long as that helps. Those that cost next to nothing are not to blame, whatever is
        // left of the others.
        for name in self.by_cost() {
            let Some(state) = self.tracers.get_mut(name).filter(|state| state.cost > excess / 16.0) else {
                break;
            };
            let from = state.allowance;
            // Fewer samples do not spare what the process spends at the end of a window.
            let in_hooks = state.hooks > state.cost / 2.0;
            if from.one_in < state.sparsest && in_hooks && !state.sampling_is_no_help {
                let wanted = (cost / limit).min(f64::from(MAX_SPARSER)) as u32;
                let factor = wanted.max(2).next_power_of_two();
                state.allowance.one_in = from.one_in.saturating_mul(factor).min(state.sparsest);
                state.hooks_before = Some(state.hooks);
            } else {
                let keep = ((state.cost - excess) / state.cost).clamp(0.02, 1.0);
                let attached = (from.attached * keep).max(MIN_ATTACHED);
                if attached > from.attached * (1.0 - NOTICEABLE) {
                    continue;
                }
                state.allowance.attached = attached;
                state.own.scale(attached / from.attached);
            }
            let to = state.allowance;
            return self.changed(name, from, to);
        }
        self.stuck = true;
        None
    }

    /// Gives one step back, if it is predicted to fit.
    fn give(&mut self) -> Option<Change> {
        let room = (self.limit * AIM - self.cost).max(0.0);
        let mut names = self.by_cost();
        names.reverse();
        for name in names {
            let state = self.tracers.get_mut(name)?;
            let from = state.allowance;
            // Costs grow with the time that it is attached, and with the share of samples at most as much.
            let most = if state.cost > 0.0 { 1.0 + room / state.cost } else { f64::INFINITY };
            if from.attached < 1.0 {
                let factor = most.min(MOST_GIVEN);
                if factor < 1.0 + NOTICEABLE {
                    continue;
                }
                // The last bit is given at once, so that counts become exact again.
                let attached = if from.attached * factor > 0.9 { 1.0 } else { from.attached * factor };
                state.allowance.attached = attached;
                state.own.scale(attached / from.attached);
            } else if from.one_in > 1 && most >= 2.0 {
                state.allowance.one_in = from.one_in / if most >= MOST_GIVEN { MOST_GIVEN as u32 } else { 2 };
                state.allowance.one_in = state.allowance.one_in.max(1);
                state.sampling_is_no_help = false;
            } else {
                continue;
            }
            let to = state.allowance;
            self.since_given = Duration::ZERO;
            return self.changed(name, from, to);
        }
        None
    }

    /// Without a limit, everything is given back, a tracer a tick.
    fn give_all(&mut self) -> Option<Change> {
        let (name, state) = self.tracers.iter_mut().find(|(_, state)| state.allowance != Allowance::FULL)?;
        let (name, from) = (*name, std::mem::replace(&mut state.allowance, Allowance::FULL));
        // A change tells of one of both.
        if from.one_in != 1 && from.attached < 1.0 {
            state.allowance.one_in = from.one_in;
        }
        let to = state.allowance;
        self.changed(name, from, to)
    }

    fn changed(&mut self, tracer: &'static str, from: Allowance, to: Allowance) -> Option<Change> {
        (self.since_change, self.over, self.calm) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        Some(Change { tracer, from, to, cost: self.cost, limit: self.limit })
    }
}

#[cfg(test)]
mod tests;
