//! Programs of a plan: operands become descriptors, and a refusal is explained.

use std::os::fd::{AsFd, AsRawFd};

use bpf_sys::prog::{ExtRecords, ProgLoad};
use bpf_sys::uapi::insn;
use bpf_sys::{BtfFd, Errno, Insn, Log, ObjName};

use super::Loader;
use crate::attach_to::AttachTo;
use crate::error::{Error, Result};
use crate::insn::Operand;
use crate::kernel::Kernel;
use crate::plan::{ProgramCode, ProgramPlan};
use crate::program::Program;
use crate::verifier_log::{Context, VerifierLog};

impl<K: Kernel> Loader<'_, '_, K> {
    pub(super) fn program(&self, plan: &ProgramPlan<'_>, code: &ProgramCode) -> Result<Program> {
        let in_program = |error| Box::new(Error::InProgram { program: plan.name.into(), error });
        let insns = self.bind_operands(code).map_err(in_program)?;
        let fd_array = self.fd_array(code).map_err(in_program)?;
        let attach_to = match &code.attach.to {
            AttachTo::Kernel => None,
            AttachTo::Module(name) => Some(self.module(name).map_err(in_program)?.as_fd()),
            AttachTo::Program(program) => Some(program.fd().as_fd()),
        };
        // Neither records without BTF nor BTF without records.
        let btf = self.btf.as_ref().filter(|_| !code.func_info.is_empty());
        let records = |bytes| if btf.is_some() { bytes } else { &[][..] };
        let load = ProgLoad {
            prog_type: code.kind.prog_type,
            insns: &insns,
            license: &self.license,
            kern_version: self.plan.kernel_version,
            flags: code.flags,
            name: ObjName::new(plan.name),
            expected_attach_type: code.attach.attach_type,
            btf: btf.map(AsFd::as_fd),
            func_info: ExtRecords { bytes: records(&code.func_info), record_size: 8 },
            line_info: ExtRecords { bytes: records(&code.line_info), record_size: 16 },
            attach_btf_id: code.attach.btf_id.0,
            attach_to,
            fd_array: &fd_array,
            ..ProgLoad::default()
        };
        match self.kernel.load_program(&load, None) {
            Ok(fd) => {
                let section = match &plan.attach_function {
                    Some(function) => [code.kind.section, "/", function].concat(),
                    None => plan.section.into(),
                };
                Ok(Program { name: plan.name.into(), kind: code.kind, section, fd })
            }
            Err(error) => {
                let log = self.verifier_log(&load, code);
                Err(in_program(Box::new(Error::ProgramLoad {
                    error,
                    min_kernel: code.kind.min_kernel,
                    log: Box::new(log),
                })))
            }
        }
    }

    /// Instructions with the maps' descriptors in them.
    fn bind_operands(&self, code: &ProgramCode) -> Result<Vec<Insn>> {
        let mut insns = code.insns.clone();
        for (at, operand) in &code.operands {
            let i = at.0 as usize;
            let (map, source, offset) = match operand {
                Operand::Map(map) => (map, insn::PSEUDO_MAP_FD, None),
                Operand::MapValue { map, offset } => (map, insn::PSEUDO_MAP_VALUE, Some(*offset)),
                Operand::ModuleBtf(module) => {
                    let name = code.modules.get(*module as usize).ok_or(Error::Internal("module"))?;
                    let second = insns.get_mut(i + 1).ok_or(Error::Internal("operand past the end"))?;
                    second.imm = self.module(name)?.as_fd().as_raw_fd();
                    continue;
                }
                Operand::Extern { .. } => return Err(Box::new(Error::Internal("extern operand in a plan"))),
            };
            let fd = self.maps.get(map).ok_or_else(|| Error::MapNotLoaded { map: self.map_name(*map) })?;
            let Some([low, high]) = insns.get_mut(i..i + 2) else {
                return Err(Box::new(Error::Internal("operand past the end")));
            };
            *low = low.with_src(source);
            low.imm = fd.as_fd().as_raw_fd();
            if let Some(offset) = offset {
                high.imm = offset as i32;
            }
        }
        Ok(insns)
    }

    /// Descriptors of the modules whose functions the program calls, by the numbers in its calls; 0 is the kernel itself.
    fn fd_array(&self, code: &ProgramCode) -> Result<Vec<i32>> {
        let calls_module = |i: &Insn| i.is_call() && i.src() == insn::PSEUDO_KFUNC_CALL && i.off != 0;
        // Kernels before 5.14 know no such array.
        if !code.insns.iter().any(calls_module) {
            return Ok(Vec::new());
        }
        let fds = code.modules.iter().map(|name| Ok(self.module(name)?.as_fd().as_raw_fd()));
        std::iter::once(Ok(0)).chain(fds).collect()
    }

    pub(super) fn module(&self, name: &str) -> Result<&BtfFd> {
        let opened = self.modules.get(name).ok_or(Error::Internal("module that was not opened"))?;
        opened.as_ref().map_err(|&error| Box::new(Error::ModuleBtf { module: name.into(), error }))
    }

    /// Loads again with a log. The verifier's work is done anew each time, so there is room for most logs at once; memory is taken only
    /// for what is written.
    fn verifier_log(&self, load: &ProgLoad<'_>, code: &ProgramCode) -> VerifierLog {
        const USUAL: usize = 1 << 20;
        const LARGEST: usize = 16 << 20;
        let mut size = USUAL;
        loop {
            let mut buffer = vec![0; size];
            let mut log = Log::new(1, &mut buffer);
            let result = self.kernel.load_program(load, Some(&mut log));
            let short =
                result.is_err_and(|e| e.errno() == Some(Errno::ENOSPC)) || log.true_size as usize > size;
            if !short || size >= LARGEST {
                let context = Context {
                    poisoned: &code.poisoned,
                    line_info: &code.line_info,
                    btf: self.plan.btf.as_deref(),
                    truncated: short,
                };
                return VerifierLog::new(&String::from_utf8_lossy(log.text()), &context);
            }
            size = LARGEST;
        }
    }
}
