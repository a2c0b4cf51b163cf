//! What comes after the model: tables, pictures and files.
//!
//! | ending | writer |
//! |---|---|
//! | none, on the terminal | [`table`]; of a heap, [`heap`] |
//! | `.svg`, `.html` | [`flamegraph`] |
//! | `.folded` | [`folded`] |
//! | `.pb.gz`, `.otlp`, `.jsonl` | the `convert` module |
//!
//! Writers are pure: they take a [`Profile`](crate::model::Profile) and an `io::Write`. [`file::OutputFile`]
//! is that `Write` for a path that a user named, and [`terminal::Style`] is what there is to know about a
//! terminal.

pub mod activity;
#[cfg(feature = "compare")]
pub mod compare;
mod costs;
pub mod file;
pub mod flamegraph;
pub mod folded;
pub mod heap;
#[cfg(feature = "json")]
pub mod json;
pub mod live;
pub mod names;
pub mod progress;
pub mod summary;
pub mod table;
pub mod terminal;
pub mod timeline;
pub mod top;
mod tree;

#[cfg(test)]
pub(crate) mod fixture;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A file format, picked by a path's ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// `.svg`: an interactive flame graph.
    Svg,
    /// `.html`: the same as a page.
    Html,
    /// `.folded`: one line a stack, for flame graph tools.
    Folded,
    /// `.pb.gz`: gzipped pprof.
    Pprof,
    /// `.otlp`: the binary OTLP export request.
    Otlp,
    /// `.jsonl`: OTLP JSON, a line a request.
    OtlpJsonLines,
}

/// Every format with its ending and what it is, in the order in which errors and help list them.
pub const FORMATS: [(Format, &str, &str); 6] = [
    (Format::Svg, ".svg", "flame graph"),
    (Format::Html, ".html", "flame graph as a page"),
    (Format::Folded, ".folded", "folded stacks"),
    (Format::Pprof, ".pb.gz", "pprof"),
    (Format::Otlp, ".otlp", "OTLP request"),
    (Format::OtlpJsonLines, ".jsonl", "OTLP JSON lines"),
];

impl Format {
    /// Whether this build writes it.
    pub fn is_built_in(self) -> bool {
        match self {
            Self::Svg | Self::Html | Self::Folded | Self::Pprof => cfg!(feature = "pictures"),
            Self::OtlpJsonLines => cfg!(feature = "json"),
            Self::Otlp => true,
        }
    }

    /// Whether it can hold two profiles and what is between them.
    #[cfg(feature = "compare")]
    pub fn is_of_two(self) -> bool {
        matches!(self, Self::Svg | Self::Html | Self::Folded)
    }

    /// The feature that it needs, where one may be missing.
    fn feature(self) -> &'static str {
        if self == Self::OtlpJsonLines { "json" } else { "pictures" }
    }

    /// The format that the ending of `path` asks for.
    ///
    /// # Errors
    ///
    /// [`OutputError::UnknownEnding`] where no format has that ending; [`OutputError::NotBuiltIn`].
    pub fn from_path(path: &Path) -> Result<Self, OutputError> {
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let ends = |ending: &str| name.ends_with(ending) && name.len() > ending.len();
        match FORMATS.iter().find(|(_, ending, _)| ends(ending)) {
            Some((format, ..)) if format.is_built_in() => Ok(*format),
            Some((format, _, what)) => {
                Err(OutputError::NotBuiltIn { path: path.to_owned(), what, feature: format.feature() })
            }
            None => Err(OutputError::UnknownEnding { path: path.to_owned() }),
        }
    }
}

/// Why an output could not be made.
#[derive(Debug)]
#[non_exhaustive]
pub enum OutputError {
    /// No format belongs to the path's ending. Wrong usage.
    UnknownEnding {
        /// The path as given.
        path: PathBuf,
    },
    /// This build does not write the format. Wrong usage.
    NotBuiltIn {
        /// The path as given.
        path: PathBuf,
        /// The format.
        what: &'static str,
        /// The cargo feature.
        feature: &'static str,
    },
    /// The path cannot be opened for writing; found before anything was sampled.
    Open {
        /// The path as given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Writing failed, and nothing is left at the path but what was there before.
    Write {
        /// The path as given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownEnding { path } => {
                write!(f, "cannot tell the format of {} from its ending; use ", path.display())?;
                let formats: Vec<_> = FORMATS.iter().filter(|(format, ..)| format.is_built_in()).collect();
                for (position, (_, ending, what)) in formats.iter().enumerate() {
                    let separator = match position {
                        0 => "",
                        last if last + 1 == formats.len() => " or ",
                        _ => ", ",
                    };
                    write!(f, "{separator}{ending} ({what})")?;
                }
                Ok(())
            }
            Self::NotBuiltIn { path, what, feature } => {
                write!(f, "this build cannot write {} ({what}; feature `{feature}`)", path.display())
            }
            Self::Open { path, .. } => write!(f, "cannot open {} for writing", path.display()),
            Self::Write { path, .. } => write!(f, "cannot write {}", path.display()),
        }
    }
}

impl std::error::Error for OutputError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::UnknownEnding { .. } | Self::NotBuiltIn { .. } => None,
            Self::Open { source, .. } | Self::Write { source, .. } => Some(source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_follows_the_ending() {
        for (format, ending, _) in FORMATS {
            let found = Format::from_path(Path::new(&format!("/tmp/a.b{ending}")));
            match found {
                Ok(found) => assert_eq!((found, format.is_built_in()), (format, true)),
                Err(error) => {
                    assert!(!format.is_built_in());
                    assert!(error.to_string().contains(format.feature()), "{error}");
                }
            }
        }
    }

    #[test]
    fn unknown_endings_list_the_known_ones() {
        for path in ["out", "out.png", "out.gz", ".svg", "-", ""] {
            let error = Format::from_path(Path::new(path)).unwrap_err().to_string();
            for (_, ending, _) in FORMATS.iter().filter(|(format, ..)| format.is_built_in()) {
                assert!(error.contains(ending), "{error}");
            }
        }
    }
}
