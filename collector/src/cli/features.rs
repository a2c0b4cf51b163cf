//! What this binary was built with. What it lacks, it refuses by name.

use bpf_loader::text::join;
use std::fmt;

/// The cargo features that commands depend on, and whether they are built in.
const FEATURES: [(&str, bool); 21] = [
    ("btf-generate", cfg!(feature = "btf-generate")),
    ("compare", cfg!(feature = "compare")),
    ("debuginfod", cfg!(feature = "debuginfod")),
    ("demangle-cpp", cfg!(feature = "demangle-cpp")),
    ("dwarf", cfg!(feature = "dwarf")),
    ("grpc", cfg!(feature = "grpc")),
    ("gzip", cfg!(feature = "gzip")),
    ("inspect", cfg!(feature = "inspect")),
    ("json", cfg!(feature = "json")),
    ("listen", cfg!(feature = "listen")),
    ("load", cfg!(feature = "load")),
    ("pictures", cfg!(feature = "pictures")),
    ("proxy", cfg!(feature = "proxy")),
    ("python", cfg!(feature = "python")),
    ("service", cfg!(feature = "service")),
    ("source-lines", cfg!(feature = "source-lines")),
    ("spool", cfg!(feature = "spool")),
    ("symbols", cfg!(feature = "symbols")),
    ("terminal", cfg!(feature = "terminal")),
    ("tls", cfg!(feature = "tls")),
    ("unwind", cfg!(feature = "unwind")),
];

/// The version, then what is built in and what is left out.
pub fn version() -> String {
    let names = |wanted: bool| {
        let names: Vec<_> = FEATURES.iter().filter(|(_, is)| *is == wanted).map(|(name, _)| *name).collect();
        if names.is_empty() { "none".to_owned() } else { join(&names, ", ") }
    };
    let version = env!("CARGO_PKG_VERSION");
    format!("ebpf-otlp {version}\nfeatures: {}\nleft out: {}\n", names(true), names(false))
}

/// Something that this binary was built without. Wrong usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// What was asked for, as the subject of a sentence.
    pub what: &'static str,
    /// The cargo feature.
    pub feature: &'static str,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this build has no {} (feature `{}`)", self.what, self.feature)
    }
}

impl std::error::Error for Missing {}
