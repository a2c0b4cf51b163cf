//! When to try again.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant, SystemTime};

/// Longest delay between two attempts that is not asked for by the receiver.
const MAX_DELAY: Duration = Duration::from_secs(30);

/// Longest delay between two attempts that a receiver can ask for: who asks for more is asked again by then.
const MAX_ASKED: Duration = Duration::from_secs(3600);
/// A receiver that asks for less has not asked: it would be busy with our attempts alone.
const MIN_ASKED: Duration = Duration::from_millis(100);

/// How long to keep trying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Delay after the first failure, before jitter; each further one is twice as long, up to 30 s.
    pub first_delay: Duration,
    /// Time for all attempts and delays together.
    pub total: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { first_delay: Duration::from_secs(1), total: Duration::MAX }
    }
}

impl RetryPolicy {
    /// For commands that send once and end: a person waits.
    pub const ONE_SHOT: Self = Self { first_delay: Duration::from_secs(1), total: Duration::from_secs(15) };

    /// The delay after `failures` failures (1 or more): what the receiver asked for, at most an hour, or the backoff.
    pub fn delay(&self, failures: u32, asked: Option<Duration>, jitter: f64) -> Duration {
        match asked.filter(|asked| *asked >= MIN_ASKED) {
            Some(asked) => asked.min(MAX_ASKED),
            None => self.backoff(failures, jitter),
        }
    }

    /// The delay after `failures` failures (1 or more). `jitter`, in 0..1, takes away up to half, so that senders
    /// that failed together do not come back together.
    pub fn backoff(&self, failures: u32, jitter: f64) -> Duration {
        let doubled = 2_u32.checked_pow(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let delay = self.first_delay.saturating_mul(doubled).min(MAX_DELAY);
        delay.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
    }
}

/// What waiting needs of the world.
pub trait Timing {
    /// For durations.
    fn now(&self) -> Instant;
    /// For dates.
    fn wall(&self) -> SystemTime;
    /// Waits.
    fn sleep(&mut self, duration: Duration);
    /// A random number in 0..1.
    fn jitter(&mut self) -> f64;
}

/// The world.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemTiming;

impl Timing for SystemTiming {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn sleep(&mut self, duration: Duration) {
        std::thread::sleep(duration);
    }

    fn jitter(&mut self) -> f64 {
        // A hasher's seed is random enough to spread attempts, and needs no dependency.
        let bits = RandomState::new().hash_one(0) >> 32;
        bits as f64 / f64::from(u32::MAX)
    }
}

/// The delay that a `Retry-After` header asks for: seconds, or an HTTP date.
pub fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_limit_and_jitter_takes_up_to_half() {
        let policy = RetryPolicy::ONE_SHOT;
        let seconds: Vec<f64> =
            [1, 2, 3, 6, 40, u32::MAX].map(|failures| policy.backoff(failures, 0.0).as_secs_f64()).to_vec();
        assert_eq!(seconds, [1.0, 2.0, 4.0, 30.0, 30.0, 30.0]);
        assert_eq!(policy.backoff(2, 1.0), Duration::from_secs(1));
        assert_eq!(policy.backoff(2, 0.5), Duration::from_millis(1500));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(parse_retry_after(" 7 ", now), Some(Duration::from_secs(7)));
        assert_eq!(parse_retry_after("Sun, 06 Nov 1994 08:50:07 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(parse_retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(parse_retry_after("99999999999999999999", now), Some(Duration::from_secs(u64::MAX)));
        for nonsense in ["", "-1", "1.5", "soon", "Sun, 99 Nov 1994"] {
            assert_eq!(parse_retry_after(nonsense, now), None);
        }
    }

    #[test]
    fn jitter_is_in_range_and_varies() {
        let jitters: Vec<f64> = (0..16).map(|_| SystemTiming.jitter()).collect();
        assert!(jitters.iter().all(|jitter| (0.0..=1.0).contains(jitter)));
        assert!(jitters.iter().any(|jitter| *jitter != jitters[0]));
    }
}
