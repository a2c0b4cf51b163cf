//! Section name to program kind: the one table of program types, attach types and what each needs at load.
//!
//! The names are libbpf's (its `section_defs`), which compilers and users of BPF C share.

use bpf_sys::{AttachType as A, ProgType as P};

/// What a program is, as its section name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgramKind {
    /// The section name's first part, `fentry.s` of `fentry.s/do_unlinkat`.
    pub section: &'static str,
    /// `prog_type` of `BPF_PROG_LOAD`.
    pub prog_type: P,
    /// `expected_attach_type` of `BPF_PROG_LOAD`.
    pub attach_type: A,
    /// `BPF_F_SLEEPABLE` is set.
    pub sleepable: bool,
    /// `BPF_F_XDP_HAS_FRAGS` is set.
    pub xdp_frags: bool,
    /// What `attach_btf_id` names, if anything.
    pub btf_target: BtfTarget,
    /// First Linux version, as (major, minor), that takes such a program.
    pub min_kernel: (u8, u8),
    /// Whether the name takes a `/target` suffix.
    takes_target: bool,
}

/// How the target in a section name is found in BTF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BtfTarget {
    /// The program names nothing in BTF.
    None,
    /// A kernel function, by this prefix and the target (`bpf_lsm_`, `bpf_iter_` or nothing).
    Function(&'static str),
    /// A typedef, by this prefix and the target (`btf_trace_`).
    Typedef(&'static str),
    /// A function of another BPF program (`freplace`).
    Program,
}

const fn kind(section: &'static str, prog_type: P, attach_type: A, min_kernel: (u8, u8)) -> ProgramKind {
    ProgramKind {
        section,
        prog_type,
        attach_type,
        sleepable: false,
        xdp_frags: false,
        btf_target: BtfTarget::None,
        min_kernel,
        takes_target: false,
    }
}

impl ProgramKind {
    const fn target(self) -> Self {
        Self { takes_target: true, ..self }
    }
    const fn function(self, prefix: &'static str) -> Self {
        Self { takes_target: true, btf_target: BtfTarget::Function(prefix), ..self }
    }
    const fn typedef(self, prefix: &'static str) -> Self {
        Self { takes_target: true, btf_target: BtfTarget::Typedef(prefix), ..self }
    }
    const fn program(self) -> Self {
        Self { takes_target: true, btf_target: BtfTarget::Program, ..self }
    }
    const fn sleepable(self) -> Self {
        Self { sleepable: true, ..self }
    }
    const fn frags(self) -> Self {
        Self { xdp_frags: true, ..self }
    }
}

impl ProgramKind {
    /// Is it for the probes that programs bring with them?
    pub(crate) fn is_usdt(&self) -> bool {
        matches!(self.section, "usdt" | "usdt.s")
    }

    /// Does one program go to many functions, by their places in BTF?
    pub(crate) fn is_tracing_multi(&self) -> bool {
        matches!(self.attach_type, A::TRACE_FENTRY_MULTI | A::TRACE_FEXIT_MULTI | A::TRACE_FSESSION_MULTI)
    }
}

/// `BPF_CGROUP_INET_INGRESS` is 0, which is also "no attach type".
const NONE: A = A(0);

#[rustfmt::skip]
const KINDS: &[ProgramKind] = &[
    kind("socket", P::SOCKET_FILTER, NONE, (3, 19)),
    kind("sk_reuseport/migrate", P::SK_REUSEPORT, A::SK_REUSEPORT_SELECT_OR_MIGRATE, (5, 14)),
    kind("sk_reuseport", P::SK_REUSEPORT, A::SK_REUSEPORT_SELECT, (4, 19)),
    kind("kprobe", P::KPROBE, NONE, (4, 1)).target(),
    kind("kretprobe", P::KPROBE, NONE, (4, 1)).target(),
    kind("uprobe", P::KPROBE, NONE, (4, 3)).target(),
    kind("uprobe.s", P::KPROBE, NONE, (6, 0)).target().sleepable(),
    kind("uretprobe", P::KPROBE, NONE, (4, 3)).target(),
    kind("uretprobe.s", P::KPROBE, NONE, (6, 0)).target().sleepable(),
    kind("kprobe.multi", P::KPROBE, A::TRACE_KPROBE_MULTI, (5, 18)).target(),
    kind("kretprobe.multi", P::KPROBE, A::TRACE_KPROBE_MULTI, (5, 18)).target(),
    kind("kprobe.session", P::KPROBE, A::TRACE_KPROBE_SESSION, (6, 10)).target(),
    kind("uprobe.multi", P::KPROBE, A::TRACE_UPROBE_MULTI, (6, 6)).target(),
    kind("uretprobe.multi", P::KPROBE, A::TRACE_UPROBE_MULTI, (6, 6)).target(),
    kind("uprobe.session", P::KPROBE, A::TRACE_UPROBE_SESSION, (6, 13)).target(),
    kind("uprobe.multi.s", P::KPROBE, A::TRACE_UPROBE_MULTI, (6, 6)).target().sleepable(),
    kind("uretprobe.multi.s", P::KPROBE, A::TRACE_UPROBE_MULTI, (6, 6)).target().sleepable(),
    kind("uprobe.session.s", P::KPROBE, A::TRACE_UPROBE_SESSION, (6, 13)).target().sleepable(),
    kind("ksyscall", P::KPROBE, NONE, (4, 1)).target(),
    kind("kretsyscall", P::KPROBE, NONE, (4, 1)).target(),
    kind("usdt", P::KPROBE, NONE, (4, 3)).target(),
    kind("usdt.s", P::KPROBE, NONE, (6, 0)).target().sleepable(),
    kind("tc/ingress", P::SCHED_CLS, A::TCX_INGRESS, (4, 1)),
    kind("tc/egress", P::SCHED_CLS, A::TCX_EGRESS, (4, 1)),
    kind("tcx/ingress", P::SCHED_CLS, A::TCX_INGRESS, (6, 6)),
    kind("tcx/egress", P::SCHED_CLS, A::TCX_EGRESS, (6, 6)),
    kind("tc", P::SCHED_CLS, NONE, (4, 1)),
    kind("classifier", P::SCHED_CLS, NONE, (4, 1)),
    kind("action", P::SCHED_ACT, NONE, (4, 1)),
    kind("netkit/primary", P::SCHED_CLS, A::NETKIT_PRIMARY, (6, 7)),
    kind("netkit/peer", P::SCHED_CLS, A::NETKIT_PEER, (6, 7)),
    kind("tracepoint", P::TRACEPOINT, NONE, (4, 7)).target(),
    kind("tp", P::TRACEPOINT, NONE, (4, 7)).target(),
    kind("tracepoint.s", P::TRACEPOINT, NONE, (7, 2)).target().sleepable(),
    kind("tp.s", P::TRACEPOINT, NONE, (7, 2)).target().sleepable(),
    kind("raw_tracepoint", P::RAW_TRACEPOINT, NONE, (4, 17)).target(),
    kind("raw_tp", P::RAW_TRACEPOINT, NONE, (4, 17)).target(),
    kind("raw_tracepoint.s", P::RAW_TRACEPOINT, NONE, (7, 2)).target().sleepable(),
    kind("raw_tp.s", P::RAW_TRACEPOINT, NONE, (7, 2)).target().sleepable(),
    kind("raw_tracepoint.w", P::RAW_TRACEPOINT_WRITABLE, NONE, (5, 2)).target(),
    kind("raw_tp.w", P::RAW_TRACEPOINT_WRITABLE, NONE, (5, 2)).target(),
    kind("tp_btf", P::TRACING, A::TRACE_RAW_TP, (5, 5)).typedef("btf_trace_"),
    kind("tp_btf.s", P::TRACING, A::TRACE_RAW_TP, (7, 2)).typedef("btf_trace_").sleepable(),
    kind("fentry", P::TRACING, A::TRACE_FENTRY, (5, 5)).function(""),
    kind("fmod_ret", P::TRACING, A::MODIFY_RETURN, (5, 7)).function(""),
    kind("fexit", P::TRACING, A::TRACE_FEXIT, (5, 5)).function(""),
    kind("fentry.s", P::TRACING, A::TRACE_FENTRY, (5, 10)).function("").sleepable(),
    kind("fmod_ret.s", P::TRACING, A::MODIFY_RETURN, (5, 10)).function("").sleepable(),
    kind("fexit.s", P::TRACING, A::TRACE_FEXIT, (5, 10)).function("").sleepable(),
    kind("fsession", P::TRACING, A::TRACE_FSESSION, (7, 0)).function(""),
    kind("fsession.s", P::TRACING, A::TRACE_FSESSION, (7, 0)).function("").sleepable(),
    kind("fentry.multi", P::TRACING, A::TRACE_FENTRY_MULTI, (7, 2)).target(),
    kind("fentry.multi.s", P::TRACING, A::TRACE_FENTRY_MULTI, (7, 2)).target().sleepable(),
    kind("fexit.multi", P::TRACING, A::TRACE_FEXIT_MULTI, (7, 2)).target(),
    kind("fexit.multi.s", P::TRACING, A::TRACE_FEXIT_MULTI, (7, 2)).target().sleepable(),
    kind("fsession.multi", P::TRACING, A::TRACE_FSESSION_MULTI, (7, 2)).target(),
    kind("fsession.multi.s", P::TRACING, A::TRACE_FSESSION_MULTI, (7, 2)).target().sleepable(),
    kind("freplace", P::EXT, NONE, (5, 6)).program(),
    kind("lsm", P::LSM, A::LSM_MAC, (5, 7)).function("bpf_lsm_"),
    kind("lsm.s", P::LSM, A::LSM_MAC, (5, 10)).function("bpf_lsm_").sleepable(),
    kind("lsm_cgroup", P::LSM, A::LSM_CGROUP, (6, 0)).function("bpf_lsm_"),
    kind("iter", P::TRACING, A::TRACE_ITER, (5, 8)).function("bpf_iter_"),
    kind("iter.s", P::TRACING, A::TRACE_ITER, (6, 0)).function("bpf_iter_").sleepable(),
    kind("syscall", P::SYSCALL, NONE, (5, 14)).sleepable(),
    kind("xdp.frags/devmap", P::XDP, A::XDP_DEVMAP, (5, 18)).frags(),
    kind("xdp/devmap", P::XDP, A::XDP_DEVMAP, (5, 8)),
    kind("xdp.frags/cpumap", P::XDP, A::XDP_CPUMAP, (5, 18)).frags(),
    kind("xdp/cpumap", P::XDP, A::XDP_CPUMAP, (5, 9)),
    kind("xdp.frags", P::XDP, A::XDP, (5, 18)).frags(),
    kind("xdp", P::XDP, A::XDP, (4, 8)),
    kind("perf_event", P::PERF_EVENT, NONE, (4, 9)),
    kind("lwt_in", P::LWT_IN, NONE, (4, 10)),
    kind("lwt_out", P::LWT_OUT, NONE, (4, 10)),
    kind("lwt_xmit", P::LWT_XMIT, NONE, (4, 10)),
    kind("lwt_seg6local", P::LWT_SEG6LOCAL, NONE, (4, 18)),
    kind("sockops", P::SOCK_OPS, A::CGROUP_SOCK_OPS, (4, 13)),
    kind("sk_skb/stream_parser", P::SK_SKB, A::SK_SKB_STREAM_PARSER, (4, 14)),
    kind("sk_skb/stream_verdict", P::SK_SKB, A::SK_SKB_STREAM_VERDICT, (4, 14)),
    kind("sk_skb/verdict", P::SK_SKB, A::SK_SKB_VERDICT, (5, 13)),
    kind("sk_skb", P::SK_SKB, NONE, (4, 14)),
    kind("sk_msg", P::SK_MSG, A::SK_MSG_VERDICT, (4, 17)),
    kind("lirc_mode2", P::LIRC_MODE2, A::LIRC_MODE2, (4, 18)),
    kind("flow_dissector", P::FLOW_DISSECTOR, A::FLOW_DISSECTOR, (4, 20)),
    kind("cgroup_skb/ingress", P::CGROUP_SKB, A::CGROUP_INET_INGRESS, (4, 10)),
    kind("cgroup_skb/egress", P::CGROUP_SKB, A::CGROUP_INET_EGRESS, (4, 10)),
    kind("cgroup/skb", P::CGROUP_SKB, NONE, (4, 10)),
    kind("cgroup/sock_create", P::CGROUP_SOCK, A::CGROUP_INET_SOCK_CREATE, (4, 10)),
    kind("cgroup/sock_release", P::CGROUP_SOCK, A::CGROUP_INET_SOCK_RELEASE, (5, 9)),
    kind("cgroup/sock", P::CGROUP_SOCK, A::CGROUP_INET_SOCK_CREATE, (4, 10)),
    kind("cgroup/post_bind4", P::CGROUP_SOCK, A::CGROUP_INET4_POST_BIND, (4, 17)),
    kind("cgroup/post_bind6", P::CGROUP_SOCK, A::CGROUP_INET6_POST_BIND, (4, 17)),
    kind("cgroup/bind4", P::CGROUP_SOCK_ADDR, A::CGROUP_INET4_BIND, (4, 17)),
    kind("cgroup/bind6", P::CGROUP_SOCK_ADDR, A::CGROUP_INET6_BIND, (4, 17)),
    kind("cgroup/connect4", P::CGROUP_SOCK_ADDR, A::CGROUP_INET4_CONNECT, (4, 17)),
    kind("cgroup/connect6", P::CGROUP_SOCK_ADDR, A::CGROUP_INET6_CONNECT, (4, 17)),
    kind("cgroup/connect_unix", P::CGROUP_SOCK_ADDR, A::CGROUP_UNIX_CONNECT, (6, 7)),
    kind("cgroup/sendmsg4", P::CGROUP_SOCK_ADDR, A::CGROUP_UDP4_SENDMSG, (4, 18)),
    kind("cgroup/sendmsg6", P::CGROUP_SOCK_ADDR, A::CGROUP_UDP6_SENDMSG, (4, 18)),
    kind("cgroup/sendmsg_unix", P::CGROUP_SOCK_ADDR, A::CGROUP_UNIX_SENDMSG, (6, 7)),
    kind("cgroup/recvmsg4", P::CGROUP_SOCK_ADDR, A::CGROUP_UDP4_RECVMSG, (5, 2)),
    kind("cgroup/recvmsg6", P::CGROUP_SOCK_ADDR, A::CGROUP_UDP6_RECVMSG, (5, 2)),
    kind("cgroup/recvmsg_unix", P::CGROUP_SOCK_ADDR, A::CGROUP_UNIX_RECVMSG, (6, 7)),
    kind("cgroup/getpeername4", P::CGROUP_SOCK_ADDR, A::CGROUP_INET4_GETPEERNAME, (5, 8)),
    kind("cgroup/getpeername6", P::CGROUP_SOCK_ADDR, A::CGROUP_INET6_GETPEERNAME, (5, 8)),
    kind("cgroup/getpeername_unix", P::CGROUP_SOCK_ADDR, A::CGROUP_UNIX_GETPEERNAME, (6, 7)),
    kind("cgroup/getsockname4", P::CGROUP_SOCK_ADDR, A::CGROUP_INET4_GETSOCKNAME, (5, 8)),
    kind("cgroup/getsockname6", P::CGROUP_SOCK_ADDR, A::CGROUP_INET6_GETSOCKNAME, (5, 8)),
    kind("cgroup/getsockname_unix", P::CGROUP_SOCK_ADDR, A::CGROUP_UNIX_GETSOCKNAME, (6, 7)),
    kind("cgroup/sysctl", P::CGROUP_SYSCTL, A::CGROUP_SYSCTL, (5, 2)),
    kind("cgroup/getsockopt", P::CGROUP_SOCKOPT, A::CGROUP_GETSOCKOPT, (5, 3)),
    kind("cgroup/setsockopt", P::CGROUP_SOCKOPT, A::CGROUP_SETSOCKOPT, (5, 3)),
    kind("cgroup/dev", P::CGROUP_DEVICE, A::CGROUP_DEVICE, (4, 15)),
    kind("struct_ops", P::STRUCT_OPS, NONE, (5, 6)).target(),
    kind("struct_ops.s", P::STRUCT_OPS, NONE, (6, 0)).target().sleepable(),
    kind("sk_lookup", P::SK_LOOKUP, A::SK_LOOKUP, (5, 9)),
    kind("netfilter", P::NETFILTER, A::NETFILTER, (6, 4)),
];

/// A section name, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SectionName<'a> {
    /// The kind, if the table has it.
    pub kind: Option<&'static ProgramKind>,
    /// What follows the kind's name and a slash.
    pub target: Option<&'a str>,
    /// The name begins with `?`: do not load unless asked.
    pub optional: bool,
}

