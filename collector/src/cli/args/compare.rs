//! Options of `compare`.

use std::path::PathBuf;

use collector::output::{FORMATS, Format};
use collector::read::Source;

use super::{Command, Options, Stop};

/// Functions shown where nothing else is asked for.
const TOP: usize = 30;

#[derive(Debug, PartialEq)]
pub struct Compare {
    pub before: (PathBuf, Source),
    pub after: (PathBuf, Source),
    pub outputs: Vec<(PathBuf, Format)>,
    pub sample_type: Option<String>,
    /// Functions shown.
    pub top: usize,
    pub json: bool,
}

pub(super) fn parse(options: &mut Options<'_>) -> Result<Command, Stop> {
    let (mut files, mut outputs, mut sample_type, mut top, mut json) =
        (Vec::new(), Vec::new(), None, TOP, false);
    while let Some(given) = options.next()? {
        match given.name() {
            "--output" => {
                let path = given.path();
                let format = Format::from_path(&path).map_err(|e| e.to_string())?;
                if !format.is_of_two() {
                    let all = FORMATS.iter().filter(|(format, ..)| format.is_of_two());
                    let endings: Vec<_> = all.map(|(_, ending, _)| *ending).collect();
                    return Err(format!(
                        "{} cannot hold two profiles: use {}",
                        path.display(),
                        endings.join(" or ")
                    )
                    .into());
                }
                outputs.push((path, format));
            }
            "--sample-type" => sample_type = Some(given.string()?),
            "--top" => top = given.number()? as usize,
            "--json" => json = true,
            "" => files.push(source(given.path())?),
            _ => return Err(given.unread()),
        }
    }
    let mut files = files.into_iter();
    let (Some(before), Some(after), None) = (files.next(), files.next(), files.next()) else {
        return Err("name two files, the one before and the one after".into());
    };
    Ok(Command::Compare(Compare { before, after, outputs, sample_type, top, json }))
}

fn source(path: PathBuf) -> Result<(PathBuf, Source), String> {
    match Source::from_path(&path) {
        Some(source) => Ok((path, source)),
        None => {
            let endings = Source::ENDINGS.map(|(ending, _)| ending).join(", ");
            Err(format!("cannot tell what {} is from its ending: {endings} can be read", path.display()))
        }
    }
}
