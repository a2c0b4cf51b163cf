//! Series of metrics: what every point adds up to until it is exported.
//!
//! A series is a metric, a resource and a list of attributes. Counters and histograms of all processes of a resource are one
//! series; of up-down counters, each process' part is kept, so that a part can change and end; of gauges, the last value
//! counts.
//!
//! **Start times.** Tracers say what is new, so a series begins with the window in which it is first heard of, or with its
//! process where that began later: what was counted of it was counted since then, and no earlier series of the same name can
//! reach into this time, even one that was evicted before. When the agent is restarted, everything begins anew with a new
//! start, as nothing was counted while it was away: receivers see a reset, and add both up.
//!
//! **A clock that is set** makes start and end of a series times of two clocks, which say nothing of how long it took, and
//! may be in the wrong order. To move the start alone would be a reset to a value that was told before, which receivers would
//! add twice. So the window in which the clock was set is the last of what counts since its start, by the clock as it was; after it,
//! that begins anew, with nothing. Deltas and states follow the new clock at once.

mod number;
mod past;
mod sets;

use otlp_encode::MetricBlob;

use super::clock::Clock;
use super::resources::{Fate, ResourceId};
use crate::convert::metrics::{MetricPoint, Value};
use crate::enrich::cache::ProcessKey;
use crate::export::config::Temporality;
use crate::sorted::SortedMap;
use crate::telemetry::{Attribute, Exponential, Instrument, Metric, Point, PointValue, Subject};
use number::Number;
use sets::{OVERFLOW, SetId, Sets};

/// Memory of a series beside its buckets: entries of all tables, with their slack.
const PER_SERIES: usize = 176;
/// Memory of a process' part of an up-down counter.
const PER_PART: usize = 96;
/// Flushes without a value after which a series makes room, where there is none.
const IDLE_WHEN_FULL: u32 = 2;
/// Flushes without a value after which a delta series is forgotten: nobody misses it.
const IDLE_DELTA: u32 = 8;

/// Which series: the order in which they are exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    resource: ResourceId,
    metric: u16,
    set: SetId,
    /// Not exported: what resources counted that became this one.
    past: bool,
}

/// Whose part of which series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct PartKey {
    process: ProcessKey,
    metric: u16,
    set: SetId,
}

#[derive(Debug, Clone, Copy)]
struct Part {
    resource: ResourceId,
    value: Number,
}

#[derive(Debug)]
enum Content {
    Number(Number),
    Histogram(Box<Exponential>),
}

#[derive(Debug)]
struct Series {
    key: Key,
    /// Nanoseconds since the epoch, once it was exported; until then, `CLOCK_BOOTTIME` when its process began.
    start: u64,
    exported: bool,
    /// Flush before which it was last touched.
    touched: u32,
    content: Content,
}

#[derive(Debug)]
struct Known {
    metric: &'static Metric,
    head: MetricBlob,
    temporality: otlp_encode::Temporality,
}

/// What became of points that made no series.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Series now, those for what did not fit included.
    pub series: usize,
    /// Memory that they take, in bytes, estimated.
    pub bytes: usize,
    /// Points of counters and histograms that found no room: they are counted in `otel.metric.overflow`.
    pub folded: u64,
    /// Points of gauges and up-down counters that found no room: they are lost, as states of several cannot be added up
    /// without knowing whose they are.
    pub lost: u64,
    /// Points that were not valid: a tracer's fault.
    pub refused: u64,
}

/// All series.
#[derive(Debug)]
pub struct Store {
    preference: Temporality,
    max_bytes: usize,
    /// Whether totals go on where a resource becomes another.
    keeps_past: bool,
    metrics: Vec<Known>,
    by_address: SortedMap<usize, u16>,
    sets: Sets,
    series: Vec<Option<Series>>,
    free: Vec<u32>,
    by_key: SortedMap<Key, u32>,
    parts: SortedMap<PartKey, Part>,
    /// Series in the order of their keys, once [`Self::sort`] was called.
    order: Vec<(Key, u32)>,
    flushes: u32,
    /// When the window that is exported ends; of series that begin anew as the clock was set, by the clock as it was.
    time: u64,
    step: Option<u64>,
    /// Whether something found no room since the last flush.
    full: bool,
    stats: StoreStats,
}

