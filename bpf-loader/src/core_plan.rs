//! CO-RE relocations of the functions that a plan contains.

use bpf_sys::Insn;

use crate::error::Result;
use crate::insn::InsnIdx;
use crate::object::ObjectSpec;
use crate::subprog::{Linked, Part};
use crate::target::Target;

pub(crate) struct CoreRelocations;

impl CoreRelocations {
    pub fn resolve<'l>(
        _spec: &ObjectSpec<'_>,
        _linked: impl Iterator<Item = &'l Linked>,
        _target: &dyn Target,
    ) -> Self {
        Self
    }
    pub fn patch(
        &self,
        _spec: &ObjectSpec<'_>,
        _parts: &[Part],
        _insns: &mut [Insn],
    ) -> Result<Vec<(InsnIdx, String)>> {
        Ok(Vec::new())
    }
}
