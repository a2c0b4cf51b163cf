//! Options of `btf`.

use std::path::PathBuf;

use super::{Command, Options, Stop};

/// `btf generate` or `btf minimize`.
#[derive(Debug, PartialEq)]
pub struct Btf {
    pub action: Action,
    pub output: PathBuf,
}

#[derive(Debug, PartialEq)]
pub enum Action {
    /// BTF from debug information.
    Generate { vmlinux: PathBuf },
    /// What objects, or without any our own programs, need of a kernel's BTF; without a file, the running one's.
    Minimize { objects: Vec<PathBuf>, btf: Option<PathBuf> },
}

pub(super) fn parse(options: &mut Options<'_>) -> Result<Command, Stop> {
    let (mut words, mut btf, mut output) = (Vec::new(), None, None);
    while let Some(given) = options.next()? {
        match given.name() {
            "--btf" => btf = Some(given.path()),
            "--output" => output = Some(given.path()),
            "" => words.push(given.path()),
            _ => return Err(given.unread()),
        }
    }
    let mut words = words.into_iter();
    let action = words.next();
    let action = match action.as_ref().and_then(|word| word.to_str()) {
        Some("generate") => {
            let (Some(vmlinux), None) = (words.next(), words.next()) else {
                return Err("`btf generate` takes one file with debug information".into());
            };
            if btf.is_some() {
                return Err("--btf is for `btf minimize`: `btf generate` makes BTF".into());
            }
            Action::Generate { vmlinux }
        }
        Some("minimize") => Action::Minimize { objects: words.collect(), btf },
        _ => return Err("what shall `btf` do: generate or minimize?".into()),
    };
    let output = output.ok_or("--output says where the BTF goes: it is needed")?;
    Ok(Command::Btf(Btf { action, output }))
}
