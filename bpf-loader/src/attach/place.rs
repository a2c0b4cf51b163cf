//! Places in an ordered list of programs, which tcx, netkit and (from Linux 6.17) control groups have.

use std::os::fd::AsFd;

use bpf_sys::link::{LinkOptions, Relative};
use bpf_sys::uapi::flags::{BPF_F_AFTER, BPF_F_BEFORE, BPF_F_LINK};

use crate::error::{Error, Result};
use crate::link::Link;
use crate::program::Program;

/// Where in the list a program goes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Place<'a> {
    /// Position.
    pub position: Position<'a>,
    /// The revision that the list must have ([`AttachedPrograms::revision`](super::AttachedPrograms::revision)), or 0.
    /// Each change makes a new one.
    pub expected_revision: u64,
}

/// Position in the list.
#[derive(Debug, Clone, Copy, Default)]
pub enum Position<'a> {
    /// After those that are there.
    #[default]
    Default,
    /// Before all that are there.
    First,
    /// After all that are there, which must be possible even where the default is another.
    Last,
    /// Before another.
    Before(Neighbour<'a>),
    /// After another.
    After(Neighbour<'a>),
}

/// What is in the list already.
#[derive(Debug, Clone, Copy)]
pub enum Neighbour<'a> {
    /// A program that was attached without a link.
    Program(&'a Program),
    /// The same, by its id.
    ProgramId(u32),
    /// A BPF link.
    Link(&'a Link),
    /// The same, by its id.
    LinkId(u32),
}

impl<'a> Neighbour<'a> {
    fn relative(self) -> Result<(Relative<'a>, u32)> {
        Ok(match self {
            Self::Program(program) => (Relative::Fd(program.fd.as_fd()), 0),
            Self::ProgramId(id) => (Relative::Id(id), 0),
            Self::Link(link) => {
                let fd = link.fd().ok_or(Error::NotABpfLink { operation: "be a neighbour" })?;
                (Relative::Fd(fd.as_fd()), BPF_F_LINK)
            }
            Self::LinkId(id) => (Relative::Id(id), BPF_F_LINK),
        })
    }
}

impl<'a> Place<'a> {
    /// The flags and options of `BPF_LINK_CREATE`.
    pub(super) fn link(self) -> Result<(u32, LinkOptions<'a>)> {
        let ((relative, link_flag), side) = match self.position {
            Position::Default => ((Relative::None, 0), 0),
            Position::First => ((Relative::None, 0), BPF_F_BEFORE),
            Position::Last => ((Relative::None, 0), BPF_F_AFTER),
            Position::Before(neighbour) => (neighbour.relative()?, BPF_F_BEFORE),
            Position::After(neighbour) => (neighbour.relative()?, BPF_F_AFTER),
        };
        let options = LinkOptions::Ordered { relative, expected_revision: self.expected_revision };
        Ok((side | link_flag, options))
    }

    /// Whether it asks for nothing.
    pub(super) fn is_default(self) -> bool {
        matches!(self.position, Position::Default) && self.expected_revision == 0
    }
}
