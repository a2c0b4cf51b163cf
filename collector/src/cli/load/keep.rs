//! What outlasts loading: attachments and pins.

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};

use bpf_loader::attach::usdt::Usdt;
use bpf_loader::link::Link;
use bpf_loader::load::Object;
use bpf_loader::map::Map;
use bpf_loader::program::Program;
use bpf_sys::Errno;

use super::report::ObjectReport;

/// Attachments, which go when this does unless they are pinned.
pub type Links = Vec<(String, Link)>;

/// Attaches every program where its section says, and registers every map of operations.
pub fn attach(object: &Object, report: &mut ObjectReport) -> Links {
    let mut links = Links::new();
    // Programs for USDT share the maps that say where arguments are.
    let usdt = OnceCell::new();
    for program in object.programs.iter().filter(|p| !p.kind.section.starts_with("struct_ops")) {
        let link = attach_program(object, &usdt, program);
        report.program_attached(&program.name, link.as_ref().map(|_| ()).map_err(Box::as_ref));
        links.extend(link.ok().map(|link| (program.name.clone(), link)));
    }
    for operations in &object.struct_ops {
        let link = operations.attach();
        report.map_attached(&operations.name, link.as_ref().map(|_| ()).map_err(Box::as_ref));
        links.extend(link.ok().map(|link| (operations.name.clone(), link)));
    }
    links
}

fn attach_program(
    object: &Object,
    usdt: &OnceCell<bpf_loader::Result<Usdt>>,
    program: &Program,
) -> bpf_loader::Result<Link> {
    if program.kind.section.starts_with("usdt") {
        let usdt = usdt.get_or_init(|| Usdt::new(object));
        return usdt.as_ref().map_err(Clone::clone)?.attach_by_section(program);
    }
    program.attach()
}

/// Folder of a pin directory that maps go to.
pub fn maps_directory(directory: &Path) -> PathBuf {
    directory.join("maps")
}

/// Pins everything that there is, each kind in a folder of its own. If anything cannot be pinned, or is not there, everything
/// that this run has pinned of the object is unpinned again.
pub fn pin(object: &Object, links: &mut Links, directory: &Path, report: &mut ObjectReport) {
    // Maps that are declared as pinned were pinned when they were created.
    let mut done: Vec<PathBuf> = object.maps.iter().filter_map(|m| m.new_pin().map(Path::to_owned)).collect();
    report.judge();
    let result = match report.ok {
        true => pin_all(object, links, directory, &mut done),
        false => Err("nothing is pinned, since something failed".into()),
    };
    if let Err(error) = result {
        report.pin_errors.push(error);
        for path in done {
            if let Err(e) = fs::remove_file(&path) {
                report.pin_errors.push(format!("{}: {e}", path.display()));
            }
        }
        // Those that are empty: others may have pinned something there.
        for folder in ["maps", "programs", "links", ""] {
            let _ = fs::remove_dir(directory.join(folder));
        }
    }
}

fn pin_all(
    object: &Object,
    links: &mut Links,
    directory: &Path,
    done: &mut Vec<PathBuf>,
) -> Result<(), String> {
    let mut pin_in = |folder: PathBuf, name: &str, pin: &mut dyn FnMut(&Path) -> bpf_loader::Result<()>| {
        let path = folder.join(pin_name(name));
        fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        pin(&path).map_err(|e| {
            let hint = if e.errno() == Some(Errno::EPERM) { "; is it in a BPF file system?" } else { "" };
            format!("{}: {e}{hint}", path.display())
        })?;
        done.push(path);
        Ok::<(), String>(())
    };
    for map in &object.maps {
        let folder = maps_directory(directory);
        // Those that are declared as pinned are there already, new or from before.
        if !is_pinned(map, &folder.join(pin_name(&map.name))) {
            pin_in(folder, &map.name, &mut |path| map.pin(path))?;
        }
    }
    for program in &object.programs {
        pin_in(directory.join("programs"), &program.name, &mut |path| program.pin(path))?;
    }
    for (name, link) in links {
        pin_in(directory.join("links"), name, &mut |path| link.pin(path))?;
    }
    Ok(())
}

fn is_pinned(map: &Map, path: &Path) -> bool {
    let id = |map: &Map| map.info().map(|info| info.id).ok();
    let pinned = Map::from_pin(path).ok();
    pinned.is_some_and(|pinned| id(&pinned).is_some() && id(&pinned) == id(map))
}

/// The BPF file system takes no dots in names, which data sections have.
fn pin_name(name: &str) -> String {
    name.replace('.', "_")
}
