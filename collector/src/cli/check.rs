//! `ebpf-otlp check`.

use std::io::{self, Write};
use std::path::Path;

use collector::check::tracers::{self, TracerFinding};
use collector::check::{self, Report, facts};
use collector::kernel_types::KernelTypes;

use super::CliResult;
use super::args::Check;
#[cfg(feature = "json")]
use super::check_json;
#[cfg(not(feature = "json"))]
use super::features::Missing;

/// Reports what this system allows; true if `profile` can run.
pub fn run(options: &Check) -> CliResult {
    #[cfg(not(feature = "json"))]
    if options.json {
        return Err(Missing { what: "`check --json`", feature: "json" }.into());
    }
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
    #[cfg(feature = "json")]
    if options.json {
        check_json::write(&report, &tracers, &mut out)?;
        return Ok(report.usable());
    }
    write_text(&report, &mut out)?;
    write_tracers(&tracers, &mut out)?;
    Ok(report.usable())
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
