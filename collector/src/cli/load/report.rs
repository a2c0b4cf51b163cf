//! What `load` says of an object: JSON and text.

use std::io::{self, Write};

use bpf_loader::Error;
use bpf_loader::load::Loaded;
use bpf_loader::object::ObjectSpec;
use serde::Serialize;

/// One line of `--json`; `docs/json.md` describes it.
#[derive(Serialize, Default)]
pub struct ObjectReport {
    pub object: String,
    pub ok: bool,
    pub error: Option<String>,
    pub parse_us: u64,
    pub load_us: u64,
    pub programs: Vec<ProgramReport>,
    pub maps: Vec<MapReport>,
    /// Programs that are only loaded when they are asked for by name.
    pub not_asked_for: Vec<String>,
    /// Why the kernel refuses the object's BTF; everything was loaded without it.
    pub btf_error: Option<String>,
    /// Problems with pins.
    pub pin_errors: Vec<String>,
}

#[derive(Serialize)]
pub struct ProgramReport {
    pub name: String,
    pub section: String,
    pub kind: Option<String>,
    pub ok: bool,
    pub errno: Option<i32>,
    pub error: Option<String>,
    /// `None` unless it was to be attached.
    pub attached: Option<bool>,
    pub attach_error: Option<String>,
}

#[derive(Serialize)]
pub struct MapReport {
    pub name: String,
    #[serde(rename = "type")]
    pub map_type: String,
    pub ok: bool,
    pub error: Option<String>,
    /// Whether a map of operations is registered; `None` unless it was to be.
    pub attached: Option<bool>,
    pub attach_error: Option<String>,
}

impl ObjectReport {
    pub fn describe(&mut self, spec: &ObjectSpec<'_>, loaded: &Loaded) {
        if let Some(error) = &loaded.btf_error {
            self.btf_error = Some(error.to_string());
        }
        for (name, result) in &loaded.programs {
            let program = spec.programs.iter().find(|p| p.name == name);
            let kind = program.and_then(|p| p.kind.kind);
            let error = result.as_ref().err().map(Box::as_ref);
            self.programs.push(ProgramReport {
                name: name.clone(),
                section: program.map_or(String::new(), |p| p.section.into()),
                kind: kind.map(|k| k.prog_type.to_string()),
                ok: error.is_none(),
                errno: error.and_then(Error::errno).map(|e| e.raw()),
                error: error.map(Error::to_string),
                attached: None,
                attach_error: None,
            });
        }
        for (name, result) in &loaded.maps {
            // Loaded for another program already.
            if self.maps.iter().any(|m| m.name == *name) {
                continue;
            }
            let map_type = spec.map(name).map_or(String::new(), |m| m.map_type.to_string());
            self.maps.push(MapReport::new(name, map_type, result.as_ref().err().map(Box::as_ref)));
        }
    }

    /// What was left out, once everything else is described.
    pub fn describe_left_out(&mut self, spec: &ObjectSpec<'_>) {
        let asked = |name: &str| self.programs.iter().any(|p| p.name == name);
        let left_out = spec.programs.iter().filter(|p| !asked(p.name)).map(|p| p.name.to_owned());
        self.not_asked_for = left_out.collect();
    }

    /// One line for what failed: the first error, and how many there are.
    pub fn failure(&self) -> Option<String> {
        let programs = self.programs.iter().flat_map(|p| p.error.iter().chain(&p.attach_error));
        let maps = self.maps.iter().flat_map(|m| m.error.iter().chain(&m.attach_error));
        let errors: Vec<&String> =
            self.error.iter().chain(programs).chain(maps).chain(&self.pin_errors).collect();
        let first = errors.first()?.lines().next().unwrap_or_default();
        Some(match errors.len() {
            1 => format!("{}: {first}", self.object),
            count => format!("{}: {first} (and {} more)", self.object, count - 1),
        })
    }

    /// Maps whose declaration makes no sense.
    pub fn describe_broken(&mut self, spec: &ObjectSpec<'_>) {
        let broken = spec.broken_maps.iter();
        self.maps.extend(broken.map(|(name, error)| MapReport::new(name, "unknown".into(), Some(error))));
    }

    pub fn judge(&mut self) {
        let attached = |attached: Option<bool>| attached != Some(false);
        self.ok = self.error.is_none()
            && self.programs.iter().all(|p| p.ok && attached(p.attached))
            && self.maps.iter().all(|m| m.ok && attached(m.attached))
            && self.pin_errors.is_empty();
    }

    pub fn program_attached(&mut self, name: &str, result: Result<(), &Error>) {
        if let Some(program) = self.programs.iter_mut().find(|p| p.name == name) {
            (program.attached, program.attach_error) = attach_fields(result);
        }
    }

    pub fn map_attached(&mut self, name: &str, result: Result<(), &Error>) {
        if let Some(map) = self.maps.iter_mut().find(|m| m.name == name) {
            (map.attached, map.attach_error) = attach_fields(result);
        }
    }
}

fn attach_fields(result: Result<(), &Error>) -> (Option<bool>, Option<String>) {
    (Some(result.is_ok()), result.err().map(Error::to_string))
}

impl MapReport {
    fn new(name: &str, map_type: String, error: Option<&Error>) -> Self {
        Self {
            name: name.into(),
            map_type,
            ok: error.is_none(),
            error: error.map(Error::to_string),
            attached: None,
            attach_error: None,
        }
    }
}

pub fn write_text(report: &ObjectReport, out: &mut impl Write) -> io::Result<()> {
    let verdict = if report.ok { "ok" } else { "FAILED" };
    writeln!(
        out,
        "{}: {verdict} (parsed in {} us, loaded in {} us)",
        report.object, report.parse_us, report.load_us
    )?;
    for error in report.error.iter().chain(&report.pin_errors) {
        writeln!(out, "  {error}")?;
    }
    if let Some(error) = &report.btf_error {
        writeln!(out, "  loaded without BTF, which the kernel refuses: {error}")?;
    }
    for program in &report.programs {
        let kind = program.kind.as_deref().unwrap_or("unknown kind");
        let attached = attached(program.attached);
        let mark = mark(program.ok);
        writeln!(out, "  {mark} program {} ({}, {kind}){attached}", program.name, program.section)?;
        for error in program.error.iter().chain(&program.attach_error) {
            writeln!(out, "     {}", error.replace('\n', "\n     "))?;
        }
    }
    for map in &report.maps {
        let attached = attached(map.attached);
        writeln!(out, "  {} map {} ({}){attached}", mark(map.ok), map.name, map.map_type)?;
        for error in map.error.iter().chain(&map.attach_error) {
            writeln!(out, "     {error}")?;
        }
    }
    if !report.not_asked_for.is_empty() {
        writeln!(out, "  not asked for (--per-program does): {}", report.not_asked_for.join(", "))?;
    }
    Ok(())
}

fn attached(attached: Option<bool>) -> &'static str {
    match attached {
        Some(true) => ", attached",
        Some(false) => ", NOT attached",
        None => "",
    }
}

fn mark(ok: bool) -> &'static str {
    if ok { "ok  " } else { "FAIL" }
}
