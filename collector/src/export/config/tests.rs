use std::time::Duration;

use super::*;
use crate::export::destination::Protocol;

const BASE: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://base:4318/otlp/");

type Vars<'a> = [(&'a str, &'a str)];

fn lookup<'a>(vars: &'a Vars<'a>) -> impl Fn(&str) -> Option<String> + 'a {
    |name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
}

/// What a build with everything in it makes of it.
fn resolve(signals: &[Signal], flags: &[&str], vars: &Vars<'_>) -> Result<ExportConfig, ExportError> {
    let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
    ExportConfig::resolve_for_any_build(signals, &flags, &lookup(vars))
}

/// The sinks, a line each: server, protocol and signals with their targets, or files.
fn sinks(signals: &[Signal], flags: &[&str], vars: &Vars<'_>) -> Vec<String> {
    let config = resolve(signals, flags, vars).unwrap();
    assert_eq!(config.warnings, [""; 0], "{vars:?}");
    config.sinks.iter().map(line).collect()
}

fn line(sink: &Sink) -> String {
    match sink {
        Sink::Otlp(Destination { endpoint, protocol, targets, .. }) => {
            let protocol = if *protocol == Protocol::default() { "" } else { protocol.name() };
            let targets: Vec<String> =
                targets.iter().map(|(signal, target)| format!("{}={target}", signal.noun())).collect();
            format!("{protocol}{endpoint} {}", targets.join(" "))
        }
        Sink::File(settings) => {
            let files = settings.files.iter();
            files
                .map(|(signal, path)| format!("{}={}", signal.noun(), path.display()))
                .collect::<Vec<_>>()
                .join(" ")
        }
        Sink::Console(signals) => {
            format!("console {}", signals.iter().map(|signal| signal.noun()).collect::<Vec<_>>().join(" "))
        }
    }
}

/// The destination of profiles with a base endpoint and `vars`, and the warnings.
fn with(vars: &Vars<'_>) -> (Destination, Vec<String>) {
    let config = resolve(&[Signal::Profiles], &[], &[&[BASE], vars].concat()).unwrap();
    let [Sink::Otlp(destination)] = &config.sinks[..] else { panic!("{:?}", config.sinks) };
    (destination.clone(), config.warnings)
}

#[test]
fn endpoints_by_precedence() {
    let own = ("OTEL_EXPORTER_OTLP_PROFILES_ENDPOINT", "http://own");
    let base = "http://base:4318/ profiles=/otlp/v1development/profiles";
    for (flags, vars, sink) in [
        (&[][..], &[][..], &[][..]),
        (&[], &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")], &[]),
        (&[], &[BASE], &[base]),
        (&[], &[("OTEL_EXPORTER_OTLP_PROFILES_ENDPOINT", ""), BASE], &[base]),
        (&[], &[BASE, own], &["http://own/ profiles=/"]),
        (
            &["http://flag", "http://other/a?k=v"],
            &[BASE, own],
            &[
                "http://flag/ profiles=/v1development/profiles",
                "http://other/ profiles=/a/v1development/profiles?k=v",
            ],
        ),
        (&["http://flag", "http://flag/"], &[], &["http://flag/ profiles=/v1development/profiles"]),
    ] {
        assert_eq!(sinks(&[Signal::Profiles], flags, vars), sink, "{flags:?} {vars:?}");
    }
}

/// The examples of the specification, and what else groups.
#[test]
fn signals_that_go_the_same_way_share_a_destination() {
    use Signal::{Logs, Metrics, Traces};
    let all = &[Traces, Metrics, Logs][..];
    let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
    for (vars, expected) in [
        (&[base][..], &["http://c:4318/ metrics=/v1/metrics traces=/v1/traces logs=/v1/logs"][..]),
        (
            &[
                ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4318"),
                ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://c.example/v1/metrics"),
            ],
            &["http://c.example/ metrics=/v1/metrics", "http://c:4318/ traces=/"],
        ),
        (
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/mycollector/"),
                ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://c.example/v1/metrics/"),
            ],
            &[
                "http://c.example/ metrics=/v1/metrics/",
                "http://c:4318/ traces=/mycollector/v1/traces logs=/mycollector/v1/logs",
            ],
        ),
        (
            &[base, ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "k=v"), ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "")],
            &["http://c:4318/ metrics=/v1/metrics logs=/v1/logs", "http://c:4318/ traces=/v1/traces"],
        ),
        (
            &[base, ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "grpc")],
            &[
                "http://c:4318/ metrics=/v1/metrics traces=/v1/traces",
                "grpchttp://c:4318/ logs=/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            ],
        ),
    ] {
        assert_eq!(sinks(all, &[], vars), expected, "{vars:?}");
    }
    let flags = sinks(&[Traces, Traces, Logs], &["http://c/a", "http://c/b"], &[]);
    assert_eq!(
        flags,
        ["http://c/ traces=/a/v1/traces logs=/a/v1/logs", "http://c/ traces=/b/v1/traces logs=/b/v1/logs"]
    );
}

#[test]
fn numbers_and_names_that_make_no_sense_are_ignored_and_told() {
    let (config, warnings) = with(&[]);
    assert_eq!((config.timeout, config.compression), (Some(DEFAULT_TIMEOUT), Compression::None));
    assert!(warnings.is_empty());
    let own =
        |value| with(&[("OTEL_EXPORTER_OTLP_PROFILES_TIMEOUT", value), ("OTEL_EXPORTER_OTLP_TIMEOUT", "7")]);
    assert_eq!(own("250").0.timeout, Some(Duration::from_millis(250)));
    assert_eq!(own("0").0.timeout, None);
    for nonsense in ["-1", "+1", "1.5", "10s", "99999999999999999999"] {
        let (config, warnings) = own(nonsense);
        assert_eq!(config.timeout, Some(Duration::from_millis(7)));
        assert!(warnings[0].contains("OTEL_EXPORTER_OTLP_PROFILES_TIMEOUT"), "{warnings:?}");
    }
    assert_eq!(with(&[("OTEL_EXPORTER_OTLP_COMPRESSION", "GZIP")]).0.compression, Compression::Gzip);
    let (config, warnings) = with(&[("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd")]);
    assert_eq!((config.compression, warnings.len()), (Compression::None, 1));
}
