//! Which exporters a signal has.

use super::env::Env;
use crate::export::Signal;

/// The exporters of a signal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Exporters {
    pub otlp: bool,
    pub console: bool,
}

/// What `OTEL_<SIGNAL>_EXPORTER` asks for: a list of `otlp`, `console` (or `otlp/stdout`, the same here) and `none`.
/// `None` where it asks for nothing that is known.
pub(super) fn read(env: &mut Env<'_>, signal: Signal) -> Option<Exporters> {
    let name = format!("OTEL_{}_EXPORTER", signal.variable_part());
    let list = env.get(&name)?;
    let mut asked = None::<Exporters>;
    let mut none = false;
    for entry in list.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        match entry.to_ascii_lowercase().as_str() {
            "otlp" => asked.get_or_insert_default().otlp = true,
            "console" | "otlp/stdout" => asked.get_or_insert_default().console = true,
            "none" => none = true,
            _ => env.ignore(&name, entry, "use otlp, console or none"),
        }
    }
    if none && asked.is_some() {
        env.warn(format!("ignoring none in {name}: it stands beside an exporter"));
    }
    asked.or(none.then(Exporters::default))
}
