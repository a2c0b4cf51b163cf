//! Parameters that are tagged `arg:ctx`, for kernels before 6.8: those know the context of a program by the name of its type
//! alone. Functions with such parameters are copied, with the type that the kind of program has.
//!
//! The rules are those of libbpf's `bpf_program_fixup_func_info`.

use bpf_sys::ProgType as P;

use crate::ALL_OBJECTS;
use crate::btf::edit::Edit;
use crate::btf::encode::info;
use crate::btf::{Btf, BtfId, Kind, Linkage, Type};
use crate::error::Result;
use crate::plan::ProgramPlan;
use crate::sorted::SortedMap;

/// What the tag says.
const TAG: &[u8] = b"arg:ctx";
/// Functions take no more parameters than there are registers for, as the kernel has it.
const MAX_PARAMS: u32 = 5;
/// Bytes of a `struct bpf_func_info`: a place and a type, in host order.
const FUNC_INFO: usize = 8;

/// The structure that the kernel knows the context of a type of programs by.
fn context_name(prog_type: P) -> Option<&'static str> {
    Some(match prog_type {
        P::CGROUP_DEVICE => "bpf_cgroup_dev_ctx",
        P::CGROUP_SOCK => "bpf_sock",
        P::CGROUP_SOCK_ADDR => "bpf_sock_addr",
        P::CGROUP_SOCKOPT => "bpf_sockopt",
        P::CGROUP_SYSCTL => "bpf_sysctl",
        P::KPROBE => "bpf_user_pt_regs_t",
        P::NETFILTER => "bpf_nf_ctx",
        P::PERF_EVENT => "bpf_perf_event_data",
        P::RAW_TRACEPOINT | P::RAW_TRACEPOINT_WRITABLE => "bpf_raw_tracepoint_args",
        P::SK_LOOKUP => "bpf_sk_lookup",
        P::SK_MSG => "sk_msg_md",
        P::SK_REUSEPORT => "sk_reuseport_md",
        P::SOCK_OPS => "bpf_sock_ops",
        P::XDP => "xdp_md",
        P::CGROUP_SKB
        | P::FLOW_DISSECTOR
        | P::LWT_IN
        | P::LWT_OUT
        | P::LWT_SEG6LOCAL
        | P::LWT_XMIT
        | P::SCHED_ACT
        | P::SCHED_CLS
        | P::SK_SKB
        | P::SOCKET_FILTER => "__sk_buff",
        _ => return None,
    })
}

/// The tagged parameters of global functions, by the function.
fn tagged(btf: &Btf<'_>) -> SortedMap<BtfId, Vec<u32>> {
    let mut functions: SortedMap<BtfId, Vec<u32>> = SortedMap::new();
    for tag in btf.types_of(Kind::DeclTag).filter(|tag| tag.name_is(TAG)) {
        let Some(param) = tag.component().and_then(|n| u32::try_from(n).ok()) else { continue };
        let Ok(function) = btf.type_by_id(tag.referred()) else { continue };
        if function.func_linkage() == Some(Linkage::Global) && param < MAX_PARAMS {
            let params = functions.entry(function.id()).or_default();
            if !params.contains(&param) {
                params.push(param);
            }
        }
    }
    functions
}

/// Whether a parameter must have another type. One that is already as the kernel wants it need not, and one that points to
/// something else entirely is left for the verifier to complain of.
fn needs_context(btf: &Btf<'_>, param: BtfId, prog_type: P, context: &str) -> Result<bool> {
    let pointer = btf.skip_mods_and_typedefs(param)?;
    if pointer.kind() != Kind::Ptr {
        return Ok(false);
    }
    let mut named = pointer.referred();
    // Its own name is what counts for this one.
    if matches!(prog_type, P::KPROBE | P::PERF_EVENT) {
        for _ in 0..MAX_QUALIFIERS {
            if named == BtfId::VOID {
                break;
            }
            let ty = btf.type_by_id(named)?;
            if ty.kind() == Kind::Typedef && ty.name_is(b"bpf_user_pt_regs_t") {
                return Ok(false);
            }
            if !matches!(ty.kind(), Kind::Const | Kind::Volatile | Kind::Restrict | Kind::TypeTag) {
                break;
            }
            named = ty.referred();
        }
    }
    if named == BtfId::VOID {
        return Ok(true);
    }
    let ty = btf.skip_mods_and_typedefs(named)?;
    let is = |name: &[u8]| ty.kind() == Kind::Struct && ty.name_is(name);
    Ok(match prog_type {
        _ if ty.id() == BtfId::VOID => true,
        _ if is(context.as_bytes()) => false,
        P::KPROBE => is(b"pt_regs"),
        // What bpf_user_pt_regs_t is on one architecture or another.
        P::PERF_EVENT => is(b"pt_regs") || is(b"user_pt_regs") || is(b"user_regs_struct"),
        P::RAW_TRACEPOINT | P::RAW_TRACEPOINT_WRITABLE => ty.kind() == Kind::Int && ty.size() == Some(8),
        _ => false,
    })
}

