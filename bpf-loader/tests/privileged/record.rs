//! What became of each kind of program on this kernel, as lines that `tests/vm/attach-table` collects.

use std::panic::Location;

use bpf_loader::kind::ProgramKind;
use bpf_loader::program::Program;
use bpf_loader::{Error, kind::SectionName};

use crate::kernel_has;

/// The row of the table: iterators have one for each of their targets.
fn row(section: &str) -> &str {
    let name = SectionName::parse(section);
    match name.kind {
        Some(kind) if !kind.section.starts_with("iter") => kind.section,
        _ => section.trim_start_matches('?'),
    }
}

/// Says that a program of this kind was attached and ran as often as the test expects.
#[track_caller]
pub fn fired(program: &Program) {
    let file = Location::caller().file().rsplit('/').next().unwrap_or_default();
    println!("FIRED {} {file}", row(&program.section));
}

/// Says how this kernel, which is too old for the kind, refuses it; the error must state the version.
pub fn refused(kind: &ProgramKind, error: &Error) {
    let text = error.to_string();
    let (major, minor) = kind.min_kernel;
    assert!(!kernel_has(kind.min_kernel), "{text}");
    assert!(text.contains(&format!("Linux {major}.{minor}")), "{}: {text}", kind.section);
    println!("REFUSED {} {}", kind.section, text.lines().next().unwrap_or_default());
}

/// As [`refused`], of several kinds by their names.
pub fn refused_sections(sections: &[&str], error: &Error) {
    for section in sections {
        refused(SectionName::parse(section).kind.unwrap(), error);
    }
}

/// Says why no program of these kinds can run here, although the kernel's version has them.
pub fn cannot(sections: &[&str], reason: &str) {
    crate::skip::<()>(reason);
    for section in sections {
        println!("CANNOT {section} {reason}");
    }
}
