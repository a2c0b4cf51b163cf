use std::time::Duration;

use super::*;
use crate::built_in::GzipBuiltIn;
use crate::export::destination::{Protocol, TlsFiles};

const BASE: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://base:4318/otlp/");

type Vars<'a> = [(&'a str, &'a str)];

fn lookup<'a>(vars: &'a Vars<'a>) -> impl Fn(&str) -> Option<String> + 'a {
    |name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
}

/// What a build with everything in it makes of it.
fn resolve(signals: &[Signal], flags: &[&str], vars: &Vars<'_>) -> Result<ExportConfig, Box<ExportError>> {
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
        (
            &[],
            &[("OTEL_EXPORTER_OTLP_PROFILES_ENDPOINT", "unix:///run/s")],
            &["unix:///run/s profiles=/v1development/profiles"],
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
    let (config, warnings) = with(&[("OTEL_EXPORTER_OTLP_COMPRESSION", "GZIP")]);
    match GzipBuiltIn::get() {
        Some(built_in) => assert_eq!(config.compression, Compression::Gzip(built_in)),
        None => assert!(warnings[0].contains("feature `gzip`"), "{warnings:?}"),
    }
    let (config, warnings) = with(&[("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd")]);
    assert_eq!((config.compression, warnings.len()), (Compression::None, 1));
}

#[test]
#[cfg_attr(not(feature = "json"), ignore = "without the feature `json`")]
fn exporters_of_a_signal() {
    use Signal::{Logs, Traces};
    let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c");
    let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let exporter = |value| ("OTEL_TRACES_EXPORTER", value);
    let traces = "http://c/ traces=/v1/traces";
    let default = "http://localhost:4318/ traces=/v1/traces";
    for (flags, vars, expected, warnings) in [
        (&[][..], &[exporter("otlp")][..], &[default][..], 0),
        (
            &[],
            &[exporter("otlp"), grpc],
            &[
                "grpchttp://localhost:4317/ traces=/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            ],
            0,
        ),
        (&[], &[exporter("OTLP, Console,otlp"), base], &[traces, "console traces"], 0),
        (&[], &[exporter("console"), base], &["console traces"], 0),
        (&[], &[exporter("otlp/stdout")], &["console traces"], 0),
        (&[], &[exporter("none"), base], &[], 0),
        (&[], &[exporter("none,console"), base], &["console traces"], 1),
        // What nobody knows is as if it were not there.
        (&[], &[exporter("zipkin"), base], &[traces], 1),
        (&[], &[exporter("logging")], &[], 1),
        (&[], &[exporter("zipkin,none"), base], &[], 1),
        (&["http://c"], &[exporter("none")], &[traces], 1),
        (&["http://c"], &[exporter("console")], &[traces, "console traces"], 1),
        (&["http://c"], &[exporter("console,otlp")], &[traces, "console traces"], 0),
        (&[], &[("OTEL_LOGS_EXPORTER", "console"), base], &[traces], 0),
    ] {
        let config = resolve(&[Traces], flags, vars).unwrap();
        let lines: Vec<String> = config.sinks.iter().map(line).collect();
        assert_eq!(
            (&lines[..], config.warnings.len()),
            (&expected.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>()[..], warnings),
            "{vars:?}"
        );
    }
    let vars = [("OTEL_LOGS_EXPORTER", "console"), ("OTEL_TRACES_EXPORTER", "console"), base];
    assert_eq!(sinks(&[Logs, Traces], &[], &vars), ["console traces logs"]);
}

#[test]
fn grpc_endpoints_are_servers() {
    let target = "profiles=/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export";
    let insecure = ("OTEL_EXPORTER_OTLP_INSECURE", "true");
    let own = |value| ("OTEL_EXPORTER_OTLP_PROFILES_INSECURE", value);
    for (url, vars, server, warnings) in [
        ("http://c:4317", &[][..], "http://c:4317/", 0),
        ("http://c:4317/", &[("OTEL_EXPORTER_OTLP_INSECURE", "false")], "http://c:4317/", 0),
        ("http://c:4317/a", &[], "http://c:4317/", 1),
        ("http://c:4317?s3cret", &[], "http://c:4317/", 1),
        ("c:4317", &[insecure], "http://c:4317/", 0),
        ("[::1]:4317", &[("OTEL_EXPORTER_OTLP_INSECURE", "True")], "http://[::1]:4317/", 0),
        ("c:4317/a", &[own("TRUE")], "http://c:4317/", 1),
        ("c:4317", &[], "https://c:4317/", 0),
        ("c", &[insecure, own("yes")], "https://c/", 1),
        ("https://c:4317", &[insecure], "https://c:4317/", 0),
        ("unix:///run/s", &[], "unix:///run/s", 0),
        ("unix:/run/s", &[], "unix:///run/s", 0),
    ] {
        if server.starts_with("https") && cfg!(not(feature = "tls")) {
            continue;
        }
        for name in ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_PROFILES_ENDPOINT"] {
            let vars = [&[(name, url), ("OTEL_EXPORTER_OTLP_PROTOCOL", "GRPC")], vars].concat();
            let config = resolve(&[Signal::Profiles], &[], &vars).unwrap();
            assert_eq!(config.sinks.iter().map(line).collect::<Vec<_>>(), [format!("grpc{server} {target}")]);
            assert_eq!(config.warnings.len(), warnings, "{url}");
            assert!(!config.warnings.concat().contains("s3cret"));
        }
    }
    for url in ["", "dns:c:4317", "c:port", "ftp://c"] {
        let vars = [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), insecure];
        assert!(resolve(&[Signal::Profiles], &[url], &vars).is_err(), "{url}");
    }
}

