//! What is exported, where to and how: from `--endpoint` and the `OTEL_*` variables.
//!
//! As the OpenTelemetry specification (1.60) has it: a signal's own variable comes before the general one, empty
//! is unset, and a value that makes no sense is warned of and ignored. Only what would send data elsewhere than
//! asked, or not as secure, is an error. `docs/export.md` has a table of all variables.
//!
//! Everything here is pure: variables come from a function, and no file is opened.

mod env;
mod exporters;
mod headers;
mod otlp;
mod resource;
mod sdk;

pub use env::process_env;
pub use headers::Header;
pub use otlp::{Compression, DEFAULT_TIMEOUT};
pub use resource::{AgentResource, SharedAttributes, TELEMETRY_SDK};
pub use sdk::{BatchSettings, Limits, LogLevel, MetricSettings, SdkSettings, Temporality};

use self::env::Env;
use self::exporters::Exporters;
use self::otlp::{Place, names};
use super::destination::Destination;
use super::file::FileSettings;
use super::{EndpointProblem, ExportError, Signal};
use crate::sorted::SortedSet;

/// Where data goes. Every sink has its own queue.
#[derive(Debug, Clone, PartialEq, Eq)]
// There are a few of them, for as long as the process lives.
#[allow(clippy::large_enum_variant)]
pub enum Sink {
    /// A receiver.
    Otlp(Destination),
    /// Files of OTLP JSON lines.
    File(FileSettings),
    /// OTLP JSON lines of these signals on standard output.
    Console(Vec<Signal>),
}

impl Sink {
    /// Whether a signal goes there.
    pub fn takes(&self, signal: Signal) -> bool {
        match self {
            Self::Otlp(destination) => destination.target(signal).is_some(),
            Self::File(settings) => settings.path(signal).is_some(),
            Self::Console(signals) => signals.contains(&signal),
        }
    }

    /// Makes one of both if they differ in their signals alone.
    fn absorb(&mut self, other: &Self) -> bool {
        match (self, other) {
            (Self::Otlp(own), Self::Otlp(other)) => own.absorb(other),
            (Self::File(own), Self::File(other)) => own.absorb(other),
            _ => false,
        }
    }
}

/// What is exported.
#[derive(Debug)]
pub struct ExportConfig {
    /// Where to; empty where nobody asks for an export.
    pub sinks: Vec<Sink>,
    /// A line for each value that was ignored; header values, URLs and paths are not in them.
    pub warnings: Vec<String>,
}

