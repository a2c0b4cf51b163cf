//! `ebpf-otlp load`: any BPF object, with the project's own loader.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use bpf_loader::Error;
use bpf_loader::kernel::RunningKernel;
use bpf_loader::load::{LoadOptions, Loaded, Pinning};
use bpf_loader::object::ObjectSpec;
use bpf_loader::target::RunningTarget;
use collector::output::json;
use serde::Serialize;

use super::CliResult;
use super::args::Load;

/// One line of `--json`; `docs/json.md` describes it.
#[derive(Serialize, Default)]
struct ObjectReport {
    object: String,
    ok: bool,
    error: Option<String>,
    parse_us: u64,
    load_us: u64,
    programs: Vec<ProgramReport>,
    maps: Vec<MapReport>,
}

#[derive(Serialize)]
struct ProgramReport {
    name: String,
    section: String,
    kind: Option<String>,
    ok: bool,
    errno: Option<i32>,
    error: Option<String>,
}

#[derive(Serialize)]
struct MapReport {
    name: String,
    #[serde(rename = "type")]
    map_type: String,
    ok: bool,
    error: Option<String>,
}

/// Loads each object; true if all of all of them loaded.
pub fn run(options: &Load) -> CliResult {
    let target = RunningTarget::new();
    let mut out = io::stdout().lock();
    let mut all = true;
    for path in &options.objects {
        let report = load(path, &target, options.per_program);
        all &= report.ok;
        if options.json {
            json::write_line(&mut out, &report)?;
        } else {
            write_text(&report, &mut out)?;
        }
    }
    Ok(all)
}

fn load(path: &Path, target: &RunningTarget, per_program: bool) -> ObjectReport {
    let mut report = ObjectReport { object: path.display().to_string(), ..ObjectReport::default() };
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) => return ObjectReport { error: Some(e.to_string()), ..report },
    };
    let start = Instant::now();
    let spec = match ObjectSpec::parse(&bytes) {
        Ok(spec) => spec,
        Err(e) => return ObjectReport { error: Some(e.to_string()), ..report },
    };
    report.parse_us = start.elapsed().as_micros() as u64;
    let start = Instant::now();
    let loaded = if per_program { load_each(&spec, target) } else { load_all(&spec, target) };
    report.load_us = start.elapsed().as_micros() as u64;
    match loaded {
        Ok(loaded) => describe(&spec, loaded, &mut report),
        Err(e) => report.error = Some(e.to_string()),
    }
    for (name, error) in &spec.broken_maps {
        let map_type = String::from("unknown");
        report.maps.push(MapReport {
            name: (*name).into(),
            map_type,
            ok: false,
            error: Some(error.to_string()),
        });
    }
    report.ok =
        report.error.is_none() && report.programs.iter().all(|p| p.ok) && report.maps.iter().all(|m| m.ok);
    report
}

/// Trying to load an object leaves nothing behind, and depends on nothing that is pinned.
const UNPINNED: LoadOptions<'_> = LoadOptions { pinning: Pinning::Ignored, reuse: Vec::new() };

fn load_all(spec: &ObjectSpec<'_>, target: &RunningTarget) -> bpf_loader::Result<Loaded> {
    spec.plan(target)?.load_with(&RunningKernel::default(), &UNPINNED)
}

/// Each program with maps of its own, let go before the next: the kernel-side maps of one failure do not help another.
fn load_each(spec: &ObjectSpec<'_>, target: &RunningTarget) -> bpf_loader::Result<Loaded> {
    let kernel = RunningKernel::default();
    let mut all = Loaded { maps: Vec::new(), programs: Vec::new(), struct_ops: Vec::new(), btf_error: None };
    for program in &spec.programs {
        let loaded = spec.plan_programs(target, |p| p.name == program.name)?.load_with(&kernel, &UNPINNED)?;
        all.programs.extend(loaded.programs);
        all.btf_error = all.btf_error.or(loaded.btf_error);
        for map in loaded.maps {
            if !all.maps.iter().any(|(name, _)| *name == map.0) {
                all.maps.push(map);
            }
        }
    }
    Ok(all)
}

fn describe(spec: &ObjectSpec<'_>, loaded: Loaded, report: &mut ObjectReport) {
    for (name, result) in loaded.programs {
        let program = spec.programs.iter().find(|p| p.name == name);
        let kind = program.and_then(|p| p.kind.kind);
        let error = result.err();
        report.programs.push(ProgramReport {
            section: program.map_or(String::new(), |p| p.section.into()),
            kind: kind.map(|k| k.prog_type.to_string()),
            name,
            ok: error.is_none(),
            errno: error.as_ref().and_then(Error::errno).map(|e| e.raw()),
            error: error.map(|e| e.to_string()),
        });
    }
    for (name, result) in loaded.maps {
        let map_type = spec.map(&name).map_or(String::new(), |m| m.map_type.to_string());
        let error = result.err().map(|e| e.to_string());
        report.maps.push(MapReport { name, map_type, ok: error.is_none(), error });
    }
}

fn write_text(report: &ObjectReport, out: &mut impl Write) -> io::Result<()> {
    let verdict = if report.ok { "ok" } else { "FAILED" };
    writeln!(
        out,
        "{}: {verdict} (parsed in {} us, loaded in {} us)",
        report.object, report.parse_us, report.load_us
    )?;
    if let Some(error) = &report.error {
        writeln!(out, "  {error}")?;
    }
    for program in &report.programs {
        let kind = program.kind.as_deref().unwrap_or("unknown kind");
        writeln!(out, "  {} program {} ({}, {kind})", mark(program.ok), program.name, program.section)?;
        if let Some(error) = &program.error {
            writeln!(out, "     {}", error.replace('\n', "\n     "))?;
        }
    }
    for map in &report.maps {
        writeln!(out, "  {} map {} ({})", mark(map.ok), map.name, map.map_type)?;
        if let Some(error) = &map.error {
            writeln!(out, "     {error}")?;
        }
    }
    Ok(())
}

fn mark(ok: bool) -> &'static str {
    if ok { "ok  " } else { "FAIL" }
}