#[test]
fn what_this_build_lacks_is_an_error_that_names_the_variable() {
    let names = [
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "OTEL_EXPORTER_OTLP_PROFILES_PROTOCOL",
        "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL",
    ];
    for (protocol, feature) in [(Protocol::Grpc, "`grpc`"), (Protocol::HttpJson, "`json`")] {
        for name in names {
            let vars = [BASE, (name, protocol.name())];
            let resolved = ExportConfig::resolve(&[Signal::Profiles], &[], &lookup(&vars));
            if protocol.is_built_in() || name == names[2] {
                assert!(resolved.is_ok());
                continue;
            }
            let error = resolved.unwrap_err();
            assert!(matches!(*error, ExportError::Protocol { .. }));
            let error = error.to_string();
            assert!(error.starts_with(name) && error.contains(feature), "{error}");
        }
    }
    // Without an endpoint nothing is exported, and nothing can be wrong with how.
    let vars = [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "k")];
    assert!(ExportConfig::resolve(&[Signal::Profiles], &[], &lookup(&vars)).unwrap().sinks.is_empty());
    let own = ("OTEL_EXPORTER_OTLP_PROFILES_PROTOCOL", "http/protobuf");
    assert_eq!(with(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), own]).0.protocol, Protocol::HttpProtobuf);
    assert_eq!(with(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "smoke")]).1.len(), 1);
}

