//! `config --example`.

use super::{AgentConfig, SECTIONS, TracerConfig, keys, variable};
use crate::key::{Key, Quoted, Value};
use crate::tracer::TRACERS;
use bpf_loader::text::join;

/// What each of [`SECTIONS`] is about.
pub(super) const ABOUT: [&str; SECTIONS.len()] = [
    "The agent itself.",
    "Which tasks are traced. Conditions that are given must all hold; without any, all are.",
    "Where data goes. OTEL_* variables say more; without a receiver, a summary is printed.",
    #[cfg(feature = "debuginfod")]
    "Names from beyond this host. Nothing is fetched unless it says so here.",
];

/// A file with every key, each commented out, with its default and what it does.
pub fn example() -> String {
    let config = AgentConfig::default();
    let mut text = String::from(
        "# ebpf-otlp run --config FILE: every key with its default. The environment is stronger than this file, as\n\
         # EBPF_OTLP_INTERVAL or EBPF_OTLP_TRACER_PROFILE_ENABLED, and flags are stronger than that. SIGHUP reads it again.\n",
    );
    for (&(section, keys), about) in SECTIONS.iter().zip(ABOUT) {
        text.push_str(&format!("\n# {about}\n[{section}]\n"));
        keys.iter().for_each(|key| add(&mut text, section, key, &config));
    }
    for info in TRACERS {
        let section = format!("tracer.{}", info.name);
        text.push_str(&format!("\n# {}.\n[{section}]\n", info.about));
        let tracer = config.tracers.get(info.name).cloned().unwrap_or_default();
        keys::TRACER.iter().for_each(|key| add::<TracerConfig>(&mut text, &section, key, &tracer));
        for ladder in info.ladders {
            let rungs: Vec<String> =
                ladder.rungs.iter().map(|rung| Value::Text(rung.name.into()).to_string()).collect();
            text.push_str(&format!("# {}: {}\n", Quoted(ladder.what), join(&rungs, ", ")));
        }
        info.keys.iter().for_each(|key| add(&mut text, &section, key, &config.settings));
    }
    text
}

fn add<T>(text: &mut String, section: &str, key: &Key<T>, defaults: &T) {
    text.push('\n');
    key.doc.lines().for_each(|line| text.push_str(&format!("# {}\n", line.trim())));
    text.push_str(&format!("# {}\n", variable(section, key.name)));
    text.push_str(&format!("#{} = {}\n", key.name, (key.get)(defaults)));
}