/// Qualifiers before a name; nobody writes as many.
const MAX_QUALIFIERS: u32 = 8;

/// Copies of functions in the making.
struct Copies<'b> {
    btf: &'b Btf<'b>,
    edit: Edit,
    /// Pointers to the structures of that name.
    contexts: SortedMap<&'static str, BtfId>,
    /// By function and context; the function itself where nothing is to be changed.
    functions: SortedMap<(BtfId, &'static str), BtfId>,
}

impl Copies<'_> {
    /// The copy of a function for programs of a type.
    fn function(&mut self, id: BtfId, params: &[u32], prog_type: P, context: &'static str) -> Result<BtfId> {
        if let Some(&known) = self.functions.get(&(id, context)) {
            return Ok(known);
        }
        let function = self.btf.type_by_id(id)?;
        let copy = self.copy(&function, params, prog_type, context)?.unwrap_or(id);
        self.functions.insert((id, context), copy);
        Ok(copy)
    }

    fn copy(
        &mut self,
        function: &Type<'_>,
        tagged: &[u32],
        prog_type: P,
        context: &'static str,
    ) -> Result<Option<BtfId>> {
        let prototype = self.btf.type_by_id(function.referred())?;
        if prototype.kind() != Kind::FuncProto || prototype.vlen() > MAX_PARAMS {
            return Ok(None);
        }
        let mut words = vec![
            prototype.name_offset(),
            info(Kind::FuncProto, prototype.vlen(), false),
            prototype.referred().0,
        ];
        let mut changed = false;
        for (param, number) in prototype.params().zip(0..) {
            let mut type_id = param.type_id;
            if tagged.contains(&number) && needs_context(self.btf, type_id, prog_type, context)? {
                type_id = self.context(context)?;
                changed = true;
            }
            words.extend([param.name_offset, type_id.0]);
        }
        if !changed {
            return Ok(None);
        }
        let prototype = self.edit.add_type(&words)?;
        let linkage = info(Kind::Func, Linkage::Global.number(), false);
        self.edit.add_type(&[function.name_offset(), linkage, prototype.0]).map(Some)
    }

    /// A pointer to the structure of that name. What is in it is of no account.
    fn context(&mut self, name: &'static str) -> Result<BtfId> {
        if let Some(&known) = self.contexts.get(name) {
            return Ok(known);
        }
        let text = self.edit.add_string(name.as_bytes())?;
        let structure = self.edit.add_type(&[text, info(Kind::Struct, 0, false), 0])?;
        let pointer = self.edit.add_type(&[0, info(Kind::Ptr, 0, false), structure.0])?;
        self.contexts.insert(name, pointer);
        Ok(pointer)
    }
}

/// Has the `func_info` of the programs name copies of the functions that have tagged parameters, unless the kernel knows the
/// tag. The object's types with the copies behind them; `None` if there are none.
pub(crate) fn replace(
    btf: &Btf<'_>,
    programs: &mut [ProgramPlan<'_>],
    knows_tag: impl FnOnce() -> bool,
) -> Result<Option<Vec<u8>>> {
    if !ALL_OBJECTS {
        return Ok(None);
    }
    let tagged = tagged(btf);
    if tagged.is_empty() || knows_tag() {
        return Ok(None);
    }
    let (contexts, functions) = (SortedMap::new(), SortedMap::new());
    let mut copies = Copies { btf, edit: Edit::new(btf)?, contexts, functions };
    for program in programs {
        let Ok(code) = &mut program.code else { continue };
        let Some(context) = context_name(code.kind.prog_type) else { continue };
        let mut replaced = || -> Result<()> {
            for record in code.func_info.chunks_exact_mut(FUNC_INFO) {
                let Some(type_id) = record.last_chunk_mut::<4>() else { continue };
                let id = BtfId(u32::from_ne_bytes(*type_id));
                let Some(params) = tagged.get(&id) else { continue };
                *type_id = copies.function(id, params, code.kind.prog_type, context)?.0.to_ne_bytes();
            }
            Ok(())
        };
        if let Err(e) = replaced() {
            program.code = Err(e);
        }
    }
    if copies.contexts.is_empty() { Ok(None) } else { copies.edit.build().map(Some) }
}

#[cfg(all(test, feature = "all-objects"))]
mod tests;