#[test]
#[cfg(feature = "proxy")]
fn signals_behind_different_proxies_are_sent_apart() {
    let vars = [
        ("http_proxy", "http://proxy:3128"),
        ("no_proxy", "inside"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://outside"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://inside/v1/logs"),
    ];
    let config = resolve(&[Signal::Logs, Signal::Traces], &[], &vars).unwrap();
    let proxies = config.sinks.iter().map(|sink| match sink {
        Sink::Otlp(destination) => destination.proxy.as_ref().map(ToString::to_string),
        other => panic!("{other:?}"),
    });
    assert_eq!(proxies.collect::<Vec<_>>(), [Some("http://proxy:3128/".to_owned()), None]);
}

#[test]
#[cfg_attr(not(feature = "json"), ignore = "without the feature `json`")]
fn nothing_is_exported_where_that_is_asked_for() {
    for (value, sinks, warnings) in
        [("true", 0, 1), ("TRUE", 0, 1), ("false", 2, 0), ("", 2, 0), ("1", 2, 1), ("yes", 2, 1)]
    {
        let vars = [("OTEL_SDK_DISABLED", value), ("OTEL_LOGS_EXPORTER", "console,otlp")];
        let config = resolve(&[Signal::Logs], &["http://c"], &vars).unwrap();
        assert_eq!((config.sinks.len(), config.warnings.len()), (sinks, warnings), "{value}");
    }
    let config = resolve(&[Signal::Logs], &["http://c"], &[("OTEL_CONFIG_FILE", "s3cret")]).unwrap();
    assert_eq!(config.sinks.len(), 1);
    assert!(config.warnings[0].contains("OTEL_CONFIG_FILE") && !config.warnings[0].contains("s3cret"));
    let config = resolve(&[], &["http://c"], &[]).unwrap();
    assert!(config.sinks.is_empty());
}

#[test]
#[cfg(not(feature = "json"))]
fn files_and_the_console_need_json() {
    for url in ["file:///d", "file://x"] {
        let error = resolve(&[Signal::Logs], &[url], &[]).unwrap_err();
        assert!(matches!(*error, ExportError::Endpoint { problem: EndpointProblem::Json, .. }), "{error}");
    }
    let console = [BASE, ("OTEL_LOGS_EXPORTER", "console")];
    let error = resolve(&[Signal::Logs], &[], &console).unwrap_err().to_string();
    assert!(error.starts_with("OTEL_LOGS_EXPORTER") && error.contains("feature `json`"), "{error}");
    // Of signals that are not exported, nothing is said.
    assert!(resolve(&[Signal::Traces], &[], &console).is_ok());
}

#[test]
#[cfg(feature = "json")]
fn files_are_sinks_too() {
    use Signal::{Logs, Metrics, Traces};
    let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "file:///d/own");
    let logs = ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "file:///d/logs?max_backups=1");
    let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c");
    for (flags, vars, expected) in [
        (
            &["file:///d"][..],
            &[][..],
            &["metrics=/d/metrics.jsonl traces=/d/traces.jsonl logs=/d/logs.jsonl"][..],
        ),
        (&[], &[traces, base], &["http://c/ metrics=/v1/metrics logs=/v1/logs", "traces=/d/own"]),
        (&[], &[traces, logs], &["traces=/d/own", "logs=/d/logs"]),
    ] {
        assert_eq!(sinks(&[Logs, Metrics, Traces], flags, vars), expected, "{flags:?} {vars:?}");
    }
    for (flags, vars) in [
        (&["file:///d/x.jsonl"][..], &[][..]),
        (&["file:///d", "file:///d?max_backups=1"], &[]),
        (&[], &[traces, ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "file:///d/own")]),
        (&[], &[traces, ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "file:///d/own?max_backups=1")]),
    ] {
        let error = resolve(&[Logs, Traces], flags, vars).unwrap_err();
        assert!(
            matches!(*error, ExportError::Endpoint { problem: EndpointProblem::SharedFile, .. }),
            "{error}"
        );
    }
    assert_eq!(sinks(&[Logs], &["file:///d/x.jsonl"], &[]), ["logs=/d/x.jsonl"]);
}

#[test]
fn proxies_come_from_the_environment() {
    let proxy = |vars: &[(&str, &str)]| {
        resolve(&[Signal::Profiles], &[], &[&[BASE], vars].concat()).map(|config| match &config.sinks[..] {
            [Sink::Otlp(destination)] => destination.proxy.as_ref().map(ToString::to_string),
            sinks => panic!("{sinks:?}"),
        })
    };
    let usable = ("http_proxy", "http://user:s3cret@proxy:3128");
    assert_eq!(proxy(&[]).unwrap(), None);
    if cfg!(not(feature = "proxy")) {
        for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            // No `no_proxy` makes a build understand it.
            let error = proxy(&[(name, usable.1), ("no_proxy", "*")]).unwrap_err().to_string();
            let begin = format!("cannot use the URL in {name}: this build has no proxies (feature `proxy`)");
            assert!(error.starts_with(&begin), "{error}");
        }
        assert_eq!(proxy(&[("https_proxy", usable.1)]).unwrap(), None, "it does not apply");
        for url in
            ["http://localhost:4318", "http://127.0.0.1:4318", "http://[::1]:4318", "unix:///run/otlp.sock"]
        {
            let vars = [("OTEL_EXPORTER_OTLP_ENDPOINT", url), usable];
            assert!(resolve(&[Signal::Profiles], &[], &vars).is_ok(), "{url}");
        }
        return;
    }
    assert_eq!(proxy(&[usable]).unwrap().as_deref(), Some("http://proxy:3128/"));
    assert_eq!(proxy(&[usable, ("no_proxy", "base")]).unwrap(), None);
    let error = proxy(&[("ALL_PROXY", "socks5://user:s3cret@proxy")]).unwrap_err();
    assert_eq!(error.to_string(), "cannot use the URL in ALL_PROXY: only proxies at http:// can be used");
}