/// A series as it is now.
#[derive(Debug, Clone, Copy)]
pub struct Current<'a> {
    /// Whose.
    pub resource: ResourceId,
    /// Which metric.
    pub metric: &'static Metric,
    set: SetId,
    /// How much.
    pub value: Value<'a>,
}

/// A window that ends, in nanoseconds since the epoch.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// When it began.
    pub start: u64,
    /// Now.
    pub time: u64,
    /// Converts the kernel's time.
    pub clock: Clock,
    /// The same by the clock as it was when the window began, if that was set since.
    pub before: Option<Before>,
}

/// A window by a clock that was set in the middle of it.
#[derive(Debug, Clone, Copy)]
pub struct Before {
    /// When it began.
    pub start: u64,
    /// Now, had the clock not been set.
    pub time: u64,
    /// The clock as it was.
    pub clock: Clock,
}

/// Whose a point is, as the store sees it.
#[derive(Debug, Clone, Copy)]
pub struct PointOwner {
    /// The resource.
    pub resource: ResourceId,
    /// Which process of it, if it is one's.
    pub process: Option<ProcessKey>,
    /// When that began, in nanoseconds of `CLOCK_BOOTTIME`; 0 if unknown.
    pub start_boot_nanos: u64,
}

impl Store {
    /// An empty one that takes about so much memory at most.
    pub fn new(preference: Temporality, max_bytes: usize) -> Self {
        Self {
            preference,
            max_bytes,
            keeps_past: false,
            metrics: Vec::new(),
            by_address: SortedMap::new(),
            sets: Sets::new(),
            series: Vec::new(),
            free: Vec::new(),
            by_key: SortedMap::new(),
            parts: SortedMap::new(),
            order: Vec::new(),
            flushes: 0,
            time: 0,
            step: None,
            full: false,
            stats: StoreStats::default(),
        }
    }

    /// What counters and histograms count from.
    pub fn preference(&self) -> Temporality {
        self.preference
    }

    /// Takes about so much memory at most from now on: where it takes more, what is idle makes room.
    pub fn set_max_bytes(&mut self, max_bytes: usize) {
        self.max_bytes = max_bytes;
    }

    /// What became of everything.
    pub fn stats(&self) -> StoreStats {
        StoreStats { series: self.by_key.len(), ..self.stats }
    }

    /// Adds a point.
    pub fn point(&mut self, point: &Point<'_>, owner: PointOwner) {
        if self.take(point, owner).is_none() {
            self.stats.refused += 1;
        }
    }

    /// `None` for a point that is not valid.
    fn take(&mut self, point: &Point<'_>, owner: PointOwner) -> Option<()> {
        let metric = self.metric(point.metric)?;
        let value = match point.value {
            PointValue::Histogram(histogram) => {
                (point.metric.instrument == Instrument::Histogram).then_some(())?;
                return self.histogram(point, metric, owner, histogram);
            }
            PointValue::Int(n) => Number::Int(n),
            PointValue::Double(n) => Number::Double(n),
        };
        match point.metric.instrument {
            Instrument::Histogram => None,
            Instrument::Counter => {
                // Not a number is no amount either.
                (value.as_f64() >= 0.0).then_some(())?;
                if let Some(series) = self.series(point, metric, owner, true)? {
                    series.change(|old| old.add(value));
                }
                Some(())
            }
            Instrument::Gauge => {
                if let Some(series) = self.series(point, metric, owner, false)? {
                    series.change(|_| value);
                }
                Some(())
            }
            Instrument::UpDownCounter => self.part(point, metric, owner, value),
        }
    }

    fn histogram(
        &mut self,
        point: &Point<'_>,
        metric: u16,
        owner: PointOwner,
        histogram: &Exponential,
    ) -> Option<()> {
        let Some(series) = self.series(point, metric, owner, true)? else { return Some(()) };
        let Content::Histogram(own) = &mut series.content else { return None };
        let before = own.buckets.capacity();
        own.merge(histogram);
        let grown = own.buckets.capacity().saturating_sub(before) * 8;
        self.stats.bytes += grown;
        Some(())
    }

