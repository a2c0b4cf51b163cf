//! Queries and responses to lookups. Pure: time is passed in.

use std::net::{IpAddr, Ipv6Addr};

use bpf_programs::events::dns::{Message as Record, QUERY, RESPONSE};
use bpf_programs::events::ring::Event;
use otlp_encode::Value;

use super::define::{
    ERROR_TYPE, LOOKUP, LOOKUP_DURATION, PEER_ADDRESS, PEER_PORT, QUESTION, QUESTION_TYPE, TRANSPORT,
};
use super::message::{self, Question};
use crate::sorted::SortedMap;
use crate::telemetry::{Exponential, Owner, Point, PointValue, Sink, Span, SpanKind};

/// A lookup without an answer after this is over.
pub const TIMEOUT_NANOS: u64 = 5_000_000_000;
/// The `error.type` of such.
const TIMEOUT: &str = "timeout";
/// What all names are called that find no room.
const OTHER: &str = "_OTHER";
const DNS_PORT: i64 = 53;
/// Lookups that may wait for their answers at once.
const MAX_PENDING: usize = 4096;
/// Series of one window.
const MAX_SERIES: usize = 4096;
/// Windows after which a name that nobody asks for makes room for another.
const NAME_WINDOWS: u64 = 10;
const SCALE: u8 = 2;
const IPPROTO_TCP: u8 = 6;

/// What became of messages that did not come to be a lookup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Losses {
    /// Queries that found too many waiting.
    pub pending_full: u64,
    /// Lookups of series that found no room.
    pub series_full: u64,
    /// Lookups whose answer may be among the events that the ring had no room for, or have come after somebody else's.
    pub answers_lost: u64,
    /// Spans beyond the number in a second.
    pub span_rate: u64,
    /// Queries that make no sense.
    pub malformed: u64,
}

/// Lookups that wait, and those of the window that are over.
#[derive(Debug)]
pub struct Lookups {
    /// By the socket's cookie and the message's id.
    pending: SortedMap<(u64, u16), Pending>,
    /// Those with series of their own, and the window in which each was asked for last.
    names: SortedMap<String, u64>,
    window: u64,
    max_names: usize,
    series: SortedMap<Series, ([u8; 16], Exponential)>,
    spans_per_second: u32,
    /// The second that spans are counted in, and their number.
    spans: (u64, u32),
    /// Events that the ring had no room for, when it was asked last.
    ring_dropped: u64,
    /// What is missing.
    pub losses: Losses,
}

#[derive(Debug)]
struct Pending {
    question: Question,
    start: u64,
    pid: u32,
    comm: [u8; 16],
    server: [u8; 16],
    transport: u8,
    ring_dropped: u64,
    /// Somebody else's answer came. The programs let one answer pass, so that this one's may have stayed behind.
    is_doubtful: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    pid: u32,
    name: String,
    error: Option<String>,
}

