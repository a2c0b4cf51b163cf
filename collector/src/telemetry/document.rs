//! `docs/telemetry.md`, from the definitions.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::{Definitions, Instrument, Severity, Subject, agent};
use crate::agent::self_metrics;
use crate::tracer::ladder::Ladder;
use crate::tracer::{Info, TRACERS, cause};

/// What is said of all telemetry, before the tables.
const INTRODUCTION: &str = include_str!("document/introduction.md");
/// What profiles have, whatever they count.
const PROFILES: &str = include_str!("document/profiles.md");
/// Kernels that are tested.
const KERNELS: [(u32, u32); 4] = [(5, 10), (6, 1), (6, 12), (7, 2)];

/// What the agent tells about itself.
static OWN: [&Definitions; 2] = [&self_metrics::DEFINITIONS, &agent::AGENT];

/// Everything that the agent tells, and what it takes, as Markdown.
pub fn document() -> String {
    let mut text = INTRODUCTION.to_owned();
    // Writing to a string does not fail.
    let _ = write(&mut text);
    text
}

fn write(to: &mut String) -> std::fmt::Result {
    for info in TRACERS {
        writeln!(to, "\n## {}: {}\n", info.name, info.about)?;
        if !info.on_by_default {
            writeln!(to, "`run` has it on only where it is told to.\n")?;
        }
        definitions(to, &info.telemetry)?;
        writeln!(to, "| measures | rung | kernel | drawback | tells |\n|---|---|---|---|---|")?;
        for ladder in info.ladders {
            rungs(to, info, ladder)?;
        }
    }
    writeln!(
        to,
        "\n## The agent itself\n\nOf the resource `service.name=ebpf-otlp`, unless `OTEL_SERVICE_NAME` says otherwise.\n"
    )?;
    OWN.iter().try_for_each(|own| definitions(to, own))?;
    writeln!(to, "`ebpf.drop.cause` of `ebpf.agent.drops`, as every tracer says it:\n")?;
    writeln!(to, "| cause | what is missing |\n|---|---|")?;
    for (name, about) in cause::ALL {
        writeln!(to, "| `{name}` | {} |", about.trim().trim_end_matches('.'))?;
    }
    writeln!(to, "\n## Every metric on the kernels that are tested\n")?;
    writeln!(
        to,
        "The best rung that x86_64 has in that version, if the kernel is built with what the rung needs (`ebpf-otlp check`"
    )?;
    writeln!(to, "tells of this machine). Names of metrics, spans, log records and types of profiles.\n")?;
    write!(to, "| name | tracer |")?;
    KERNELS.iter().try_for_each(|(major, minor)| write!(to, " {major}.{minor} |"))?;
    writeln!(to, "\n|---|---|{}", "---|".repeat(KERNELS.len()))?;
    for info in TRACERS {
        for (name, source) in sources(&info.telemetry) {
            write!(to, "| `{name}` | {} |", info.name)?;
            let ladder = info.ladders.iter().find(|ladder| ladder.what == source);
            for kernel in KERNELS {
                let rung = ladder.map_or(Some("any"), |ladder| {
                    ladder.rungs.iter().find(|rung| has(rung.since, kernel)).map(|rung| rung.name)
                });
                write!(to, " {} |", rung.unwrap_or("unavailable"))?;
            }
            writeln!(to)?;
        }
    }
    write!(to, "\n{PROFILES}")
}

fn definitions(to: &mut String, all: &Definitions) -> std::fmt::Result {
    if !all.metrics.is_empty() {
        writeln!(
            to,
            "| metric | unit | kind | of | attributes | what | from |\n|---|---|---|---|---|---|---|"
        )?;
        for metric in all.metrics {
            let kind = match metric.instrument {
                Instrument::Counter => "sum",
                Instrument::UpDownCounter => "sum, may fall",
                Instrument::Gauge => "gauge",
                Instrument::Histogram => "exponential histogram",
            };
            let of = match metric.subject {
                Subject::Process => "processes",
                Subject::Host => "machine",
                Subject::Agent => "agent",
            };
            let (name, unit, attributes) = (metric.name, metric.unit, codes(metric.attributes));
            let (what, from) = (metric.description, metric.source);
            writeln!(to, "| `{name}` | `{unit}` | {kind} | {of} | {attributes} | {what} | {from} |")?;
        }
        writeln!(to)?;
    }
    if !all.spans.is_empty() {
        writeln!(to, "| span | attributes | what | from |\n|---|---|---|---|")?;
        for span in all.spans {
            let (name, attributes) = (span.name, codes(span.attributes));
            writeln!(to, "| `{name}` | {attributes} | {} | {} |", span.description, span.source)?;
        }
        writeln!(to)?;
    }
    if !all.logs.is_empty() {
        writeln!(to, "| log record | severity | attributes | what | from |\n|---|---|---|---|---|")?;
        for log in all.logs {
            let severity = match log.severity {
                Severity::Info => "INFO",
                Severity::Warn => "WARN",
                Severity::Error => "ERROR",
            };
            let (name, attributes) = (log.name, codes(log.attributes));
            writeln!(to, "| `{name}` | {severity} | {attributes} | {} | {} |", log.description, log.source)?;
        }
        writeln!(to)?;
    }
    if !all.profiles.is_empty() {
        writeln!(to, "| profile | unit | period | what | from |\n|---|---|---|---|---|")?;
        for profile in all.profiles {
            let ((kind, unit), (period, of)) = (profile.sample_type.value, profile.sample_type.period);
            let period = if period.is_empty() { String::new() } else { format!("`{period}`, `{of}`") };
            writeln!(
                to,
                "| `{kind}` | `{unit}` | {period} | {} | {} |",
                profile.description, profile.source
            )?;
        }
        writeln!(to)?;
    }
    Ok(())
}

