//! Numbers in nine columns at most.

/// `1234567`, `12.35M`, `0.25`.
pub(in crate::output) fn count(n: f64) -> String {
    if n.fract() != 0.0 && n.abs() < 10.0 {
        return format!("{n:.2}");
    }
    scaled(n, 1000.0, &["", "k", "M", "G", "T", "P"], 1e6)
}

/// `512`, `12.35K`, `1.50G`: units of 1024.
pub(in crate::output) fn bytes(n: f64) -> String {
    scaled(n, 1024.0, &["B", "K", "M", "G", "T", "P"], 10_240.0)
}

/// Up to `whole` as it is, else with a suffix.
fn scaled(n: f64, step: f64, suffixes: &[&str], whole: f64) -> String {
    if n.abs() < whole {
        return format!("{n:.0}{}", suffixes.first().unwrap_or(&""));
    }
    let mut n = n;
    let mut suffix = "";
    for next in suffixes {
        suffix = next;
        if n.abs() < step {
            break;
        }
        if Some(next) != suffixes.last() {
            n /= step;
        }
    }
    if n.abs() < 100.0 { format!("{n:.2}{suffix}") } else { format!("{n:.1}{suffix}") }
}

/// `1.23us`, `45.6ms`, `12.0s`.
pub(in crate::output) fn seconds(n: f64) -> String {
    let (n, unit) = match n {
        n if n >= 1.0 => (n, "s"),
        n if n >= 1e-3 => (n * 1e3, "ms"),
        n if n >= 1e-6 => (n * 1e6, "us"),
        n => (n * 1e9, "ns"),
    };
    match n {
        n if n >= 100.0 => format!("{n:.0}{unit}"),
        n if n >= 10.0 => format!("{n:.1}{unit}"),
        n => format!("{n:.2}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fit_their_columns() {
        let counts =
            [(0.25, "0.25"), (3.0, "3"), (999_999.0, "999999"), (12_345_678.0, "12.35M"), (5e12, "5.00T")];
        counts.iter().for_each(|(n, text)| assert_eq!(count(*n), *text));
        let sizes =
            [(512.0, "512B"), (10_239.0, "10239B"), (12_640.0, "12.34K"), (1.5 * 1024f64.powi(3), "1.50G")];
        sizes.iter().for_each(|(n, text)| assert_eq!(bytes(*n), *text));
        let times =
            [(2.5e-7, "250ns"), (1.234e-6, "1.23us"), (0.0456, "45.6ms"), (12.0, "12.0s"), (4000.0, "4000s")];
        times.iter().for_each(|(n, text)| assert_eq!(seconds(*n), *text));
        assert!([1e18, 1e300].iter().all(|n| bytes(*n).len() > 3), "whatever is asked");
    }
}
