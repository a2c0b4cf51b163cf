//! Files of OTLP JSON lines.

mod settings;

pub use settings::FileSettings;
