//! Exporting beside sampling.

use bpf_loader::text::join;
use std::error::Error;
use std::fmt::Write;
use std::io;
use std::path::Path;
use std::time::Duration;

use collector::export::delivery::Limits;
use collector::export::spool::SpoolConfig;
use collector::export::stats::{Amount, DropReason, SignalStats, Stats};
use collector::export::{Exporter, Outlet, Request, Sink};

/// Sends what is handed to it to all sinks.
pub struct Sender {
    exporter: Exporter,
    /// Of each destination, what was told of last.
    told: Vec<Trouble>,
}

/// What goes wrong at a destination.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Trouble {
    /// Requests given up so far.
    dropped: u64,
    /// Why requests wait or were given up.
    error: Option<String>,
    spool_error: Option<String>,
}

/// Where to keep what receivers do not take yet.
#[derive(Debug, Clone, Copy)]
pub struct Spool<'a> {
    /// It has a directory for each receiver.
    pub dir: &'a Path,
    /// How much may be in each of those.
    pub max_bytes: Option<u64>,
    /// How long data may be in memory alone.
    pub delay: Option<Duration>,
}

/// What became of everything.
#[derive(Debug)]
pub struct Sent {
    /// By destination.
    pub destinations: Vec<Stats>,
    /// What never became a request.
    pub errors: Vec<String>,
}

/// A number that nobody can guess and no other run has.
pub fn random_id() -> u128 {
    let half = || u128::from(bpf_sys::random::number());
    (half() << 64 | half()).max(1)
}

impl Sender {
    /// Starts the threads that send, with limits for each destination, other outlets beside the sinks, and what starts them.
    ///
    /// # Errors
    ///
    /// A sink or a spool that cannot be used, or the system has no thread left.
    pub fn start(
        sinks: &[Sink],
        spool: Option<Spool<'_>>,
        mut limits: Limits,
        others: Vec<Outlet>,
        start: impl FnOnce(Vec<Outlet>) -> io::Result<Exporter>,
    ) -> Result<Self, Box<dyn Error>> {
        if let Some(delay) = spool.and_then(|spool| spool.delay) {
            limits.max_time_at_risk = delay;
        }
        let outlet = |sink: &Sink| -> Result<Outlet, Box<dyn Error>> {
            let outlet = Outlet::to_sink(sink, limits)?;
            let (Sink::Otlp(destination), Some(spool)) = (sink, spool) else { return Ok(outlet) };
            let config = SpoolConfig::new(spool.dir.join(destination.spool_name()));
            let max_bytes = spool.max_bytes.unwrap_or(config.max_bytes);
            Ok(outlet.with_spool(&SpoolConfig { max_bytes, ..config })?)
        };
        let mut outlets = Vec::new();
        for sink in sinks {
            outlets.push(outlet(sink)?);
        }
        outlets.extend(others);
        let told = vec![Trouble::default(); outlets.len()];
        Ok(Self { exporter: start(outlets)?, told })
    }

    /// A line for everything that went wrong since it was asked last, for runs that may never end. Ask before
    /// [`Self::push`]: what waits then has had its time.
    pub fn news(&mut self) -> Vec<String> {
        let stats = self.exporter.stats();
        let mut lines = Vec::new();
        self.told.iter_mut().zip(&stats).for_each(|(told, stats)| lines.extend(told.update(stats)));
        lines
    }

    /// Queues a request.
    pub fn push(&self, request: &Request) {
        self.exporter.push(request);
    }

    /// What became of everything so far, by destination.
    pub fn stats(&self) -> Vec<Stats> {
        self.exporter.stats()
    }

    /// Sends what is left, for at most so long.
    pub fn finish_within(self, flush_for: Duration) -> Sent {
        Sent { destinations: self.exporter.shut_down(flush_for), errors: Vec::new() }
    }
}