    /// Changes a process' part of an up-down counter.
    fn part(&mut self, point: &Point<'_>, metric: u16, owner: PointOwner, value: Number) -> Option<()> {
        let Some(series) = self.series(point, metric, owner, false)? else { return Some(()) };
        let key = series.key;
        let Some(process) = owner.process else {
            series.change(|_| value);
            return Some(());
        };
        let part_key = PartKey { process, metric, set: key.set };
        let part = Part { resource: owner.resource, value };
        let before = match self.parts.get_mut(&part_key) {
            Some(old) => Some(std::mem::replace(old, part)),
            None if self.stats.bytes + PER_PART > self.max_bytes => {
                self.full = true;
                self.stats.lost += 1;
                return Some(());
            }
            None => {
                self.stats.bytes += PER_PART;
                self.parts.insert(part_key, part)
            }
        };
        if let Some(before) = before {
            self.add_to(Key { resource: before.resource, ..key }, before.value.negative());
        }
        self.add_to(key, value);
        Some(())
    }

    fn add_to(&mut self, key: Key, value: Number) {
        let Some(&at) = self.by_key.get(&key) else { return };
        if let Some(Some(series)) = self.series.get_mut(at as usize) {
            series.change(|old| old.add(value));
        }
    }

    /// The series of a point, made if there is none. Where there is no room for another: the one for all others, if they can
    /// be `folded`, or none. `None` for attributes that are not valid.
    fn series(
        &mut self,
        point: &Point<'_>,
        metric: u16,
        owner: PointOwner,
        folded: bool,
    ) -> Option<Option<&mut Series>> {
        let known = self.sets.find(point.attributes);
        let mut start = owner.start_boot_nanos;
        let key = |set| Key { resource: owner.resource, metric, set, past: false };
        let there = known.and_then(|set| self.by_key.get(&key(set)).copied());
        let at = match there {
            Some(at) => at,
            None => {
                let is_histogram = point.metric.instrument == Instrument::Histogram;
                let mut cost = PER_SERIES + if is_histogram { size_of::<Exponential>() } else { 0 };
                if known.is_none() {
                    cost += self.sets.cost();
                }
                let key = if self.stats.bytes + cost <= self.max_bytes {
                    let set = match known {
                        Some(set) => set,
                        None => self.sets.add(point.attributes).ok()?,
                    };
                    key(set)
                } else {
                    self.full = true;
                    if !folded {
                        self.stats.lost += 1;
                        return Some(None);
                    }
                    self.stats.folded += 1;
                    cost = PER_SERIES;
                    start = 0;
                    Key { resource: ResourceId::HOST, metric, set: OVERFLOW, past: false }
                };
                match self.by_key.get(&key) {
                    Some(&at) => at,
                    None => {
                        self.stats.bytes += cost;
                        self.insert(key, start, is_histogram)
                    }
                }
            }
        };
        let series = self.series.get_mut(at as usize)?.as_mut()?;
        series.touched = self.flushes;
        Some(Some(series))
    }

    fn insert(&mut self, key: Key, start: u64, is_histogram: bool) -> u32 {
        let content =
            if is_histogram { Content::Histogram(Box::default()) } else { Content::Number(Number::Int(0)) };
        let series = Some(Series { key, start, exported: false, touched: self.flushes, content });
        let at = match self.free.pop() {
            Some(at) => {
                if let Some(place) = self.series.get_mut(at as usize) {
                    *place = series;
                }
                at
            }
            None => {
                self.series.push(series);
                self.series.len() as u32 - 1
            }
        };
        self.sets.hold(key.set);
        self.by_key.insert(key, at);
        self.order.push((key, at));
        at
    }

    fn metric(&mut self, metric: &'static Metric) -> Option<u16> {
        // Definitions are statics, so that nearly always an address says enough.
        let address = std::ptr::from_ref(metric) as usize;
        if let Some(number) = self.by_address.get(&address) {
            return Some(*number);
        }
        // Tracers may have one of the conventions' metrics in common.
        let same = |known: &Known| {
            let own = known.metric;
            (own.name, own.unit, own.instrument, own.subject)
                == (metric.name, metric.unit, metric.instrument, metric.subject)
        };
        if let Some(number) = self.metrics.iter().position(same) {
            let number = number as u16;
            self.by_address.insert(address, number);
            return Some(number);
        }
        let number = u16::try_from(self.metrics.len()).ok()?;
        let head = MetricBlob::new(metric.name, metric.unit, metric.description).ok()?;
        let adds = matches!(metric.instrument, Instrument::Counter | Instrument::Histogram);
        let delta = adds
            && match self.preference {
                Temporality::Cumulative => false,
                Temporality::Delta => true,
                // What is read from totals, and not counted as it happens, would have to be remembered.
                Temporality::LowMemory => metric.subject != Subject::Agent,
            };
        let temporality =
            if delta { otlp_encode::Temporality::Delta } else { otlp_encode::Temporality::Cumulative };
        self.metrics.push(Known { metric, head, temporality });
        self.by_address.insert(address, number);
        Some(number)
    }

