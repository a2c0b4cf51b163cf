//! Compares BTF that was made from a kernel's debug information with the BTF that the kernel came with:
//!
//! ```text
//! btf-compare OURS THEIRS [OBJECT|FOLDER...]
//! ```
//!
//! Every named type must have the same layout in both; every CO-RE relocation of our own programs and of the objects must come to
//! the same value with both, and with what `minimize` keeps of ours. Exits 1 where one does not.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bpf_loader::btf::ext::CoreRelo;
use bpf_loader::btf::{Btf, BtfId, Kind};
use bpf_loader::core_relo::{RelocKind, describe, minimize, resolve};
use bpf_loader::object::ObjectSpec;
use bpf_loader::object_file::{read_btf, read_object};
use bpf_loader::target::{ModuleBtf, TargetBtf};
use tests::shapes::shapes;

/// Differences that are printed of each kind.
const SHOWN: usize = 40;

struct Kernel(Btf<'static>);

impl TargetBtf for Kernel {
    fn vmlinux(&self) -> bpf_loader::Result<Option<&Btf<'_>>> {
        Ok(Some(&self.0))
    }

    fn modules(&self) -> bpf_loader::Result<&[ModuleBtf<'_>]> {
        Ok(&[])
    }
}

/// What a relocation comes to, in words; ids of types by what they stand for.
type Answers = Vec<String>;

fn answers(local: &Btf<'_>, relos: &[CoreRelo], kernel: &Kernel) -> Result<Answers, Box<bpf_loader::Error>> {
    let resolved = resolve(local, relos.iter().copied(), kernel)?;
    let answer =
        |(relo, result): (&CoreRelo, bpf_loader::Result<bpf_loader::core_relo::Resolution>)| match result
            .map_err(|e| *e)
        {
            Ok(resolution) if relo.kind() == Ok(RelocKind::TypeIdTarget) => {
                let id = BtfId(resolution.value.unwrap_or_default() as u32);
                let name = kernel.0.type_by_id(id).and_then(|ty| ty.name().map(str::to_owned));
                format!("type {:?}", name.unwrap_or_default())
            }
            Ok(resolution) => format!("{resolution:?}"),
            // Which of the candidates disagree is told by their ids.
            Err(bpf_loader::Error::CoreAmbiguous { what, .. }) => format!("ambiguous {what}"),
            Err(error) => error.to_string(),
        };
    Ok(relos.iter().zip(resolved).map(answer).collect())
}

/// Objects in files, and in folders below.
fn files(path: &Path, to: &mut BTreeSet<PathBuf>) -> std::io::Result<()> {
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            files(&entry?.path(), to)?;
        }
    } else if path.extension().is_some_and(|extension| extension == "o") {
        to.insert(path.to_owned());
    }
    Ok(())
}

/// What paholes before floating-point numbers (1.21, Linux 5.13) and wide enumerations (1.24, Linux 6.0) could not say, or said wrongly:
/// values of enumerations of 8 bytes, of which they wrote the lower half; `double`, which was an integer; whether characters are
/// signed.
fn is_old_way((kind, name): &(String, String), shape: &str) -> bool {
    let is_wide = kind == "enum" && shape.starts_with("enum of 8 bytes");
    let is_char = kind == "int" && shape.starts_with("int of 1 bytes");
    is_wide || is_char || matches!(name.as_str(), "float" | "double" | "long double")
}

fn compare_types(ours: &Btf<'_>, theirs: &Btf<'_>) -> bool {
    let is_old = !theirs.types().any(|ty| matches!(ty.kind(), Kind::Float | Kind::Enum64));
    let (mut ours, mut theirs) = (shapes(ours), shapes(theirs));
    // The type of arrays' indices, which everybody calls as they like.
    for shapes in [&mut ours, &mut theirs] {
        shapes.remove(&("int".to_owned(), "__ARRAY_SIZE_TYPE__".to_owned()));
    }
    let names: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let different = names.iter().filter(|name| ours.get(**name) != theirs.get(**name));
    let (old, different): (Vec<&&(String, String)>, Vec<_>) = different.partition(|name| {
        let all = ours.get(**name).into_iter().chain(theirs.get(**name)).flatten();
        is_old && all.into_iter().all(|shape| is_old_way(name, shape))
    });
    let old = old.iter().map(|name| name.1.as_str()).collect::<Vec<_>>().join(", ");
    println!(
        "{} named types compared, {} different; as an old pahole wrote it: [{old}]",
        names.len(),
        different.len()
    );
    for name in different.iter().take(SHOWN) {
        println!("  {} {}", name.0, name.1);
        for (whose, shapes) in [("ours", ours.get(**name)), ("theirs", theirs.get(**name))] {
            for shape in shapes.into_iter().flatten() {
                println!("    {whose}: {shape}");
            }
        }
    }
    different.is_empty()
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut paths = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(ours), Some(theirs)) = (paths.next(), paths.next()) else {
        return Err("usage: btf-compare OURS THEIRS [OBJECT|FOLDER...]".into());
    };
    let (ours, theirs) = (Kernel(read_btf(&ours)?), Kernel(read_btf(&theirs)?));
    let mut same = compare_types(&ours.0, &theirs.0);

    let mut objects: Vec<(String, Vec<u8>)> = Vec::new();
    for packed in collector::objects::ALL {
        objects.push((packed.name.to_owned(), packed.unpack()?));
    }
    let own: Vec<_> = objects.iter().map(|(_, bytes)| ObjectSpec::parse(bytes)).collect::<Result<_, _>>()?;
    let small = minimize(&ours.0, &own.iter().collect::<Vec<_>>())?;
    println!("{} bytes of BTF for our own programs", small.len());
    drop(own);

    let mut found = BTreeSet::new();
    for path in paths {
        files(&path, &mut found)?;
    }
    for path in found {
        objects.push((path.display().to_string(), read_object(&path)?));
    }
    let (mut relocations, mut with, mut differences) = (0, 0, Vec::new());
    for (name, bytes) in &objects {
        // What is no object for us is `tests/run selftests`' to say.
        let Ok(spec) = ObjectSpec::parse(bytes) else { continue };
        let (Some(local), Some(ext)) = (&spec.btf, &spec.ext) else { continue };
        let relos: Vec<CoreRelo> = ext.core_relos().flat_map(|section| section.records).collect();
        if relos.is_empty() {
            continue;
        }
        let few = Kernel(Btf::parse(minimize(&ours.0, &[&spec])?)?);
        let [ours, theirs, few] = [&ours, &theirs, &few].map(|kernel| answers(local, &relos, kernel));
        let (ours, theirs, few) = (ours?, theirs?, few?);
        for (at, relo) in relos.iter().enumerate() {
            if ours[at] != theirs[at] || ours[at] != few[at] {
                let what = describe(local, relo);
                differences.push(format!(
                    "  {name}: {what}: {} of ours, {} of theirs, {} of few",
                    ours[at], theirs[at], few[at]
                ));
            }
        }
        relocations += relos.len();
        with += 1;
    }
    println!("{relocations} relocations of {with} objects compared, {} different", differences.len());
    differences.iter().take(SHOWN).for_each(|difference| println!("{difference}"));
    same &= differences.is_empty() && relocations > 0;
    Ok(if same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
