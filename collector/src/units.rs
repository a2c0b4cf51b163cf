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
/// The least number of more of them.
const MOST: f64 = 1e15;

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
    let digits: u64 = (whole.to_owned() + fraction).parse().ok().filter(|digits| *digits <= 1 << 53)?;
    let exponent = exponent.parse::<i32>().ok()?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    if digits != 0 && exponent.unsigned_abs() > 22 {
        return None;
    }
    let power = (0..exponent.unsigned_abs().min(22)).fold(1.0, |power, _| power * 10.0);
    let value = if exponent < 0 { digits as f64 / power } else { digits as f64 * power };
    Some(if number.starts_with('-') { -value } else { value })
}

/// As `Display` writes it where 15 digits are enough, as they are for all that [`decimal`] reads; else with so many. The standard
/// library finds as many as are needed, with 9 KB of code and tables.
pub fn show_decimal(number: f64) -> String {
    let sign = if number.is_sign_negative() { "-" } else { "" };
    let magnitude = number.abs();
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if magnitude >= 1e37 {
        return format!("{sign}inf");
    }
    // Powers of ten to 22 are exact, so that each quotient and product is rounded once.
    let mut power = 1.0;
    let mut zeros = 0;
    while magnitude / power >= MOST {
        power *= 10.0;
        zeros += 1;
    }
    if zeros > 0 {
        return format!("{sign}{}{}", (magnitude / power + 0.5) as u64, "0".repeat(zeros));
    }
    let (mut digits, mut places) = ((magnitude + 0.5) as u64, 0);
    while digits as f64 / power != magnitude && places < 22 && magnitude * power * 10.0 < MOST {
        power *= 10.0;
        places += 1;
        digits = (magnitude * power + 0.5) as u64;
    }
    let text = point(digits, places);
    let shown = if places > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{sign}{shown}")
}

/// A number of 0 or more with so many places behind the point.
pub fn show_fixed(number: f64, places: usize) -> String {
    let scale = (0..places).fold(1.0, |scale, _| scale * 10.0);
    point((number * scale + 0.5) as u64, places)
}

fn point(digits: u64, places: usize) -> String {
    let mut text = format!("{digits:0>width$}", width = places + 1);
    if places > 0 {
        text.insert(text.len() - places, '.');
    }
    text
}

/// So much of a duration; less than nothing is nothing.
pub fn share_of(duration: Duration, share: f64) -> Duration {
    Duration::from_nanos((duration.as_secs_f64() * share * 1e9) as u64)
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
    fn decimals_are_shown_as_the_standard_library_does() {
        let mut numbers =
            vec![0.0, 0.1, 0.5, 1.0, 2.5, 99.99, 1e14, 999_999_999_999_999.0, 1e15, 1e22, 1.25e20, 1e-22];
        numbers.extend([1.5e-7, 123_456.789, 0.000_123, 4_294_967_295.0, f64::INFINITY]);
        for nanos in [1_u64, 10, 999, 1_000_000_001, 86_400_123_456_789, 123_456_789_012] {
            numbers.push(nanos as f64 / 1e9);
        }
        numbers.extend((0..=10_000).map(|n| f64::from(n) / 100.0));
        for number in numbers {
            assert_eq!(show_decimal(number), number.to_string());
            assert_eq!(show_decimal(-number), (-number).to_string());
            if number == 0.0 || (1e-7..1e15).contains(&number) {
                assert_eq!(decimal(&show_decimal(number)), Some(number));
            }
        }
        assert_eq!(show_decimal(f64::NAN), "NaN");
        // More digits than that are rounded away.
        assert_eq!(show_decimal(0.1 + 0.2), "0.3");
        assert_eq!(show_decimal(0.07 * 100.0), "7");
        assert_eq!(show_decimal(1.0 / 3.0), "0.333333333333333");
        assert_eq!(show_decimal(2.0 / 3e20), "0.0000000000000000000067");
    }

    #[test]
    fn places_are_as_many_as_wanted() {
        for number in [0.0, 0.04, 0.06, 0.96, 1.0, 7.3333, 123_456.789] {
            for places in 0..4 {
                assert_eq!(show_fixed(number, places), format!("{number:.places$}"));
            }
        }
    }

    #[test]
    fn shares_of_durations() {
        let two = Duration::from_secs(2);
        let shares = [-1.0, 0.0, 0.75, 1.0, f64::NAN].map(|share| share_of(two, share).as_millis());
        assert_eq!(shares, [0, 0, 1500, 2000, 0]);
        assert!(share_of(Duration::MAX, 2.0) > Duration::from_secs(1 << 34));
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