    /// Takes out what processes that ended were part of.
    pub fn end_processes(&mut self, ended: &[ProcessKey]) {
        if ended.is_empty() || self.parts.is_empty() {
            return;
        }
        let mut sorted = ended.to_vec();
        sorted.sort_unstable();
        let gone = |key: &PartKey| sorted.binary_search(&key.process).is_ok();
        let mut parts: Vec<_> =
            self.parts.iter().filter(|(key, _)| gone(key)).map(|(key, part)| (*key, *part)).collect();
        // Sums of floating-point numbers depend on the order.
        parts.sort_unstable_by_key(|(key, _)| (key.process, key.metric, key.set));
        for (key, part) in parts {
            self.parts.remove(&key);
            self.stats.bytes = self.stats.bytes.saturating_sub(PER_PART);
            let key = Key { resource: part.resource, metric: key.metric, set: key.set, past: false };
            self.add_to(key, part.value.negative());
        }
    }

    /// Puts series in order, for [`Self::get`], and gives them their times.
    pub fn sort(&mut self, window: &Window) {
        if !self.order.is_sorted() {
            self.order.sort_unstable();
        }
        self.time = window.time;
        self.step = window.before.map(|before| before.time);
        for series in self.series.iter_mut().flatten() {
            let known = self.metrics.get(usize::from(series.key.metric));
            let is_delta = known.is_some_and(Known::is_delta);
            let counts = known.is_some_and(Known::counts);
            // What has counted so long ends by the clock by which it began.
            let by = window.before.as_ref().filter(|_| counts && !is_delta);
            let (start, time, clock) = by.map_or((window.start, window.time, window.clock), |before| {
                (before.start, before.time, before.clock)
            });
            if !series.exported {
                let born = if series.start == 0 { 0 } else { clock.unix(series.start) };
                series.start = start.max(born);
                series.exported = true;
            } else if is_delta || (window.before.is_some() && !counts) {
                series.start = start;
            }
            // A process that began after the clock was read.
            series.start = series.start.min(time);
        }
    }

