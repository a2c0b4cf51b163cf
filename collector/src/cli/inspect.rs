//! `ebpf-otlp inspect`: what is in a BPF object, without privileges and without a kernel.

use bpf_loader::object_file::read_object;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use bpf_loader::btf::Btf;
use bpf_loader::bytes::Endian;
use bpf_loader::inspect::{Contents, Inspector};
use bpf_loader::kind::ProgramKind;
use bpf_loader::map_def::MapSpec;
use bpf_loader::object::{ObjectSpec, ProgramSpec};
use collector::key::Quoted;
use collector::output::json;
use serde::Serialize;

use super::CliResult;
use super::args::Inspect;

/// One line of `--json`; `docs/json.md` describes it.
#[derive(Serialize, Default)]
struct ObjectReport {
    object: String,
    ok: bool,
    error: Option<String>,
    bytes: u64,
    endian: Option<&'static str>,
    license: String,
    kernel_version: u32,
    programs: Vec<ProgramReport>,
    maps: Vec<MapReport>,
    broken: Vec<Broken>,
    btf: Option<BtfReport>,
}

#[derive(Serialize)]
struct ProgramReport {
    name: String,
    section: String,
    kind: Option<String>,
    attach_type: Option<String>,
    target: Option<String>,
    optional: bool,
    sleepable: bool,
    min_kernel: Option<String>,
    instructions: u32,
    subprograms: Vec<String>,
    maps: Vec<String>,
    externs: Vec<String>,
    relocations: Vec<RelocationReport>,
    error: Option<String>,
}

#[derive(Serialize)]
struct RelocationReport {
    instruction: u32,
    kind: String,
    what: String,
}

#[derive(Serialize)]
struct MapReport {
    name: String,
    #[serde(rename = "type")]
    map_type: String,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    map_extra: u64,
    numa_node: Option<u32>,
    pin_by_name: bool,
    inner: Option<Box<MapReport>>,
}

/// A map or function whose declaration makes no sense.
#[derive(Serialize)]
struct Broken {
    name: String,
    error: String,
}

#[derive(Serialize)]
struct BtfReport {
    bytes: usize,
    types: u32,
    kinds: BTreeMap<String, u32>,
}

impl ObjectReport {
    /// The first thing that makes no sense.
    fn failure(&self) -> Option<&str> {
        let broken = self.broken.iter().map(|b| &b.error);
        let programs = self.programs.iter().filter_map(|p| p.error.as_ref());
        self.error.iter().chain(broken).chain(programs).next().map(String::as_str)
    }
}

/// Describes each object; true if all of all of them makes sense.
pub fn run(options: &Inspect) -> CliResult {
    let mut out = io::stdout().lock();
    let mut all = true;
    for path in &options.objects {
        let report = inspect(path);
        all &= report.ok;
        if let Some(failure) = report.failure() {
            eprintln!("ebpf-otlp: {}: {failure}", report.object);
        }
        if options.json {
            json::write_line(&mut out, &report)?;
        } else {
            write_text(&report, &mut out)?;
        }
    }
    Ok(all)
}

fn inspect(path: &Path) -> ObjectReport {
    let report = ObjectReport { object: path.display().to_string(), ..ObjectReport::default() };
    let bytes = match read_object(path) {
        Ok(bytes) => bytes,
        Err(e) => return ObjectReport { error: Some(e.to_string()), ..report },
    };
    let report = ObjectReport { bytes: bytes.len() as u64, ..report };
    match ObjectSpec::parse(&bytes) {
        Ok(spec) => describe(&spec, report),
        Err(e) => ObjectReport { error: Some(e.to_string()), ..report },
    }
}

fn describe(spec: &ObjectSpec<'_>, report: ObjectReport) -> ObjectReport {
    let mut error = None;
    let mut programs = Vec::new();
    match Inspector::new(spec) {
        Ok(mut inspector) => {
            let all = spec.programs.iter().map(|p| program(spec, p, inspector.program(p)));
            programs.extend(all);
        }
        Err(e) => error = Some(e.to_string()),
    }
    let broken = spec.broken_sections.iter().chain(&spec.broken_maps).chain(&spec.broken_functions);
    let broken: Vec<Broken> =
        broken.map(|(name, e)| Broken { name: (*name).into(), error: e.to_string() }).collect();
    ObjectReport {
        ok: error.is_none() && broken.is_empty() && programs.iter().all(|p| p.error.is_none()),
        error,
        endian: Some(match spec.endian() {
            Endian::Little => "little",
            Endian::Big => "big",
        }),
        license: spec.license.into(),
        kernel_version: spec.kernel_version,
        programs,
        maps: spec.maps.iter().map(map).collect(),
        broken,
        btf: spec.btf.as_ref().map(btf),
        ..report
    }
}

