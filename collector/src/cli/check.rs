//! `ebpf-otlp check`.

use std::io::{self, Write};
use std::path::Path;

use collector::check::{self, Report, facts};
use collector::output::json;
use serde::Serialize;

use super::CliResult;

#[derive(Serialize)]
struct JsonReport<'a> {
    usable: bool,
    findings: Vec<JsonFinding<'a>>,
}

#[derive(Serialize)]
struct JsonFinding<'a> {
    name: &'a str,
    status: &'a str,
    value: &'a str,
    remedy: Option<&'a str>,
}

/// Reports what this system allows; true if `profile` can run.
pub fn run(as_json: bool) -> CliResult {
    let mut facts = facts::read_files(Path::new("/"));
    facts.probes = check::probe::run();
    let report = check::judge(&facts);
    let mut out = io::stdout().lock();
    if as_json {
        json::write_line(&mut out, &to_json(&report))?;
    } else {
        write_text(&report, &mut out)?;
    }
    Ok(report.usable())
}

fn to_json(report: &Report) -> JsonReport<'_> {
    let findings = report.findings.iter().map(|f| JsonFinding {
        name: f.name,
        status: f.status.as_str(),
        value: &f.value,
        remedy: f.remedy.as_deref(),
    });
    JsonReport { usable: report.usable(), findings: findings.collect() }
}

fn write_text(report: &Report, out: &mut impl Write) -> io::Result<()> {
    for finding in &report.findings {
        writeln!(out, "{:<9}{:<26}{}", finding.status.as_str(), finding.name, finding.value)?;
        if let Some(remedy) = &finding.remedy {
            writeln!(out, "{:<9}{:<26}-> {remedy}", "", "")?;
        }
    }
    let verdict = if report.usable() {
        "`ebpf-otlp profile` can run here."
    } else {
        "`ebpf-otlp profile` cannot run here."
    };
    writeln!(out, "\n{verdict}")
}