    /// How many series there are at most for [`Self::get`], in their order.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// What is exported of a series, if anything is.
    pub fn get(&self, position: usize) -> Option<MetricPoint<'_>> {
        let &(key, at) = self.order.get(position).filter(|(key, _)| !key.past)?;
        let series = self.series.get(at as usize)?.as_ref()?;
        let known = self.metrics.get(usize::from(key.metric))?;
        let is_new = series.touched == self.flushes;
        // Nothing new is nothing to say of a delta, and a gauge that nobody read has no value.
        if !is_new && (known.is_delta() || known.metric.instrument == Instrument::Gauge) {
            return None;
        }
        Some(MetricPoint {
            resource: key.resource,
            metric: known.metric,
            head: &known.head,
            temporality: known.temporality,
            attributes: self.sets.encoded(key.set)?,
            start_unix_nanos: series.start,
            time_unix_nanos: self.step.filter(|_| known.counts() && !known.is_delta()).unwrap_or(self.time),
            value: series.value(),
        })
    }

    /// Series as they are now, each once or, with what is past, twice. Gauges that nobody read in
    /// this window or in the last one have no value.
    pub fn current(&self) -> impl Iterator<Item = Current<'_>> {
        self.order.iter().filter_map(|&(key, at)| {
            let series = self.series.get(at as usize)?.as_ref()?;
            let metric = self.metrics.get(usize::from(key.metric))?.metric;
            let is_old = self.flushes.wrapping_sub(series.touched) > 1;
            let is_gone = is_old && metric.instrument == Instrument::Gauge;
            (!is_gone).then(|| Current {
                resource: key.resource,
                metric,
                set: key.set,
                value: series.value(),
            })
        })
    }

    /// The attributes of a series.
    pub fn attributes(&self, current: &Current<'_>) -> Vec<Attribute<'_>> {
        self.sets.attributes(current.set)
    }

    /// Ends the window: deltas begin anew, and series go whose resource has ended, or that are idle where there is no room.
    pub fn finish(&mut self, fate: impl Fn(ResourceId) -> Fate) {
        let stepped = self.step.take().is_some();
        let is_over = self.stats.bytes > self.max_bytes;
        let is_full = std::mem::take(&mut self.full) || is_over;
        let idle_cumulative = if is_full { IDLE_WHEN_FULL } else { u32::MAX };
        // Nobody misses a delta that was told.
        let idle_delta = if is_over { 0 } else { IDLE_DELTA };
        // Where the clock was set, everything begins with nothing.
        let keeps_past = self.keeps_past && !stepped;
        let mut past = Vec::new();
        let mut order = std::mem::take(&mut self.order);
        order.retain(|&(key, at)| {
            let goes_on = self.goes_on(key);
            let Some(place) = self.series.get_mut(at as usize) else { return false };
            let Some(series) = place else { return false };
            let known = self.metrics.get(usize::from(key.metric));
            let is_delta = known.is_some_and(Known::is_delta);
            let state = known.is_some_and(|known| known.metric.instrument == Instrument::UpDownCounter);
            let idle = self.flushes.wrapping_sub(series.touched);
            let limit = if is_delta { idle_delta.min(idle_cumulative) } else { idle_cumulative };
            // A state that nobody repeats is still one, as long as somebody is in it.
            let is_idle = idle >= limit && !(state && key.resource.is_processes());
            let makes_room = is_idle && key.set != OVERFLOW && !goes_on;
            let fate = fate(key.resource);
            let goes = fate != Fate::Stays || makes_room || (key.past && !keeps_past);
            if !goes {
                if is_delta {
                    series.clear();
                } else if stepped && known.is_some_and(Known::counts) {
                    series.clear();
                    series.start = self.time;
                }
                return true;
            }
            let adds_up = known.is_some_and(Known::counts) && !is_delta;
            let series = place.take();
            self.free.push(at);
            self.by_key.remove(&key);
            match (fate, series) {
                (Fate::Becomes(heir), Some(series)) if adds_up && keeps_past => past.push((heir, series)),
                (_, series) => series.iter().for_each(|series| self.forget(series)),
            }
            false
        });
        self.order = order;
        past.into_iter().for_each(|(heir, series)| self.add_past(heir, series));
        self.flushes = self.flushes.wrapping_add(1);
    }

    /// Frees what a series took that is not in any table any more.
    fn forget(&mut self, series: &Series) {
        let freed = PER_SERIES + series.content.bytes() + self.sets.release(series.key.set);
        self.stats.bytes = self.stats.bytes.saturating_sub(freed);
    }

    /// Counts points that a receiver could not have taken.
    pub fn count_refused(&mut self, points: u64) {
        self.stats.refused += points;
    }
}

impl Known {
    /// Whether its value is what was counted since the start, rather than a state.
    fn counts(&self) -> bool {
        matches!(self.metric.instrument, Instrument::Counter | Instrument::Histogram)
    }

    fn is_delta(&self) -> bool {
        self.temporality == otlp_encode::Temporality::Delta
    }
}

impl Content {
    fn bytes(&self) -> usize {
        match self {
            Self::Number(_) => 0,
            Self::Histogram(histogram) => size_of::<Exponential>() + histogram.buckets.capacity() * 8,
        }
    }
}

impl Series {
    fn value(&self) -> Value<'_> {
        match &self.content {
            Content::Number(Number::Int(n)) => Value::Int(*n),
            Content::Number(Number::Double(n)) => Value::Double(*n),
            Content::Histogram(histogram) => Value::Histogram(histogram),
        }
    }

    fn change(&mut self, change: impl FnOnce(Number) -> Number) {
        if let Content::Number(number) = &mut self.content {
            *number = change(*number);
        }
    }

    /// Keeps the memory.
    fn clear(&mut self) {
        match &mut self.content {
            Content::Number(number) => *number = Number::Int(0),
            Content::Histogram(histogram) => histogram.clear(),
        }
    }
}
