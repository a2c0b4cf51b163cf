//! What encoding costs, in one run: prost, the path of the OpenTelemetry SDK's exporter, and this project's encoder.
//!
//!     cargo bench -p tests --bench encode [-- metrics|traces|logs|profiles]
//!
//! All start from the same data, as a program holds it, and before anything is timed, all have made the same bytes, or
//! messages that differ in nothing but the order of items. Numbers, no verdict.

mod logs;
mod measure;
mod metrics;
mod profiles;
mod source;
mod traces;

use measure::Variants;

fn main() {
    // Cargo adds `--bench`.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let signals: [(&str, fn()); 4] = [
        ("metrics", metrics::run),
        ("traces", traces::run),
        ("logs", logs::run),
        ("profiles", profiles::run),
    ];
    for (name, run) in signals {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            run();
        }
    }
}