impl Trouble {
    /// Lines for what is new. What goes on is told once.
    fn update(&mut self, stats: &Stats) -> Vec<String> {
        let dropped = stats.total(|signal| signal.dropped.total()).requests;
        let waiting =
            stats.total(|signal| signal.in_memory).requests + stats.total(|signal| signal.in_spool).requests;
        let error = stats.last_error.clone().filter(|_| waiting > 0 || dropped > self.dropped);
        let now = Self { dropped, error, spool_error: stats.spool_error.clone() };
        let name = &stats.name;
        let error = now.error.iter().filter(|_| now.error != self.error);
        let spool_error = now.spool_error.iter().filter(|_| now.spool_error != self.spool_error);
        let mut lines: Vec<String> = error.map(|error| format!("cannot send to {name}: {error}")).collect();
        lines.extend(spool_error.map(|error| format!("{name}: {error}")));
        *self = now;
        lines
    }
}

impl Sent {
    /// Whether everything was delivered, or is kept in a spool.
    pub fn is_complete(&self) -> bool {
        let lost = |stats: &Stats| {
            stats.total(|signal| signal.dropped.total()).requests > 0
                || stats.total(|signal| signal.rejected).items > 0
        };
        self.errors.is_empty() && !self.destinations.iter().any(lost)
    }

    /// A line for each error.
    pub fn errors(&self) -> Vec<String> {
        let mut lines = self.errors.clone();
        for stats in &self.destinations {
            let name = &stats.name;
            let undelivered = stats.total(|signal| signal.dropped.total()).requests
                + stats.total(|signal| signal.in_spool).requests;
            let error = stats.last_error.as_ref().filter(|_| undelivered > 0);
            lines.extend(error.map(|error| format!("cannot send to {name}: {error}")));
            lines.extend(stats.spool_error.iter().map(|error| format!("{name}: {error}")));
            lines.extend(stats.last_message.iter().map(|message| format!("{name} says: {message}")));
            if stats.panics > 0 {
                lines.push(format!("{name}: the exporter panicked {} times: this is a bug", stats.panics));
            }
        }
        lines
    }

    /// A line for each destination.
    pub fn summaries(&self) -> Vec<String> {
        self.destinations.iter().map(summary).collect()
    }
}

