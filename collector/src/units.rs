//! Durations and sizes as people write them. Pure.

use std::time::Duration;

/// Longest duration.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);
/// Least size: nothing that has one works with less.
const LEAST: u64 = 1 << 20;

/// In microseconds.
const DURATION_UNITS: [(&str, u64); 5] =
    [("us", 1), ("ms", 1000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000)];
const SIZE_UNITS: [(&str, u32); 4] = [("K", 10), ("M", 20), ("G", 30), ("T", 40)];

/// `10s`, `500ms`, `20us`, `2m`, `1h`; a bare number is seconds. At most a year, at least a microsecond.
///
/// # Errors
///
/// Says what is wrong, beginning with the text.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (count, unit) = split(text);
    let unit = if unit.is_empty() { "s" } else { unit };
    let micros = DURATION_UNITS.iter().find(|(name, _)| *name == unit);
    micros
        .and_then(|(_, micros)| count.parse::<u64>().ok()?.checked_mul(*micros))
        .map(Duration::from_micros)
        .filter(|d| !d.is_zero() && *d <= LONGEST)
        .ok_or_else(|| format!("{text} is not a duration: write it as 10s, 500ms, 2m or 1h"))
}

/// `64M`, `1G`, `512K`, in powers of 1024; a bare number is bytes. At least 1 MiB.
///
/// # Errors
///
/// Says what is wrong, beginning with the text.
pub fn size(text: &str) -> Result<u64, String> {
    let (count, unit) = split(text);
    let shift = if unit.is_empty() { Some(0) } else { unit_shift(unit) };
    shift
        .and_then(|shift| count.parse::<u64>().ok()?.checked_mul(1 << shift))
        .filter(|bytes| *bytes >= LEAST)
        .ok_or_else(|| format!("{text} is not a size of 1M or more: write it as 64M or 1G"))
}

/// As [`duration`] takes it.
pub fn show_duration(duration: Duration) -> String {
    let micros = duration.as_micros() as u64;
    if micros == 0 {
        return "0s".to_owned();
    }
    let unit = DURATION_UNITS.iter().rev().find(|(_, unit)| micros >= *unit && micros % unit == 0);
    let (name, unit) = unit.copied().unwrap_or(("us", 1));
    format!("{}{name}", micros / unit)
}

/// As [`size`] takes it.
pub fn show_size(bytes: u64) -> String {
    let unit = SIZE_UNITS.iter().rev().find(|(_, shift)| bytes >= 1 << shift && bytes % (1 << shift) == 0);
    unit.map_or_else(|| bytes.to_string(), |(name, shift)| format!("{}{name}", bytes >> shift))
}

fn unit_shift(unit: &str) -> Option<u32> {
    SIZE_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, shift)| *shift)
}

/// Decimal digits that a double always holds.
const DIGITS: usize = 15;

fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// A number with a fraction or an exponent, as `-1.25` or `1e6`. Digits of the fraction beyond 15 in all, which no number here
/// needs, are cut off: the standard library's reader takes any, with 13 KB of tables.
pub fn decimal(text: &str) -> Option<f64> {
    let (number, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let unsigned = number.strip_prefix(['+', '-']).unwrap_or(number);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let room = DIGITS.saturating_sub(whole.trim_start_matches('0').len());
    let fraction = fraction.get(..room.min(fraction.len())).unwrap_or_default().trim_end_matches('0');
    // Both exact, so that the result is rounded once.
    let digits: u64 = [whole, fraction].concat().parse().ok().filter(|digits| *digits <= 1 << 53)?;
    let exponent = exponent.parse::<i32>().ok()?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    if digits != 0 && exponent.unsigned_abs() > 22 {
        return None;
    }
    let power = (0..exponent.unsigned_abs().min(22)).fold(1.0, |power, _| power * 10.0);
    let value = if exponent < 0 { digits as f64 / power } else { digits as f64 * power };
    Some(if number.starts_with('-') { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_reads_back() {
        for millis in [1, 500, 1000, 1500, 60_000, 90_000, 3_600_000, 86_400_000] {
            let one = Duration::from_millis(millis);
            assert_eq!(duration(&show_duration(one)), Ok(one));
        }
        for bytes in [1 << 20, (1 << 20) + 1, 1536 << 10, 32 << 20, 5 << 30, 1 << 40] {
            assert_eq!(size(&show_size(bytes)), Ok(bytes));
        }
        assert_eq!(
            (show_duration(Duration::from_secs(60)), show_size(32 << 20)),
            ("1m".into(), "32M".into())
        );
    }

    #[test]
    fn decimals_are_as_exact_as_the_standard_library_s() {
        for text in [
            "0",
            "-0",
            "1",
            "+1.5",
            "0.1",
            "-0.3",
            "1e22",
            "1e-22",
            "1.25e3",
            "9007199254740992",
            "123456.789",
            "0.000123",
            "1.0",
            "100.000",
            "0e400",
            "2.5E-3",
            "1e+2",
        ] {
            let exact: f64 = text.parse().unwrap();
            assert_eq!(decimal(text).map(f64::to_bits), Some(exact.to_bits()), "{text}");
        }
        // Digits that no double holds are cut off.
        assert_eq!(decimal("0.30000000000000004"), Some(0.3));
        assert_eq!(decimal("12.345678901234567"), Some(12.3456789012345));
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "1e",
            "e1",
            "1e5.0",
            "--1",
            "1e23",
            "9007199254740993",
            "nan",
            "1_0",
            "0x1",
            "+",
        ] {
            assert_eq!(decimal(text), None, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["0s", "", "s", "1d", "-1s", "1.5s", "99999999999h", "1000h1"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        for bad in ["", "K", "1K", "1X", "-1M", "99999999999T", "1 M"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
