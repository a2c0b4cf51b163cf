//! Spans and log records of all tracers in one order, by time.
//!
//! Each tracer's rings are read in turn, so that what one of them tells of a moment comes after what another tells of later
//! ones. Events are held back until the rings have been read once more: at most for one period of draining.

use bpf_programs::events::process::Lifecycle;

use crate::event_buffer::Event;
use crate::merge::Merge;
use crate::model::Profile;
use crate::telemetry::{LogRecord, Point, Sink, Span};

/// Most events that are held back. In a storm, order is given up rather than memory.
const MOST: usize = 4096;

/// What is held back.
#[derive(Default)]
pub(super) struct Order {
    waiting: Merge<Event>,
}

impl Order {
    /// A sink that holds back what happened at a time, and lets the rest pass to `sink`.
    pub fn before<'o>(&'o mut self, sink: &'o mut dyn Sink) -> Ordering<'o> {
        Ordering { order: self, sink }
    }

    /// Hands over what happened before a time in nanoseconds of `CLOCK_BOOTTIME`.
    pub fn release(&mut self, before: u64, sink: &mut dyn Sink) {
        self.waiting.drain(before).for_each(|(_, event)| event.hand_to(sink));
    }
}

/// See [`Order::before`].
pub(super) struct Ordering<'o> {
    order: &'o mut Order,
    sink: &'o mut dyn Sink,
}

impl Ordering<'_> {
    fn push(&mut self, time: u64, event: Event) {
        if self.order.waiting.len() >= MOST {
            self.order.release(u64::MAX, self.sink);
        }
        self.order.waiting.push(time, event);
    }
}

impl Sink for Ordering<'_> {
    fn point(&mut self, point: Point<'_>) {
        self.sink.point(point);
    }

    /// A span is told when it ends.
    fn span(&mut self, span: Span<'_>) {
        self.push(span.boot_nanos.1, Event::of_span(span));
    }

    fn log(&mut self, record: LogRecord<'_>) {
        self.push(record.boot_nanos, Event::of_log(record));
    }

    fn profile(&mut self, profile: Profile) {
        self.sink.profile(profile);
    }

    fn lifecycle(&mut self, event: &Lifecycle) {
        self.sink.lifecycle(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{LogDef, Owner, Recorder, Severity};

    static EVENT: LogDef = LogDef {
        name: "test.event",
        description: "A test",
        severity: Severity::Info,
        attributes: &[],
        source: "",
    };

    fn record(boot_nanos: u64) -> LogRecord<'static> {
        LogRecord { log: &EVENT, owner: Owner::Host, boot_nanos, body: "", attributes: &[] }
    }

    fn times(recorder: &Recorder) -> Vec<u64> {
        recorder.logs.iter().map(|item| item.boot_nanos.0).collect()
    }

    #[test]
    fn tracers_read_in_turn_come_in_order() {
        let (mut order, mut recorder) = (Order::default(), Recorder::default());
        [10, 30, 50].into_iter().for_each(|t| order.before(&mut recorder).log(record(t)));
        [20, 40].into_iter().for_each(|t| order.before(&mut recorder).log(record(t)));
        order.release(45, &mut recorder);
        assert_eq!(times(&recorder), [10, 20, 30, 40]);
        order.before(&mut recorder).log(record(46));
        order.release(u64::MAX, &mut recorder);
        assert_eq!(times(&recorder), [10, 20, 30, 40, 46, 50]);
    }

    #[test]
    fn a_storm_takes_no_more_memory() {
        let (mut order, mut recorder) = (Order::default(), Recorder::default());
        (0..3 * MOST as u64).rev().for_each(|t| order.before(&mut recorder).log(record(t)));
        assert!(order.waiting.len() <= MOST);
        order.release(u64::MAX, &mut recorder);
        assert_eq!(recorder.logs.len(), 3 * MOST, "nothing is lost");
    }
}
