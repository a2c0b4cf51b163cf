//! When to try again.

use std::time::{Duration, SystemTime};

use crate::units::share_of;

/// Longest delay between two attempts that a receiver can ask for: who asks for more is asked again by then.
const MAX_ASKED: Duration = Duration::from_secs(3600);
/// A receiver that asks for less has not asked: it would be busy with our attempts alone.
const MIN_ASKED: Duration = Duration::from_millis(100);

/// How fast to try again. There is no end to it: requests are tried as long as the queue has room for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Delay after the first failure, before jitter; each further one is twice as long.
    pub first_delay: Duration,
    /// The longest delay that the receiver did not ask for.
    pub max_delay: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { first_delay: Duration::from_secs(1), max_delay: Duration::from_secs(30) }
    }
}

impl RetryPolicy {
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
        let delay = self.first_delay.saturating_mul(doubled).min(self.max_delay);
        share_of(delay, 1.0 - jitter.clamp(0.0, 1.0) / 2.0)
    }
}

/// A random number in 0..1.
pub(super) fn jitter() -> f64 {
    let bits = bpf_sys::random::number() >> 32;
    bits as f64 / f64::from(u32::MAX)
}

/// The delay that a `Retry-After` header asks for: seconds, or an HTTP date.
pub fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = SystemTime::UNIX_EPOCH.checked_add(http_date(value.as_bytes())?)?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// The time since 1970 of a date as servers must write it: those of before 1999 wrote two more formats.
fn http_date(text: &[u8]) -> Option<Duration> {
    const FORM: &[u8] = b"???, ?? ??? ???? ??:??:?? GMT";
    const DAYS: &[u8] = b"ThuFriSatSunMonTueWed";
    const MONTHS: &[u8] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    if text.len() != FORM.len() || FORM.iter().zip(text).any(|(form, byte)| *form != b'?' && form != byte) {
        return None;
    }
    let name = |names: &[u8], at: usize| {
        let index = names.chunks(3).position(|name| text.get(at..at + 3) == Some(name))?;
        u64::try_from(index).ok()
    };
    let number = |at: usize, len: usize| {
        let digits = text.get(at..at + len)?;
        digits.iter().try_fold(0, |n, b| b.is_ascii_digit().then(|| n * 10 + u64::from(b - b'0')))
    };
    // Days from the first of March of year 0 to the first of a month: the leap day is the last of its year.
    let first = |month: u64| {
        let (year, month) = (month / 12, month % 12);
        year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5
    };
    let month = (number(12, 4)? * 12 + name(MONTHS, 8)?).checked_sub(2)?;
    let days = first(month) + number(5, 2)?.checked_sub(1)?;
    let (hour, minute, second) = (number(17, 2)?, number(20, 2)?, number(23, 2)?);
    // 719468 days later, it is 1970.
    let since = days.checked_sub(719_468)?;
    let is_date = days < first(month + 1) && since % 7 == name(DAYS, 0)?;
    let is_time = hour < 24 && minute < 60 && second < 60;
    (is_date && is_time).then(|| Duration::from_secs(((since * 24 + hour) * 60 + minute) * 60 + second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_limit_and_jitter_takes_up_to_half() {
        let policy = RetryPolicy::default();
        let seconds: Vec<f64> =
            [1, 2, 3, 6, 40, u32::MAX].map(|failures| policy.backoff(failures, 0.0).as_secs_f64()).to_vec();
        assert_eq!(seconds, [1.0, 2.0, 4.0, 30.0, 30.0, 30.0]);
        assert_eq!(policy.backoff(2, 1.0), Duration::from_secs(1));
        assert_eq!(policy.backoff(2, 0.5), Duration::from_millis(1500));
    }

    #[test]
    fn receivers_that_ask_are_heard_within_reason() {
        let delay = |asked| RetryPolicy::default().delay(2, Some(asked), 0.0);
        assert_eq!(delay(Duration::from_secs(7)), Duration::from_secs(7));
        assert_eq!(delay(Duration::MAX), Duration::from_secs(3600));
        assert_eq!(delay(Duration::ZERO), Duration::from_secs(2));
        assert_eq!(delay(Duration::from_nanos(1)), Duration::from_secs(2));
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
    fn dates_are_what_the_crate_for_them_says() {
        let same = |text: &str| {
            let theirs = httpdate::parse_http_date(text).ok();
            let theirs = theirs.and_then(|date| date.duration_since(SystemTime::UNIX_EPOCH).ok());
            assert_eq!(http_date(text.as_bytes()), theirs, "{text}");
        };
        // Up to the end of the year 9999, with an odd step.
        for seconds in (0..253_402_300_800).step_by(7_654_321) {
            let date = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            same(&httpdate::fmt_http_date(date));
        }
        // What is no date: days that months do not have, and all but one of the weekdays.
        for month in ["Jan", "Feb", "Apr", "Dec", "dec", "Foo"] {
            for year in ["1969", "1970", "2000", "2001", "2004", "2100", "9999", "19x0"] {
                for (day, weekday) in (0..=32).flat_map(|day| ["Sun", "Thu", "thu"].map(|name| (day, name))) {
                    same(&format!("{weekday}, {day:02} {month} {year} 23:59:59 GMT"));
                }
            }
        }
        for time in ["24:00:00", "00:60:00", "00:00:60", "0:00:000", "00-00-00", "+1:00:00", "00:00:00 "] {
            same(&format!("Thu, 01 Jan 1970 {time} GMT"));
        }
        same("Thu, 01 Jan 1970 00:00:00 UTC");
        // Formats that nobody sends any more.
        for old in ["Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert!(httpdate::parse_http_date(old).is_ok() && http_date(old.as_bytes()).is_none());
        }
    }

    #[test]
    fn jitter_is_in_range_and_varies() {
        let jitters: Vec<f64> = (0..16).map(|_| jitter()).collect();
        assert!(jitters.iter().all(|jitter| (0.0..=1.0).contains(jitter)));
        assert!(jitters.iter().any(|jitter| *jitter != jitters[0]));
    }
}
