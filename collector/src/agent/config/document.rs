//! The tables of `docs/configuration.md`, from the keys. `UPDATE=1 cargo test -p collector --lib config::document` writes them.

use std::fmt::{Display, Write};
use std::path::Path;

use super::example::ABOUT;
use super::{AgentConfig, SECTIONS, TracerConfig, keys, variable};
use crate::key::Key;
use crate::tracer::TRACERS;

/// What is above it in the page is written by hand.
const BEGIN: &str = "<!-- made from the keys: see collector/src/agent/config/document.rs -->\n";

fn rows<T>(to: &mut String, section: &str, keys: &[Key<T>], defaults: &T) -> std::fmt::Result {
    for key in keys {
        row(to, key.name, &(key.get)(defaults), &variable(section, key.name), key.doc)?;
    }
    Ok(())
}

fn row(to: &mut String, name: &str, default: &dyn Display, variable: &str, doc: &str) -> std::fmt::Result {
    let doc = doc.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    let doc = doc.trim_end_matches('.');
    writeln!(to, "| `{name}` | `{default}` | `{variable}` | {doc} |")
}

const HEAD: &str = "| key | default | variable | what |\n|---|---|---|---|\n";

fn tables(to: &mut String) -> std::fmt::Result {
    let config = AgentConfig::default();
    for (&(section, keys), about) in SECTIONS.iter().zip(ABOUT) {
        write!(to, "\n### [{section}]\n\n{about}\n\n{HEAD}")?;
        rows(to, section, keys, &config)?;
    }
    write!(to, "\n### Every [tracer.NAME]\n\n`NAME` in variables is the tracer's, in capitals.\n\n{HEAD}")?;
    // Of one that is on by default; those that are not say so.
    rows(to, "tracer.NAME", keys::TRACER, &TracerConfig { enabled: true, ..TracerConfig::default() })?;
    for info in TRACERS {
        let off = if info.on_by_default { "" } else { " Off unless `enabled` says otherwise." };
        write!(to, "\n### [tracer.{}]\n\nTells {}.{off}\n\n", info.name, info.about)?;
        if !info.keys.is_empty() {
            to.push_str(HEAD);
            rows(to, &format!("tracer.{}", info.name), info.keys, &config.settings)?;
            to.push('\n');
        }
        to.push_str("| ladder | its rungs, best first |\n|---|---|\n");
        for ladder in info.ladders {
            let rungs: Vec<String> = ladder.rungs.iter().map(|rung| format!("`{}`", rung.name)).collect();
            writeln!(to, "| `{}` | {} |", ladder.what, rungs.join(", "))?;
        }
    }
    Ok(())
}

#[test]
#[cfg_attr(not(feature = "unwind"), ignore = "without the feature `unwind`")]
fn the_page_has_every_key() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (head, _) = page.split_once(BEGIN).unwrap();
    let mut expected = format!("{head}{BEGIN}");
    tables(&mut expected).unwrap();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let page = std::fs::read_to_string(&path).unwrap();
    let differs = expected.lines().zip(page.lines()).find(|(a, b)| a != b);
    assert!(
        expected == page,
        "docs/configuration.md is old: run this test with UPDATE=1. First difference: {differs:?}"
    );
}
