//! `ebpf-otlp btf`: types of kernels that carry none.

use std::error::Error;
use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};

use bpf_loader::btf::Btf;
use bpf_loader::core_relo::minimize;
use bpf_loader::dwarf::dwarf_to_btf;
use bpf_loader::object::ObjectSpec;
use bpf_loader::object_file::{read_btf, read_debug_object, read_object};
use collector::objects;
use collector::output::file::OutputFile;

use super::args::{Btf as Options, BtfAction as Action};
use super::{CliResult, say};

/// Where the running kernel has its own.
const RUNNING: &str = "/sys/kernel/btf/vmlinux";

/// Makes the file that was asked for.
pub fn run(options: &Options) -> CliResult {
    // What cannot be written is known before the work.
    let mut file = OutputFile::create(&options.output)?;
    let bytes = match &options.action {
        Action::Generate { vmlinux } => generate(vmlinux)?,
        Action::Minimize { objects, btf } => minimized(objects, btf.as_deref())?,
    };
    let types = Btf::parse(&bytes[..])?.count().saturating_sub(1);
    file.write_all(&bytes).map_err(|e| file.write_error(e))?;
    file.commit()?;
    say(format_args!("wrote {}: {} bytes, {types} types", options.output.display(), bytes.len()));
    Ok(true)
}

/// What is wrong with a file.
fn of<E: Display>(path: &Path) -> impl Fn(E) -> Box<dyn Error> + '_ {
    move |error| format!("{}: {error}", path.display()).into()
}

fn generate(vmlinux: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let elf = read_debug_object(vmlinux).map_err(of(vmlinux))?;
    let converted = dwarf_to_btf(&elf).map_err(of(vmlinux))?;
    if converted.left_out > 0 {
        say(format_args!("left out: {} members and sizes that BTF has no room for", converted.left_out));
    }
    Ok(converted.btf)
}

fn minimized(paths: &[PathBuf], btf: Option<&Path>) -> Result<Vec<u8>, Box<dyn Error>> {
    let kernel = read_btf(btf.unwrap_or(Path::new(RUNNING)))?;
    let objects: Vec<Vec<u8>> = if paths.is_empty() {
        objects::ALL.iter().map(|packed| packed.unpack()).collect::<Result<_, _>>()?
    } else {
        paths.iter().map(|path| read_object(path).map_err(of(path))).collect::<Result<_, _>>()?
    };
    let mut specs = Vec::new();
    for (at, bytes) in objects.iter().enumerate() {
        let spec = ObjectSpec::parse(bytes);
        specs.push(match paths.get(at) {
            Some(path) => spec.map_err(of(path))?,
            None => spec?,
        });
    }
    Ok(minimize(&kernel, &specs.iter().collect::<Vec<_>>())?)
}