impl Lookups {
    /// None yet. So many names have series of their own, the first that come, until they are not asked for any more.
    pub fn new(max_names: u32, spans_per_second: u32) -> Self {
        Self {
            pending: SortedMap::new(),
            names: SortedMap::new(),
            window: 0,
            max_names: max_names as usize,
            series: SortedMap::new(),
            spans_per_second,
            spans: (0, 0),
            ring_dropped: 0,
            losses: Losses::default(),
        }
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// Most that may wait.
    pub const fn most_waiting() -> usize {
        MAX_PENDING
    }

    /// Takes in a message. They come in the order of their time.
    pub fn take_in(&mut self, head: Event, record: &Record, sink: &mut dyn Sink) {
        let parsed = message::parse(record.message());
        match (head.kind, parsed) {
            (QUERY, Some(parsed)) if !parsed.is_response => {
                if let Some(question) = parsed.question {
                    self.query(head, record, parsed.id, question, sink);
                }
            }
            // Of TCP, most segments begin no message.
            (QUERY, _) => self.losses.malformed += u64::from(record.transport != IPPROTO_TCP),
            (RESPONSE, Some(parsed)) if parsed.is_response => {
                self.response(head.boot_ns, record.socket, &parsed, sink);
            }
            _ => {}
        }
    }

    fn query(&mut self, head: Event, record: &Record, id: u16, question: Question, sink: &mut dyn Sink) {
        let key = (record.socket, id);
        if let Some(earlier) = self.pending.get(&key) {
            // Asked again, or of another server.
            if earlier.question == question && head.boot_ns.saturating_sub(earlier.start) < TIMEOUT_NANOS {
                return;
            }
        } else if self.pending.len() >= MAX_PENDING {
            self.losses.pending_full += 1;
            return;
        }
        let pending = Pending {
            question,
            start: head.boot_ns,
            pid: head.tgid,
            comm: record.comm,
            server: record.server,
            transport: record.transport,
            ring_dropped: self.ring_dropped,
            is_doubtful: false,
        };
        if let Some(earlier) = self.pending.insert(key, pending) {
            self.give_up(&earlier, sink);
        }
    }

    fn response(&mut self, now: u64, socket: u64, parsed: &message::Message, sink: &mut dyn Sink) {
        let key = (socket, parsed.id);
        let Some(pending) = self.pending.get_mut(&key) else { return };
        // Somebody else's answer.
        if parsed.question.as_ref().is_some_and(|question| *question != pending.question) {
            pending.is_doubtful = true;
            return;
        }
        let Some(pending) = self.pending.remove(&key) else { return };
        let took = now.saturating_sub(pending.start);
        if took >= TIMEOUT_NANOS {
            return self.give_up(&pending, sink);
        }
        let error = (parsed.code != 0).then(|| message::code_name(parsed.code));
        self.finish(&pending, took, error.as_deref(), sink);
    }

    /// The answers to what waits will not be seen, which says nothing about them.
    pub fn lose_answers(&mut self) {
        self.losses.answers_lost += self.pending.len() as u64;
        self.pending.clear();
    }

    /// Gives up what waits for too long. `now` is before the ring was drained; `ring_dropped` is how many events it has had no
    /// room for so far.
    pub fn expire(&mut self, now: u64, ring_dropped: u64, sink: &mut dyn Sink) {
        self.ring_dropped = ring_dropped;
        let is_over = |pending: &Pending| now.saturating_sub(pending.start) >= TIMEOUT_NANOS;
        let over: Vec<(u64, u16)> =
            self.pending.iter().filter(|(_, pending)| is_over(pending)).map(|(key, _)| *key).collect();
        for key in over {
            if let Some(pending) = self.pending.remove(&key) {
                self.give_up(&pending, sink);
            }
        }
    }

    fn give_up(&mut self, pending: &Pending, sink: &mut dyn Sink) {
        if pending.ring_dropped == self.ring_dropped && !pending.is_doubtful {
            self.finish(pending, TIMEOUT_NANOS, Some(TIMEOUT), sink);
        } else {
            self.losses.answers_lost += 1;
        }
    }

    fn finish(&mut self, pending: &Pending, took: u64, error: Option<&str>, sink: &mut dyn Sink) {
        self.span(pending, took, error, sink);
        let name = &pending.question.name;
        let name = if let Some(last) = self.names.get_mut(name) {
            *last = self.window;
            name.clone()
        } else if self.names.len() < self.max_names {
            self.names.insert(name.clone(), self.window);
            name.clone()
        } else {
            OTHER.to_owned()
        };
        let series = Series { pid: pending.pid, name, error: error.map(str::to_owned) };
        if self.series.len() >= MAX_SERIES && !self.series.contains_key(&series) {
            self.losses.series_full += 1;
            return;
        }
        let new = || (pending.comm, Exponential::new(SCALE));
        self.series.entry(series).or_insert_with(new).1.add_nanos(took);
    }

    fn span(&mut self, pending: &Pending, took: u64, error: Option<&str>, sink: &mut dyn Sink) {
        if self.spans_per_second == 0 {
            return;
        }
        let second = pending.start / 1_000_000_000;
        self.spans = if self.spans.0 == second { (second, self.spans.1 + 1) } else { (second, 1) };
        if self.spans.1 > self.spans_per_second {
            self.losses.span_rate += 1;
            return;
        }
        let address = Ipv6Addr::from(pending.server);
        let address = address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4).to_string();
        let kind = message::kind_name(pending.question.kind);
        let transport = if pending.transport == IPPROTO_TCP { "tcp" } else { "udp" };
        let mut attributes = vec![
            (QUESTION, Value::Str(&pending.question.name)),
            (QUESTION_TYPE, Value::Str(&kind)),
            (PEER_ADDRESS, Value::Str(&address)),
            (PEER_PORT, Value::Int(DNS_PORT)),
            (TRANSPORT, Value::Str(transport)),
        ];
        attributes.extend(error.map(|error| (ERROR_TYPE, Value::Str(error))));
        sink.span(Span {
            span: &LOOKUP,
            kind: SpanKind::Client,
            owner: Owner::Process { pid: pending.pid, comm: pending.comm },
            boot_nanos: (pending.start, pending.start.saturating_add(took)),
            attributes: &attributes,
            error,
        });
    }