impl ExportConfig {
    /// Where `signals` go.
    ///
    /// Every one of `flags`, the values of `--endpoint`, is a base like `OTEL_EXPORTER_OTLP_ENDPOINT` and a sink of its
    /// own for all signals, and they are stronger than any variable but `OTEL_SDK_DISABLED`. Signals whose server,
    /// protocol, headers, compression, timeout, TLS files and proxy are equal share one [`Destination`].
    ///
    /// Without flags, a signal is exported to the endpoint of its variables. Without those, it is not exported, unless
    /// `OTEL_<SIGNAL>_EXPORTER` asks for it: `otlp` then means `http://localhost:4318` (4317 for gRPC).
    ///
    /// `env` looks up a variable; [`process_env`] does.
    ///
    /// # Errors
    ///
    /// [`ExportError::Endpoint`], [`ExportError::Protocol`], [`ExportError::Json`] and
    /// [`ExportError::ClientCertificate`]: what was asked for and cannot be done.
    pub fn resolve(
        signals: &[Signal],
        flags: &[String],
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Box<ExportError>> {
        let config = Self::resolve_for_any_build(signals, flags, env)?;
        for sink in &config.sinks {
            let Sink::Otlp(Destination { protocol, targets, .. }) = sink else { continue };
            let Some(&(signal, _)) = targets.first().filter(|_| !protocol.is_built_in()) else { continue };
            let (variable, _) = otlp::protocol(&mut Env::new(env), signal);
            return Err(Box::new(ExportError::Protocol {
                variable: variable.unwrap_or_default(),
                protocol: *protocol,
            }));
        }
        Ok(config)
    }

    /// [`Self::resolve`] for a build that speaks all protocols.
    fn resolve_for_any_build(
        signals: &[Signal],
        flags: &[String],
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Box<ExportError>> {
        let mut env = Env::new(env);
        for name in ["OTEL_CONFIG_FILE", "OTEL_EXPERIMENTAL_CONFIG_FILE"] {
            if env.get(name).is_some() {
                env.warn(format!(
                    "ignoring {name}: configuration files of OpenTelemetry are not supported yet"
                ));
            }
        }
        if env.boolean(["OTEL_SDK_DISABLED".to_owned()]) {
            env.warn("nothing is exported: OTEL_SDK_DISABLED is true".to_owned());
            return Ok(Self { sinks: Vec::new(), warnings: env.warnings });
        }
        let mut signals = signals.to_vec();
        signals.sort_unstable();
        signals.dedup();
        let exporters: Vec<_> = signals.iter().map(|&signal| exporters::read(&mut env, signal)).collect();
        let asked = || signals.iter().copied().zip(&exporters);

        let mut sinks = Vec::new();
        for flag in flags {
            let mut group = Vec::new();
            for &signal in &signals {
                add(&mut group, sink(&mut env, signal, &Place::flag(flag), signals.len())?);
            }
            // The same flag twice is the same sink.
            group.retain(|sink| !sinks.contains(sink));
            sinks.append(&mut group);
        }
        if flags.is_empty() {
            for (signal, exporters) in asked() {
                let place = match (exporters, Place::from_env(&env, signal)) {
                    (Some(Exporters { otlp: false, .. }), _) | (None, None) => continue,
                    (_, Some(place)) => place,
                    (Some(_), None) => Place::default(otlp::protocol(&mut env, signal).1),
                };
                add(&mut sinks, sink(&mut env, signal, &place, signals.len())?);
            }
        } else {
            for (signal, exporters) in asked() {
                if exporters.is_some_and(|exporters| !exporters.otlp) {
                    let variable = format!("OTEL_{}_EXPORTER", signal.variable_part());
                    env.warn(format!("{} go to --endpoint too, whatever {variable} says", signal.noun()));
                }
            }
        }
        check_files(&sinks, !flags.is_empty())?;
        let console = asked().filter(|(_, exporters)| exporters.is_some_and(|exporters| exporters.console));
        let console: Vec<Signal> = console.map(|(signal, _)| signal).collect();
        if let (Some(signal), false) = (console.first(), cfg!(feature = "json")) {
            let variable = format!("OTEL_{}_EXPORTER", signal.variable_part());
            return Err(Box::new(ExportError::Json { variable }));
        }
        if !console.is_empty() {
            sinks.push(Sink::Console(console));
        }
        Ok(Self { sinks, warnings: env.warnings })
    }
}

/// The sink of one of `signals` signals.
fn sink(env: &mut Env<'_>, signal: Signal, place: &Place, signals: usize) -> Result<Sink, Box<ExportError>> {
    match place.file(signal, signals).transpose()? {
        Some(settings) => Ok(Sink::File(settings)),
        None => otlp::destination(env, signal, place).map(Sink::Otlp),
    }
}

/// Every file is written by one sink and holds one signal.
fn check_files(sinks: &[Sink], is_flag: bool) -> Result<(), Box<ExportError>> {
    let mut paths = SortedSet::new();
    for sink in sinks {
        let Sink::File(settings) = sink else { continue };
        for (signal, path) in &settings.files {
            if !paths.insert(path) {
                let [own, _] = names(*signal, "ENDPOINT");
                let source_name = if is_flag { "--endpoint".to_owned() } else { own };
                return Err(Box::new(ExportError::Endpoint {
                    source_name,
                    problem: EndpointProblem::SharedFile,
                }));
            }
        }
    }
    Ok(())
}

/// Adds `sink` to the one that differs from it in signals alone, or else as its own.
fn add(sinks: &mut Vec<Sink>, sink: Sink) {
    if !sinks.iter_mut().any(|own| own.absorb(&sink)) {
        sinks.push(sink);
    }
}

#[cfg(test)]
mod tests;
