//! A kernel that is made up.

use bpf_loader::btf::encode::{Builder, Field, SIGNED};
use bpf_loader::btf::{Btf, BtfId, Kind, Linkage};
use bpf_loader::bytes::Endian;
use bpf_loader::features::Features;
use bpf_loader::target::{ModuleBtf, Target, TargetBtf};
use std::sync::OnceLock;

/// 4 CPUs, pages of 4 KiB, a few dozen types, and every feature.
pub(super) struct MadeUp<'b>(pub &'b Btf<'b>);

impl TargetBtf for MadeUp<'_> {
    fn vmlinux(&self) -> bpf_loader::Result<Option<&Btf<'_>>> {
        Ok(Some(self.0))
    }

    fn modules(&self) -> bpf_loader::Result<&[ModuleBtf<'_>]> {
        Ok(&[])
    }
}

impl Target for MadeUp<'_> {
    fn types(&self) -> &dyn TargetBtf {
        self
    }

    fn features(&self) -> &Features {
        &Features::ALL
    }

    fn page_size(&self) -> u32 {
        4096
    }

    fn possible_cpus(&self) -> u32 {
        4
    }
}

/// The kernel's types: those that the profiler's program reads, some moved, and what programs attach to.
pub(super) fn types() -> &'static Btf<'static> {
    static TYPES: OnceLock<Btf<'static>> = OnceLock::new();
    TYPES.get_or_init(|| Btf::parse(build()).expect("made by this module"))
}

fn build() -> Vec<u8> {
    let mut b = Builder::new(Endian::HOST);
    let int = b.int("int", 4, SIGNED);
    let u32_ = b.int("unsigned int", 4, 0);
    let u64_ = b.int("unsigned long", 8, 0);
    let char_ = b.int("char", 1, SIGNED);
    let comm = b.array(char_, u32_, 16);
    let counter = b.structure("", 4, &[Field::at("counter", int, 0)]);
    let atomic = b.typedef("atomic_t", counter);
    let ns_common = b.structure("ns_common", 8, &[Field::at("inum", u32_, 4)]);
    let pid_namespace = b.structure("pid_namespace", 16, &[Field::at("ns", ns_common, 8)]);
    let namespace_ptr = b.ptr(pid_namespace);
    let upid = b.structure("upid", 16, &[Field::at("nr", int, 0), Field::at("ns", namespace_ptr, 8)]);
    let numbers = b.array(upid, u32_, 0);
    let pid = b.structure("pid", 16, &[Field::at("level", u32_, 4), Field::at("numbers", numbers, 16)]);
    let pid_ptr = b.ptr(pid);
    let signal = b.structure("signal_struct", 8, &[Field::at("live", atomic, 4)]);
    let signal_ptr = b.ptr(signal);
    let node = b.structure("kernfs_node", 16, &[Field::at("id", u64_, 8)]);
    let node_ptr = b.ptr(node);
    let cgroup = b.structure("cgroup", 24, &[Field::at("level", int, 0), Field::at("kn", node_ptr, 16)]);
    let cgroup_ptr = b.ptr(cgroup);
    // A state's parent is a state.
    let parent = BtfId(b.next_id().0 + 1);
    let state_fields = [Field::at("cgroup", cgroup_ptr, 0), Field::at("parent", parent, 8)];
    let state = b.structure("cgroup_subsys_state", 16, &state_fields);
    let state_ptr = b.ptr(state);
    let subsystems = b.array(state_ptr, u32_, 14);
    let css_set = b.structure("css_set", 112, &[Field::at("subsys", subsystems, 0)]);
    let css_set_ptr = b.ptr(css_set);
    let task_ptr = BtfId(b.next_id().0 + 2);
    // Identifiers inside an anonymous structure, as some kernels have them.
    let ids = b.structure(
        "",
        16,
        &[Field::at("pid", int, 0), Field::at("tgid", int, 4), Field::bits("flag", u32_, 64, 3)],
    );
    let task = b.structure(
        "task_struct",
        96,
        &[
            Field::at("", ids, 16),
            Field::at("group_leader", task_ptr, 32),
            Field::at("thread_pid", pid_ptr, 40),
            Field::at("signal", signal_ptr, 48),
            Field::at("cgroups", css_set_ptr, 56),
            Field::at("comm", comm, 64),
        ],
    );
    b.ptr(task);
    b.enumeration("pid_type", false, &[("PIDTYPE_PID", 0), ("PIDTYPE_TGID", 1)]);
    b.enumeration64("wide", false, &[("WIDE_A", 1), ("WIDE_B", 1 << 40)]);
    b.composite(Kind::Union, "either", 8, &[Field::at("small", u32_, 0), Field::at("large", u64_, 0)]);
    b.forward("unknown", false);
    b.float("double", 8);
    let hook = b.prototype(int, &[("task", task_ptr)]);
    b.function("do_exit", hook, Linkage::Static);
    b.function("bpf_lsm_task_alloc", hook, Linkage::Static);
    b.function("bpf_iter_task", hook, Linkage::Static);
    let hook_ptr = b.ptr(hook);
    b.typedef("btf_trace_sched_switch", hook_ptr);
    b.build()
}
