//! `ebpf-otlp check`.

use std::io::{self, Write};
use std::path::Path;

use collector::check::tracers::{self, TracerFinding};
use collector::check::{self, Report, facts};
use collector::kernel_types::KernelTypes;
use collector::output::json;
use collector::tracer::ladder::Chosen;
use serde::Serialize;

use super::CliResult;
use super::args::Check;

#[derive(Serialize)]
struct JsonReport<'a> {
    usable: bool,
    findings: Vec<JsonFinding<'a>>,
    tracers: Vec<JsonTracer<'a>>,
}

#[derive(Serialize)]
struct JsonFinding<'a> {
    name: &'a str,
    status: &'a str,
    value: &'a str,
    remedy: Option<&'a str>,
}

#[derive(Serialize)]
struct JsonTracer<'a> {
    name: &'a str,
    ok: bool,
    error: Option<&'a str>,
    ladders: Vec<JsonLadder<'a>>,
}

#[derive(Serialize)]
struct JsonLadder<'a> {
    what: &'a str,
    rung: Option<&'a str>,
    refused: Vec<JsonRefused<'a>>,
}

#[derive(Serialize)]
struct JsonRefused<'a> {
    rung: &'a str,
    reason: &'a str,
}

/// Reports what this system allows; true if `profile` can run.
pub fn run(options: &Check) -> CliResult {
    let mut facts = facts::read_files(Path::new("/"));
    let types = KernelTypes::find(options.btf.as_deref());
    facts.btf_file = match &types {
        Ok(KernelTypes::File(path)) => Some(Ok(path.clone())),
        Ok(_) => None,
        Err(error) => Some(Err(error.to_string())),
    };
    let target = types.unwrap_or(KernelTypes::Missing).target();
    facts.probes = check::probe::run(&target);
    let report = check::judge(&facts);
    let tracers = tracers::try_all(&target);
    let mut out = io::stdout().lock();
    if options.json {
        json::write_line(&mut out, &to_json(&report, &tracers))?;
    } else {
        write_text(&report, &mut out)?;
        write_tracers(&tracers, &mut out)?;
    }
    Ok(report.usable())
}

fn to_json<'a>(report: &'a Report, tracers: &'a [TracerFinding]) -> JsonReport<'a> {
    let findings = report.findings.iter().map(|f| JsonFinding {
        name: f.name,
        status: f.status.as_str(),
        value: &f.value,
        remedy: f.remedy.as_deref(),
    });
    JsonReport {
        usable: report.usable(),
        findings: findings.collect(),
        tracers: tracers.iter().map(json_tracer).collect(),
    }
}

fn json_tracer(tracer: &TracerFinding) -> JsonTracer<'_> {
    JsonTracer {
        name: tracer.name,
        ok: tracer.ladders.is_ok(),
        error: tracer.ladders.as_ref().err().map(String::as_str),
        ladders: tracer.ladders.iter().flatten().map(json_ladder).collect(),
    }
}

fn json_ladder(chosen: &Chosen) -> JsonLadder<'_> {
    let refused = chosen.refused.iter();
    JsonLadder {
        what: chosen.what,
        rung: chosen.rung,
        refused: refused.map(|r| JsonRefused { rung: r.rung, reason: &r.reason }).collect(),
    }
}

/// A line for each ladder: the rung that would be used, and why none that is better.
fn write_tracers(tracers: &[TracerFinding], out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "\nTracers")?;
    for tracer in tracers {
        let ladders = match &tracer.ladders {
            Ok(ladders) => ladders,
            Err(error) => {
                writeln!(out, "{:<9}{:<26}{error}", "missing", tracer.name)?;
                continue;
            }
        };
        for chosen in ladders {
            let status = if chosen.refused.is_empty() { "ok" } else { "degraded" };
            let without =
                if chosen.refused.is_empty() { "off unless it is asked for" } else { "unavailable" };
            let name = format!("{}: {}", tracer.name, chosen.what);
            writeln!(out, "{status:<9}{name:<34}{}", chosen.rung.unwrap_or(without))?;
            for refused in &chosen.refused {
                writeln!(out, "{:<9}{:<34}not {}: {}", "", "", refused.rung, refused.reason)?;
            }
        }
    }
    Ok(())
}

fn write_text(report: &Report, out: &mut impl Write) -> io::Result<()> {
    for finding in &report.findings {
        writeln!(out, "{:<9}{:<26}{}", finding.status.as_str(), finding.name, finding.value)?;
        if let Some(remedy) = &finding.remedy {
            writeln!(out, "{:<9}{:<26}-> {remedy}", "", "")?;
        }
    }
    let verdict =
        if report.usable() { "The profiler can run here." } else { "The profiler cannot run here." };
    writeln!(out, "\n{verdict}")
}