    /// Hands over the window, and begins anew. What waits goes on waiting.
    pub fn tell(&mut self, sink: &mut dyn Sink) {
        for (series, (comm, histogram)) in std::mem::take(&mut self.series) {
            let mut attributes = vec![(QUESTION, Value::Str(&series.name))];
            attributes.extend(series.error.as_deref().map(|error| (ERROR_TYPE, Value::Str(error))));
            sink.point(Point {
                metric: &LOOKUP_DURATION,
                owner: Owner::Process { pid: series.pid, comm },
                attributes: &attributes,
                value: PointValue::Histogram(&histogram),
            });
        }
        self.window += 1;
        let window = self.window;
        self.names.retain(|_, last| window - *last < NAME_WINDOWS);
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::tests::message;
    use super::*;
    use crate::telemetry::Recorder;
    use bpf_programs::events::dns::MAX_MESSAGE;
    use std::net::Ipv4Addr;

    const A: &[u8] = b"\x01a\0";
    const B: &[u8] = b"\x01B\0";
    const SECOND: u64 = 1_000_000_000;

    fn record(socket: u64, message: &[u8]) -> Record {
        let mut bytes = [0; MAX_MESSAGE];
        bytes[..message.len()].copy_from_slice(message);
        let server = Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets();
        Record { socket, server, comm: [0; 16], length: message.len() as u16, transport: 17, bytes }
    }

    struct Test(Lookups, Recorder);

    impl Test {
        fn new() -> Self {
            Self(Lookups::new(1, 10), Recorder::default())
        }

        fn query(&mut self, boot_ns: u64, socket: u64, id: u16, name: &[u8]) {
            let head = Event { kind: QUERY, tgid: 7, boot_ns };
            self.0.take_in(head, &record(socket, &message(id, 0x100, name, 1)), &mut self.1);
        }

        fn response(&mut self, boot_ns: u64, socket: u64, id: u16, name: &[u8], code: u16) {
            let head = Event { kind: RESPONSE, tgid: 0, boot_ns };
            self.0.take_in(head, &record(socket, &message(id, 0x8180 | code, name, 1)), &mut self.1);
        }

        fn counts(mut self) -> Vec<(String, u64)> {
            self.0.tell(&mut self.1);
            let text = |attributes: &[(&str, String)]| {
                attributes.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(" ")
            };
            let all = self.1.histograms.iter();
            all.map(|(series, histogram)| (text(&series.attributes), histogram.count())).collect()
        }
    }

    #[test]
    fn sockets_and_ids_pair_and_others_do_not() {
        let mut test = Test::new();
        test.query(0, 1, 1, A);
        test.query(0, 1, 2, A);
        test.query(0, 2, 1, A);
        test.response(10, 3, 1, A, 0);
        test.response(10, 1, 3, A, 0);
        // Another question's answer is none.
        test.response(10, 1, 1, B, 0);
        assert_eq!(test.0.waiting(), 3);
        test.response(10, 1, 1, A, 0);
        test.response(10, 1, 1, A, 0);
        test.response(10, 2, 1, A, 3);
        assert_eq!(test.0.waiting(), 1);
        assert_eq!(test.counts(), [("a".into(), 1), ("a NXDOMAIN".into(), 1)]);
    }

    #[test]
    fn what_is_asked_again_is_one_lookup_and_another_question_another() {
        let mut test = Test::new();
        test.query(0, 1, 1, A);
        test.query(SECOND, 1, 1, A);
        test.response(2 * SECOND, 1, 1, A, 0);
        assert_eq!(test.1.spans[0].boot_nanos, (0, 2 * SECOND));
        test.query(3 * SECOND, 1, 1, A);
        test.query(4 * SECOND, 1, 1, B);
        test.response(4 * SECOND, 1, 1, b"\x01b\0", 0);
        // The first name has the room that there is.
        assert_eq!(test.counts(), [("_OTHER".into(), 1), ("a".into(), 1), ("a timeout".into(), 1)]);
    }

    #[test]
    fn an_answer_is_too_late_whether_it_comes_or_not() {
        let mut test = Test::new();
        test.query(0, 1, 1, A);
        test.query(0, 1, 2, A);
        test.response(TIMEOUT_NANOS, 1, 1, A, 0);
        test.0.expire(TIMEOUT_NANOS - 1, 0, &mut test.1);
        assert_eq!(test.0.waiting(), 1);
        test.0.expire(TIMEOUT_NANOS, 0, &mut test.1);
        test.response(TIMEOUT_NANOS + 1, 1, 2, A, 0);
        assert_eq!(test.counts(), [("a timeout".into(), 2)]);
    }

    #[test]
    fn answers_that_may_be_lost_are_no_timeouts() {
        let mut test = Test::new();
        test.query(0, 1, 1, A);
        test.0.expire(TIMEOUT_NANOS, 1, &mut test.1);
        assert_eq!(test.0.losses.answers_lost, 1);
        assert_eq!(test.counts(), []);
    }

    #[test]
    fn what_somebody_else_answered_is_no_timeout() {
        let mut test = Test::new();
        test.query(0, 1, 1, A);
        test.response(1, 1, 1, B, 0);
        test.0.expire(TIMEOUT_NANOS, 0, &mut test.1);
        assert_eq!((test.0.losses.answers_lost, test.0.waiting()), (1, 0));
        assert_eq!(test.counts(), []);
    }

    #[test]
    fn a_name_that_nobody_asks_for_makes_room() {
        let mut test = Test::new();
        let lookup = |test: &mut Test, name| {
            test.query(0, 1, 1, name);
            test.response(1, 1, 1, name, 0);
        };
        lookup(&mut test, A);
        (0..NAME_WINDOWS - 1).for_each(|_| test.0.tell(&mut test.1));
        lookup(&mut test, A);
        (0..NAME_WINDOWS - 1).for_each(|_| test.0.tell(&mut test.1));
        lookup(&mut test, B);
        test.0.tell(&mut test.1);
        lookup(&mut test, B);
        assert_eq!(test.counts(), [("_OTHER".into(), 1), ("a".into(), 2), ("b".into(), 1)]);
    }

    #[test]
    fn lookups_under_way_when_it_is_paused_are_no_timeouts() {
        let mut test = Test::new();
        test.query(0, 1, 1, A);
        test.query(0, 1, 2, A);
        test.0.lose_answers();
        test.0.expire(TIMEOUT_NANOS, 0, &mut test.1);
        assert_eq!((test.0.losses.answers_lost, test.0.waiting()), (2, 0));
        assert_eq!(test.counts(), []);
    }

    #[test]
    fn what_waits_is_bounded_and_so_are_spans() {
        let mut test = Test::new();
        for socket in 0..MAX_PENDING as u64 + 5 {
            test.query(0, socket, 1, A);
        }
        assert_eq!((test.0.waiting(), test.0.losses.pending_full), (MAX_PENDING, 5));
        for socket in 0..15 {
            test.response(1, socket, 1, A, 0);
        }
        assert_eq!((test.1.spans.len(), test.0.losses.span_rate), (10, 5));
        let head = Event { kind: QUERY, tgid: 7, boot_ns: 0 };
        test.0.take_in(head, &record(1, b"no message"), &mut test.1);
        assert_eq!(test.0.losses.malformed, 1);
    }
}
