//! What a program is loaded for: something that has a type in BTF, and whose BTF that is.

use std::sync::Arc;

use bpf_sys::uapi::info::ProgInfo;
use bpf_sys::{AttachType, ProgFd, btf, prog};

use crate::attach_target::Hook;
use crate::btf::{Btf, BtfId, Kind};
use crate::error::{Error, Result};
use crate::kind::{BtfTarget, SectionName};
use crate::object::ProgramSpec;

/// What `attach_btf_id` and `expected_attach_type` of `BPF_PROG_LOAD` say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachPoint {
    /// `attach_btf_id`; void for kinds that name nothing in BTF.
    pub btf_id: BtfId,
    /// `expected_attach_type`; of `struct_ops` programs, the number of the member that they implement.
    pub attach_type: AttachType,
    /// Whose BTF the id is in.
    pub to: AttachTo,
}

/// Whose BTF an `attach_btf_id` is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttachTo {
    /// The kernel's own.
    Kernel,
    /// A module's (Linux 5.11).
    Module(String),
    /// A BPF program's.
    Program(TargetProgram),
}

/// A program in the kernel of which another replaces or traces a function.
#[derive(Debug, Clone)]
pub struct TargetProgram {
    id: u32,
    fd: Arc<ProgFd>,
    btf: Arc<Btf<'static>>,
}

/// The same program.
impl PartialEq for TargetProgram {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for TargetProgram {}

impl AttachTo {
    /// The module, if it is one.
    pub fn module(&self) -> Option<&str> {
        match self {
            Self::Module(name) => Some(name),
            _ => None,
        }
    }
}

impl TargetProgram {
    /// The program behind a descriptor, with its BTF, which only CAP_SYS_ADMIN may read.
    ///
    /// # Errors
    ///
    /// It was loaded without BTF, or this process may not read it.
    pub fn new(program: &ProgFd) -> Result<Self> {
        Self::from_fd(program.try_clone()?)
    }

    /// The program of that id.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), or there is none.
    pub fn open(id: u32) -> Result<Self> {
        Self::from_fd(prog::open_by_id(id, None)?)
    }

    fn from_fd(fd: ProgFd) -> Result<Self> {
        let info = prog::info(&fd)?;
        let ProgInfo { id, btf_id, .. } = *info;
        if btf_id == 0 {
            return Err(Box::new(Error::TargetProgramWithoutBtf { id }));
        }
        let btf_fd = btf::open_by_id(btf_id, None)?;
        let mut data = vec![0; btf::info(&btf_fd)?.size as usize];
        btf::info_data(&btf_fd, &mut data, &mut [])?;
        let btf = Btf::parse(data)?.with_pointer_size(8);
        Ok(Self { id, fd: Arc::new(fd), btf: Arc::new(btf) })
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn fd(&self) -> &ProgFd {
        &self.fd
    }

    /// One of its functions, in its BTF.
    ///
    /// # Errors
    ///
    /// It has none of that name.
    pub fn function(&self, name: &str) -> Result<BtfId> {
        let found = self.btf.find_by_name(name, Kind::Func);
        found.ok_or_else(|| {
            Box::new(Error::NoSuchTarget { name: format!("function {name} in program {}", self.id) })
        })
    }
}

impl ProgramSpec<'_> {
    /// The section's name with the function that counts.
    fn section_name(&self) -> SectionName<'_> {
        SectionName { target: self.attach_function.as_deref().or(self.kind.target), ..self.kind }
    }

    /// What it names in the kernel's BTF, unless it is for a function of another program.
    pub(crate) fn hook(&self) -> Result<Option<Hook<'_>>> {
        if self.attach_to.is_some() { Ok(None) } else { Hook::of(&self.section_name(), self.section) }
    }

    /// The function of another program that it is for, if it is.
    pub(crate) fn target_function(&self) -> Result<Option<(&str, &TargetProgram)>> {
        let wanted = self.kind.kind.map_or(BtfTarget::None, |kind| kind.btf_target);
        let section = || self.section.to_owned();
        match (wanted, &self.attach_to) {
            (BtfTarget::None, _) => Ok(None),
            (BtfTarget::Program, None) => Err(Box::new(Error::NoTargetProgram { section: section() })),
            (_, None) => Ok(None),
            (_, Some(target)) => {
                let function = self.section_name().target.filter(|function| !function.is_empty());
                Ok(Some((function.ok_or_else(|| Error::MissingTarget { section: section() })?, target)))
            }
        }
    }
}