/// What became of everything at one destination.
fn summary(stats: &Stats) -> String {
    // A count for each signal that there was any of.
    let counted = |of: &dyn Fn(&SignalStats) -> Amount| {
        let mut texts = Vec::new();
        let mut requests = 0;
        let seen = |stats: &SignalStats| (stats.accepted.requests, stats.recovered.requests) != (0, 0);
        for (signal, stats) in stats.signals.iter().filter(|(_, stats)| seen(stats)) {
            let amount = of(stats);
            let noun = signal.item_noun();
            let noun = if amount.items == 1 { noun.trim_end_matches('s') } else { noun };
            texts.push(format!("{} {noun}", amount.items));
            requests += amount.requests;
        }
        let noun = if requests == 1 { "request" } else { "requests" };
        if texts.is_empty() {
            "nothing".to_owned()
        } else {
            format!("{} in {requests} {noun}", join(&texts, ", "))
        }
    };
    let mut line = format!("sent {} to {}", counted(&|signal| signal.delivered), stats.name);
    let rejected = stats.total(|signal| signal.rejected);
    if rejected.items > 0 {
        let _ = write!(line, "; it rejected {} more", rejected.items);
    }
    for reason in DropReason::ALL {
        let dropped = stats.total(|signal| signal.dropped.get(reason));
        if dropped.requests > 0 {
            let _ = write!(line, "; dropped {}: {reason}", counted(&|signal| signal.dropped.get(reason)));
        }
    }
    let ambiguous = stats.total(|signal| signal.ambiguous);
    if ambiguous.requests > 0 {
        let _ = write!(line, "; {} got no answer and may have arrived", counted(&|signal| signal.ambiguous));
    }
    let in_spool = stats.total(|signal| signal.in_spool);
    if in_spool.requests > 0 {
        let _ =
            write!(line, "; {} are kept in the spool for the next run", counted(&|signal| signal.in_spool));
    }
    if stats.possible_duplicates > 0 {
        let _ = write!(
            line,
            "; {} of the spool's requests at most may have arrived twice, as the run before did not end in order",
            stats.possible_duplicates
        );
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use collector::export::Failure;
    use collector::export::Signal;
    use collector::export::delivery::{Delivery, Step};
    use collector::export::reply::Accepted;
    use collector::export::transport::Refusal;

    fn sent(delivery: &Delivery) -> Sent {
        Sent { destinations: vec![delivery.stats(Duration::ZERO)], errors: Vec::new() }
    }

    #[test]
    fn what_became_of_everything_is_told() {
        let mut delivery = Delivery::new("http://there/".to_owned(), Limits::default(), None);
        for _ in 0..2 {
            let request = Request { signal: Signal::Profiles, items: 7, body: Bytes::from_static(b"body") };
            delivery.push(request, Duration::ZERO);
        }
        assert!(matches!(delivery.step(Duration::ZERO), Step::Send(..)));
        delivery.sent(Duration::ZERO, Ok(Accepted::default()), 0.0);
        let all = sent(&delivery);
        assert!(all.is_complete() && all.errors().is_empty());
        assert_eq!(all.summaries(), ["sent 7 profiles in 1 request to http://there/"]);

        assert!(matches!(delivery.step(Duration::ZERO), Step::Send(..)));
        let partial = Accepted { rejected: 2, message: Some("two are bad".to_owned()) };
        delivery.sent(Duration::ZERO, Ok(partial), 0.0);
        let some = sent(&delivery);
        assert!(!some.is_complete());
        assert_eq!(some.errors(), ["http://there/ says: two are bad"]);
        assert_eq!(some.summaries(), ["sent 12 profiles in 2 requests to http://there/; it rejected 2 more"]);
    }

    #[test]
    fn what_is_dropped_is_told_with_its_reason() {
        let mut delivery = Delivery::new("http://there/".to_owned(), Limits::default(), None);
        let request = Request { signal: Signal::Profiles, items: 7, body: Bytes::from_static(b"body") };
        delivery.push(request, Duration::ZERO);
        delivery.shut_down(Duration::ZERO, Duration::ZERO);
        let sent = sent(&delivery);
        assert!(!sent.is_complete());
        assert_eq!(
            sent.summaries(),
            [
                "sent 0 profiles in 0 requests to http://there/; dropped 7 profiles in 1 request: not delivered by the end"
            ]
        );
    }
    #[test]
    fn trouble_is_told_once_while_it_lasts() {
        let now = Duration::ZERO;
        let mut delivery = Delivery::new("http://there/".to_owned(), Limits::default(), None);
        let mut trouble = Trouble::default();
        let mut attempt = |delivery: &mut Delivery, at, outcome| {
            if delivery.stats(at).total(|signal| signal.in_memory).requests == 0 {
                let request =
                    Request { signal: Signal::Profiles, items: 7, body: Bytes::from_static(b"body") };
                delivery.push(request, at);
            }
            assert!(matches!(delivery.step(at), Step::Send(..)));
            delivery.sent(at, outcome, 0.0);
            trouble.update(&delivery.stats(at))
        };
        let refused = |code| {
            let failure = Failure::Status { code, message: None };
            Err(Refusal { failure: Box::new(failure), asked_to_wait: None, ambiguous: false })
        };
        let hour = Duration::from_secs(3600);
        assert!(attempt(&mut delivery, now, Ok(Accepted::default())).is_empty());
        let told = attempt(&mut delivery, hour, refused(503));
        assert_eq!(told, ["cannot send to http://there/: the receiver answered 503 Service Unavailable"]);
        assert!(attempt(&mut delivery, 2 * hour, refused(503)).is_empty());
        assert!(attempt(&mut delivery, 3 * hour, Ok(Accepted::default())).is_empty());
        // Nothing waits, but it is lost.
        assert_eq!(attempt(&mut delivery, 4 * hour, refused(404)).len(), 1);
        assert!(attempt(&mut delivery, 5 * hour, refused(404)).is_empty());
        assert!(attempt(&mut delivery, 6 * hour, Ok(Accepted::default())).is_empty());
        assert_eq!(attempt(&mut delivery, 7 * hour, refused(404)).len(), 1);
    }
}