fn rungs(to: &mut String, info: &Info, ladder: &Ladder) -> std::fmt::Result {
    let told: BTreeSet<_> =
        sources(&info.telemetry).filter(|(_, source)| *source == ladder.what).map(|(name, _)| name).collect();
    let told: Vec<_> = told.into_iter().collect();
    let tells = if told.is_empty() { "part of the others".to_owned() } else { codes(&told) };
    for (at, rung) in ladder.rungs.iter().enumerate() {
        let (what, tells) = if at == 0 { (ladder.what, tells.as_str()) } else { ("", "") };
        writeln!(to, "| {what} | {} | {} | {} | {tells} |", rung.name, rung.since, rung.drawback)?;
    }
    let none = if ladder.required { "the tracer does not start" } else { "unavailable" };
    writeln!(to, "| | none of these | | {none} | |")
}

/// Name and source of all that is told.
fn sources(all: &Definitions) -> impl Iterator<Item = (&'static str, &'static str)> {
    let metrics = all.metrics.iter().map(|metric| (metric.name, metric.source));
    let spans = all.spans.iter().map(|span| (span.name, span.source));
    let logs = all.logs.iter().map(|log| (log.name, log.source));
    let profiles = all.profiles.iter().map(|profile| (profile.sample_type.value.0, profile.source));
    metrics.chain(spans).chain(logs).chain(profiles)
}

fn codes(names: &[&str]) -> String {
    let codes: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    codes.join(", ")
}

/// Whether x86_64 has what there is `since` a version: `5.8`, `5.8 on x86-64`, `5.8, 6.4 on arm64`.
fn has(since: &str, kernel: (u32, u32)) -> bool {
    let mut parts = since.split([',', ';']).map(str::trim);
    let of_x86 = parts.find(|part| !part.contains(" on ") || part.contains(" on x86"));
    let version = of_x86.and_then(|part| part.split(' ').next()?.split_once('.'));
    let version = version.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    version.is_some_and(|version: (u32, u32)| version <= kernel)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    #[cfg_attr(not(feature = "unwind"), ignore = "without the feature `unwind`")]
    fn the_document_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/telemetry.md");
        let expected = document();
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &expected).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap();
        let differs = expected.lines().zip(found.lines()).find(|(a, b)| a != b);
        assert!(
            expected == found,
            "docs/telemetry.md is not what the definitions say; UPDATE=1 cargo test -p collector --lib telemetry::document \
             writes it. First difference: {differs:?}"
        );
    }

    #[test]
    fn names_mean_one_thing() {
        let mut known = BTreeMap::new();
        let all = TRACERS.iter().map(|info| &info.telemetry).chain(OWN.iter().copied());
        for metric in all.flat_map(|all| all.metrics) {
            // The conventions' names of processes may be several tracers'.
            let same = (metric.unit, metric.instrument);
            assert_eq!(*known.entry(metric.name).or_insert(same), same, "{}", metric.name);
            assert!(!metric.description.ends_with('.') && !metric.unit.is_empty(), "{}", metric.name);
            let unique: BTreeSet<_> = metric.attributes.iter().collect();
            assert_eq!(unique.len(), metric.attributes.len(), "{}", metric.name);
        }
    }

    #[test]
    fn what_is_told_comes_from_a_ladder_or_a_file() {
        for info in TRACERS {
            for (name, source) in sources(&info.telemetry) {
                let is_ladder = info.ladders.iter().any(|ladder| ladder.what == source);
                assert!(is_ladder || source.starts_with('/'), "{name} comes from {source:?}");
            }
        }
    }

    #[test]
    fn rungs_by_version() {
        assert!(has("5.8", (5, 10)) && !has("5.11", (5, 10)) && has("5.11", (6, 1)));
        assert!(has("5.8, 6.4 on arm64", (5, 10)) && has("5.8; 6.0 on arm64", (5, 10)));
        assert!(has("5.8 on x86-64", (5, 10)) && has("6.4 on arm64, 5.8 on x86_64", (5, 10)));
        assert!(!has("6.0 on arm64", (7, 2)) && !has("", (7, 2)));
    }
}