fn program(
    spec: &ObjectSpec<'_>,
    program: &ProgramSpec<'_>,
    contents: bpf_loader::Result<Contents<'_>>,
) -> ProgramReport {
    let kind: Option<&ProgramKind> = program.kind.kind;
    let mut report = ProgramReport {
        name: program.name.into(),
        section: program.section.into(),
        kind: kind.map(|k| k.prog_type.to_string()),
        // 0 is both "none" and a type of its own, which programs of control groups have.
        attach_type: kind.filter(|k| k.attach_type.0 != 0).map(|k| k.attach_type.to_string()),
        target: program.kind.target.map(String::from),
        optional: program.kind.optional,
        sleepable: kind.is_some_and(|k| k.sleepable),
        min_kernel: kind.map(|k| format!("{}.{}", k.min_kernel.0, k.min_kernel.1)),
        instructions: 0,
        subprograms: Vec::new(),
        maps: Vec::new(),
        externs: Vec::new(),
        relocations: Vec::new(),
        error: None,
    };
    match contents {
        Ok(contents) => {
            let names = |names: Vec<&str>| names.into_iter().map(String::from).collect();
            let used = contents.maps.iter().filter_map(|m| spec.maps.get(m.0 as usize));
            report.instructions = contents.instructions;
            report.maps = used.map(|m| m.name.to_string()).collect();
            report.subprograms = names(contents.subprograms);
            report.externs = names(contents.externs);
            let relocations = contents.relocations.into_iter().map(|r| RelocationReport {
                instruction: r.at.0,
                kind: r.kind.map_or_else(|| "unknown".into(), |k| k.to_string()),
                what: r.what,
            });
            report.relocations = relocations.collect();
        }
        Err(e) => report.error = Some(e.to_string()),
    }
    report
}

fn map(spec: &MapSpec<'_>) -> MapReport {
    MapReport {
        name: spec.name.to_string(),
        map_type: spec.map_type.to_string(),
        key_size: spec.key_size,
        value_size: spec.value_size,
        max_entries: spec.max_entries,
        flags: spec.flags,
        map_extra: spec.map_extra,
        numa_node: spec.numa_node,
        pin_by_name: spec.pin_by_name,
        inner: spec.inner.as_deref().map(|inner| Box::new(map(inner))),
    }
}

fn btf(btf: &Btf<'_>) -> BtfReport {
    let mut kinds = BTreeMap::new();
    for ty in btf.types() {
        *kinds.entry(ty.kind().to_string()).or_insert(0) += 1;
    }
    BtfReport { bytes: btf.as_bytes().len(), types: btf.count().saturating_sub(1), kinds }
}

fn write_text(report: &ObjectReport, out: &mut impl Write) -> io::Result<()> {
    write!(out, "{}: {} bytes", report.object, report.bytes)?;
    if let Some(endian) = report.endian {
        write!(out, ", {endian}-endian, license {}", Quoted(&report.license))?;
    }
    writeln!(out)?;
    if let Some(error) = &report.error {
        writeln!(out, "  error: {error}")?;
    }
    for program in &report.programs {
        write_program(program, out)?;
    }
    for map in &report.maps {
        writeln!(out, "  map {} {}", map.name, declaration(map))?;
        if let Some(inner) = &map.inner {
            writeln!(out, "     with inner maps {}", declaration(inner))?;
        }
    }
    for broken in &report.broken {
        writeln!(out, "  BROKEN {}: {}", broken.name, broken.error)?;
    }
    if let Some(btf) = &report.btf {
        let kinds: Vec<String> = btf.kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        writeln!(out, "  BTF: {} bytes, {} types: {}", btf.bytes, btf.types, kinds.join(", "))?;
    }
    Ok(())
}

fn write_program(program: &ProgramReport, out: &mut impl Write) -> io::Result<()> {
    let kind = program.kind.as_deref().unwrap_or("unknown kind");
    write!(out, "  program {} ({}, {kind}", program.name, program.section)?;
    if let Some(min_kernel) = &program.min_kernel {
        write!(out, ", Linux {min_kernel}")?;
    }
    writeln!(out, "): {} instructions", program.instructions)?;
    for (what, names) in
        [("calls", &program.subprograms), ("maps", &program.maps), ("externs", &program.externs)]
    {
        if !names.is_empty() {
            writeln!(out, "     {what} {}", names.join(", "))?;
        }
    }
    // Most are asked many times over.
    let mut relocations: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for relocation in &program.relocations {
        *relocations.entry((&relocation.what, &relocation.kind)).or_insert(0) += 1;
    }
    for ((what, kind), count) in relocations {
        writeln!(out, "     relocation {kind} of {what}{}", times(count))?;
    }
    if let Some(error) = &program.error {
        writeln!(out, "     error: {error}")?;
    }
    Ok(())
}

fn times(count: u32) -> String {
    if count == 1 { String::new() } else { format!(", {count} times") }
}

/// A map's type and shape.
fn declaration(map: &MapReport) -> String {
    let entries = if map.max_entries == 1 { "entry" } else { "entries" };
    let mut text = format!(
        "({}): key {}, value {} bytes, {} {entries}",
        map.map_type, map.key_size, map.value_size, map.max_entries
    );
    if map.flags != 0 {
        text += &format!(", flags {:#x}", map.flags);
    }
    if map.map_extra != 0 {
        text += &format!(", extra {:#x}", map.map_extra);
    }
    if let Some(node) = map.numa_node {
        text += &format!(", memory node {node}");
    }
    if map.pin_by_name {
        text += ", pinned by name";
    }
    text
}