impl<'a> SectionName<'a> {
    /// Looks a program section's name up in the table.
    pub fn parse(name: &'a str) -> Self {
        let (optional, name) = match name.strip_prefix('?') {
            Some(rest) => (true, rest),
            None => (false, name),
        };
        for kind in KINDS {
            match name.strip_prefix(kind.section) {
                Some("") => return Self { kind: Some(kind), target: None, optional },
                Some(rest) if kind.takes_target && rest.starts_with('/') => {
                    return Self { kind: Some(kind), target: Some(&rest[1..]), optional };
                }
                _ => {}
            }
        }
        Self { kind: None, target: None, optional }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_names_and_targets_are_told_apart() {
        let tp = SectionName::parse("tp/sched/sched_switch");
        assert_eq!(tp.kind.unwrap().prog_type, P::TRACEPOINT);
        assert_eq!(tp.target, Some("sched/sched_switch"));

        let frags = SectionName::parse("xdp.frags");
        assert!(frags.kind.unwrap().xdp_frags);
        // Only kinds with a target take a suffix: "perf_event/x" is not a kind that anybody defined.
        assert_eq!(SectionName::parse("perf_event/x").kind, None);
        assert_eq!(SectionName::parse("kprobes").kind, None);
        assert_eq!(SectionName::parse(".text").kind, None);
    }

    #[test]
    fn a_question_mark_makes_a_program_optional() {
        let name = SectionName::parse("?fentry.s/do_unlinkat");
        assert!(name.optional && name.kind.unwrap().sleepable);
        assert_eq!(name.target, Some("do_unlinkat"));
        assert_eq!(name.kind.unwrap().btf_target, BtfTarget::Function(""));
    }

    #[test]
    fn no_row_is_hidden_by_an_earlier_one() {
        for kind in KINDS {
            assert_eq!(SectionName::parse(kind.section).kind, Some(kind), "{}", kind.section);
        }
    }
}