#[test]
fn certificates_and_keys_go_together() {
    let certificate = ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/c");
    let key = ("OTEL_EXPORTER_OTLP_PROFILES_CLIENT_KEY", "/k");
    let roots = ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/r");
    let (destination, warnings) = with(&[certificate, roots]);
    assert_eq!((destination.tls, warnings.len()), (TlsFiles::default(), 2));
    let told =
        "ignoring OTEL_EXPORTER_OTLP_CERTIFICATE: OTEL_EXPORTER_OTLP_ENDPOINT is a http:// URL, without TLS";
    assert_eq!(warnings[0], told);
    if cfg!(not(feature = "tls")) {
        return;
    }
    let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c");
    let error = resolve(&[Signal::Profiles], &[], &[base, certificate]).unwrap_err().to_string();
    assert!(error.starts_with(
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE is set and OTEL_EXPORTER_OTLP_CLIENT_KEY is not"
    ));
    assert!(resolve(&[Signal::Profiles], &[], &[base, key]).is_err());
    let config = resolve(&[Signal::Profiles], &[], &[base, certificate, key, roots]).unwrap();
    let [Sink::Otlp(Destination { tls, .. })] = &config.sinks[..] else { panic!("{:?}", config.sinks) };
    let path = |path: &str| Some(path.into());
    let files = TlsFiles { roots: path("/r"), client_certificate: path("/c"), client_key: path("/k") };
    assert_eq!((tls, config.warnings.len()), (&files, 0));
}

#[test]
fn secrets_are_in_no_text() {
    let secret = "s3cret";
    for url in [
        "http://h/?key=s3cret",
        "http://user:s3cret@h",
        "https://user:s3cret@h",
        "http://h:s3cret",
        "u:s3cret@h",
        "s3cret://h",
        "http://h/ s3cret",
        "file:///d?s3cret=1",
        "unix://s3cret",
    ] {
        for (protocol, proxy) in [
            ("http/protobuf", "http://user:s3cret@proxy:3128/s3cret"),
            ("http/json", "socks5://s3cret"),
            ("grpc", "http://user:s3cret@:s3cret"),
        ] {
            let vars = [
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("OTEL_EXPORTER_OTLP_HEADERS", "a=s3cret,s3cret,b c=s3cret,host=s3cret,d=s3cret%0a"),
                ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/k"),
                ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/c"),
                ("OTEL_RESOURCE_ATTRIBUTES", "s3cret"),
                ("OTEL_CONFIG_FILE", "s3cret"),
                ("OTEL_SERVICE_NAME", ""),
                ("http_proxy", proxy),
                ("HTTPS_PROXY", proxy),
            ];
            let text = match ExportConfig::resolve(&Signal::ALL, &[url.to_owned()], &lookup(&vars)) {
                Ok(config) => format!("{config:?} {:?}", config.sinks.iter().map(debug).collect::<Vec<_>>()),
                Err(error) => format!("{error} {error:?}"),
            };
            assert!(!text.contains(secret), "{url} {text}");
            let (_, warnings) = AgentResource::from_env(&lookup(&vars), "agent", 0);
            assert!(warnings.len() == 1 && !warnings[0].contains(secret));
        }
    }
}

fn debug(sink: &Sink) -> String {
    match sink {
        Sink::Otlp(destination) => format!("{} {:#?}", destination.endpoint, destination),
        other => format!("{other:#?}"),
    }
}
