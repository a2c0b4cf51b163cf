//! `check --json`: one object, described in `docs/json.md`.

use std::io::{self, Write};

use collector::check::Report;
use collector::check::tracers::TracerFinding;
use collector::output::json;
use collector::tracer::ladder::Chosen;
use serde::Serialize;

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

/// Writes what this system allows.
pub fn write(report: &Report, tracers: &[TracerFinding], out: &mut impl Write) -> io::Result<()> {
    json::write_line(out, &to_json(report, tracers))
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
