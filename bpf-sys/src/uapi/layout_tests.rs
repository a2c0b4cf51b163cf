//! Compares the mirrors with the kernel's headers, by a C file that asserts every offset, size and constant.
//!
//! `UAPI_INCLUDE` names the folders, split by colons, with `linux/` and `asm/` of a kernel that has everything here; then
//! nothing may be missing. Without it the system's headers serve, and what they do not know is left out, and said.
//!
//! `UAPI_CC` is the C compiler with its options, where `cc` is for another architecture than this: then only what it asserts at
//! compile time is compared, which leaves out the bits of `perf_event_attr`.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::mem::offset_of;
use std::process::Command;

use super::kinds::{AttachType, Cmd, LinkType, MapType, PerfLinkType, ProgType, StatsType, TaskFdType};
use super::perf::{PerfEventAttr, PerfType, RecordType, attr_flags, control_page, ioctl};
use super::{attr, flags, info, insn, perf};

/// The lines of the C file: each states one fact.
struct Facts {
    lines: Vec<String>,
    /// The headers are new: structures have their final sizes.
    newest: bool,
}

impl Facts {
    fn field(&mut self, c_type: &str, c_field: &str, offset: usize, size: usize) {
        // Where a u64 is aligned to 4 these lie 4 bytes lower, and so in 32-bit kernels of x86. The mirrors have the place of
        // the 64-bit ones, which an i686 program meets too; below the others only zero can be said.
        let differ = [
            "tracing.cookie",
            "tcx.expected_revision",
            "netkit.expected_revision",
            "cgroup.expected_revision",
        ];
        if cfg!(target_arch = "x86") && differ.iter().any(|field| c_field.ends_with(field)) {
            return;
        }
        self.lines.push(format!(
            "_Static_assert(offsetof({c_type}, {c_field}) == {offset} && sizeof((({c_type} *)0)->{c_field}) == {size}, \"\");"
        ));
    }

    fn size(&mut self, c_type: &str, size: usize) {
        if self.newest {
            self.lines.push(format!("_Static_assert(sizeof({c_type}) == {size}, \"\");"));
        }
    }

    fn constant(&mut self, name: &str, value: u64) {
        self.lines.push(format!("_Static_assert((unsigned long long)({name}) == {value}ull, \"{name}\");"));
    }
}

/// States each field's place. The C name is the Rust name unless another is given; padding comes after `;`, and a field that
/// is left out does not compile.
macro_rules! fields {
    ($facts:ident, $rust:path, $c:literal, $prefix:literal + $base:literal:
     $($field:ident $(= $name:literal)?),* $(; $($pad:ident),*)?) => {{
        let _ = |v: $rust| {
            let $rust { $($field: _,)* $($($pad: _,)*)? } = v;
        };
        $({
            let names: &[&str] = &[$($name,)? stringify!($field)];
            let size = size_of_field(|v: &$rust| &v.$field);
            $facts.field($c, &format!("{}{}", $prefix, names[0]), $base + offset_of!($rust, $field), size);
        })*
    }};
}

fn size_of_field<S, F>(_: impl Fn(&S) -> &F) -> usize {
    size_of::<F>()
}

const ATTR: &str = "union bpf_attr";

fn map_attributes(facts: &mut Facts) {
    fields!(facts, attr::MapCreate, "union bpf_attr", "" + 0:
        map_type, key_size, value_size, max_entries, map_flags, inner_map_fd, numa_node, map_name, map_ifindex, btf_fd,
        btf_key_type_id, btf_value_type_id, btf_vmlinux_value_type_id, map_extra, value_type_btf_obj_fd, map_token_fd,
        excl_prog_hash, excl_prog_hash_size; pad);
    fields!(facts, attr::MapElem, "union bpf_attr", "" + 0: map_fd, key, value, flags; pad);
    fields!(facts, attr::MapBatch, "union bpf_attr", "batch." + 0:
        in_batch, out_batch, keys, values, count, map_fd, elem_flags, flags);
    facts.size("((union bpf_attr *)0)->batch", size_of::<attr::MapBatch>());
}

fn prog_attributes(facts: &mut Facts) {
    fields!(facts, attr::ProgLoad, "union bpf_attr", "" + 0:
        prog_type, insn_cnt, insns, license, log_level, log_size, log_buf, kern_version, prog_flags, prog_name,
        prog_ifindex, expected_attach_type, prog_btf_fd, func_info_rec_size, func_info, func_info_cnt,
        line_info_rec_size, line_info, line_info_cnt, attach_btf_id, attach_fd = "attach_prog_fd", core_relo_cnt,
        fd_array, core_relos, core_relo_rec_size, log_true_size, prog_token_fd, fd_array_cnt, signature, signature_size,
        keyring_id);
    facts.size(ATTR, size_of::<attr::ProgLoad>());
    fields!(facts, attr::ProgAttach, "union bpf_attr", "" + 0:
        target = "target_fd", attach_bpf_fd, attach_type, attach_flags, replace_bpf_fd, relative = "relative_fd",
        expected_revision);
    fields!(facts, attr::TestRun, "union bpf_attr", "test." + 0:
        prog_fd, retval, data_size_in, data_size_out, data_in, data_out, repeat, duration, ctx_size_in, ctx_size_out,
        ctx_in, ctx_out, flags, cpu, batch_size; pad);
    facts.size("((union bpf_attr *)0)->test", size_of::<attr::TestRun>());
    fields!(facts, attr::ProgQuery, "union bpf_attr", "query." + 0:
        target = "target_fd", attach_type, query_flags, attach_flags, prog_ids, count = "prog_cnt", prog_attach_flags,
        link_ids, link_attach_flags, revision; pad);
    facts.size("((union bpf_attr *)0)->query", size_of::<attr::ProgQuery>());
    fields!(facts, attr::RawTracepoint, "union bpf_attr", "raw_tracepoint." + 0: name, prog_fd, cookie; pad);
    fields!(facts, attr::ProgBindMap, "union bpf_attr", "prog_bind_map." + 0: prog_fd, map_fd, flags);
    fields!(facts, attr::StreamRead, "union bpf_attr", "prog_stream_read." + 0:
        stream_buf, stream_buf_len, stream_id, prog_fd; pad);
}

fn link_attributes(facts: &mut Facts) {
    fields!(facts, attr::LinkCreate, "union bpf_attr", "link_create." + 0:
        prog_fd, target = "target_fd", attach_type, flags; variant);
    fields!(facts, attr::LinkIter, "union bpf_attr", "link_create." + 16: info = "iter_info", info_len = "iter_info_len"; pad);
    facts.field(ATTR, "link_create.perf_event.bpf_cookie", 16, 8);
    facts.field(ATTR, "link_create.target_btf_id", 16, 4);
    fields!(facts, attr::LinkKprobeMulti, "union bpf_attr", "link_create.kprobe_multi." + 16:
        flags, cnt, syms, addrs, cookies);
    fields!(facts, attr::LinkTracing, "union bpf_attr", "link_create.tracing." + 16: target_btf_id, cookie; pad);
    fields!(facts, attr::LinkNetfilter, "union bpf_attr", "link_create.netfilter." + 16: pf, hooknum, priority, flags);
    for kind in ["tcx", "netkit", "cgroup"] {
        facts.field(
            ATTR,
            &format!("link_create.{kind}.relative_fd"),
            16 + offset_of!(attr::LinkRelative, relative),
            4,
        );
        let revision = 16 + offset_of!(attr::LinkRelative, expected_revision);
        facts.field(ATTR, &format!("link_create.{kind}.expected_revision"), revision, 8);
    }
    fields!(facts, attr::LinkUprobeMulti, "union bpf_attr", "link_create.uprobe_multi." + 16:
        path, offsets, ref_ctr_offsets, cookies, cnt, flags, pid; pad);
    facts.size("((union bpf_attr *)0)->link_create", size_of::<attr::LinkCreate>());
    fields!(facts, attr::LinkUpdate, "union bpf_attr", "link_update." + 0:
        link_fd, new_fd = "new_prog_fd", flags, old_fd = "old_prog_fd");
    fields!(facts, attr::LinkDetach, "union bpf_attr", "link_detach." + 0: link_fd);
    fields!(facts, attr::IterCreate, "union bpf_attr", "iter_create." + 0: link_fd, flags);
    // raw/link.rs writes these as four words.
    let iter = "union bpf_iter_link_info";
    facts.size(iter, 16);
    let words =
        [("map.map_fd", 0), ("cgroup.order", 0), ("cgroup.cgroup_fd", 4), ("task.tid", 0), ("task.pid", 4)];
    for (field, offset) in words.into_iter().chain([("task.pid_fd", 8)]) {
        facts.field(iter, field, offset, 4);
    }
    facts.field(iter, "cgroup.cgroup_id", 8, 8);
    fields!(facts, attr::TaskFdQuery, "union bpf_attr", "task_fd_query." + 0:
        pid, fd, flags, buf_len, buf, prog_id, fd_type, probe_offset, probe_addr);
}

fn other_attributes(facts: &mut Facts) {
    fields!(facts, attr::Obj, "union bpf_attr", "" + 0: pathname, bpf_fd, file_flags, path_fd; pad);
    fields!(facts, attr::GetId, "union bpf_attr", "" + 0:
        id = "start_id", next_id, open_flags, token_fd = "fd_by_id_token_fd");
    fields!(facts, attr::GetInfo, "union bpf_attr", "info." + 0: bpf_fd, info_len, info);
    fields!(facts, attr::BtfLoad, "union bpf_attr", "" + 0:
        btf, btf_log_buf, btf_size, btf_log_size, btf_log_level, btf_log_true_size, btf_flags, btf_token_fd);
    fields!(facts, attr::EnableStats, "union bpf_attr", "enable_stats." + 0: kind = "type");
    fields!(facts, attr::TokenCreate, "union bpf_attr", "token_create." + 0: flags, bpffs_fd);
}

fn infos(facts: &mut Facts) {
    fields!(facts, info::ProgInfo, "struct bpf_prog_info", "" + 0:
        prog_type = "type", id, tag, jited_len = "jited_prog_len", xlated_len = "xlated_prog_len",
        jited = "jited_prog_insns", xlated = "xlated_prog_insns", load_time, created_by_uid, nr_map_ids, map_ids, name,
        ifindex, netns_dev, netns_ino, nr_jited_ksyms, nr_jited_func_lens, jited_ksyms, jited_func_lens, btf_id,
        func_info_rec_size, func_info, nr_func_info, nr_line_info, line_info, jited_line_info, nr_jited_line_info,
        line_info_rec_size, jited_line_info_rec_size, nr_prog_tags, prog_tags, run_time_ns, run_cnt, recursion_misses,
        verified_insns, attach_btf_obj_id, attach_btf_id; flags, pad);
    facts.size("struct bpf_prog_info", size_of::<info::ProgInfo>());
    fields!(facts, info::MapInfo, "struct bpf_map_info", "" + 0:
        map_type = "type", id, key_size, value_size, max_entries, flags = "map_flags", name, ifindex,
        btf_vmlinux_value_type_id, netns_dev, netns_ino, btf_id, btf_key_type_id, btf_value_type_id, btf_vmlinux_id,
        map_extra, hash, hash_size; pad);
    facts.size("struct bpf_map_info", size_of::<info::MapInfo>());
    fields!(facts, info::BtfInfo, "struct bpf_btf_info", "" + 0:
        btf, size = "btf_size", id, name, name_len, kernel_btf);
    facts.size("struct bpf_btf_info", size_of::<info::BtfInfo>());
    fields!(facts, info::TokenInfo, "struct bpf_token_info", "" + 0:
        allowed_cmds, allowed_maps, allowed_progs, allowed_attachs);
    fields!(facts, info::FuncInfo, "struct bpf_func_info", "" + 0: insn_off, type_id);
    facts.size("struct bpf_func_info", size_of::<info::FuncInfo>());
    fields!(facts, info::LineInfo, "struct bpf_line_info", "" + 0: insn_off, file_name_off, line_off, line_col);
    facts.size("struct bpf_line_info", size_of::<info::LineInfo>());
    facts.size("struct bpf_insn", size_of::<insn::Insn>());
    facts.field("struct bpf_insn", "off", offset_of!(insn::Insn, off), 2);
    facts.field("struct bpf_insn", "imm", offset_of!(insn::Insn, imm), 4);
}

fn link_infos(facts: &mut Facts) {
    const INFO: &str = "struct bpf_link_info";
    fields!(facts, info::RawLinkInfo, "struct bpf_link_info", "" + 0: link_type = "type", id, prog_id; pad, data);
    facts.size(INFO, size_of::<info::RawLinkInfo>());
    fields!(facts, info::RawTracepointLink, "struct bpf_link_info", "raw_tracepoint." + 16:
        tp_name, tp_name_len, cookie; pad);
    fields!(facts, info::TracingLink, "struct bpf_link_info", "tracing." + 16:
        attach_type, target_obj_id, target_btf_id, cookie; pad);
    fields!(facts, info::CgroupLink, "struct bpf_link_info", "cgroup." + 16: cgroup_id, attach_type; pad);
    fields!(facts, info::IterLink, "struct bpf_link_info", "iter." + 16:
        target_name, target_name_len, map_id = "map.map_id", id = "cgroup.cgroup_id", order = "cgroup.order"; pad);
    facts.field(INFO, "iter.task.tid", 16 + offset_of!(info::IterLink, id), 4);
    facts.field(INFO, "iter.task.pid", 20 + offset_of!(info::IterLink, id), 4);
    fields!(facts, info::NetnsLink, "struct bpf_link_info", "netns." + 16: netns_ino, attach_type);
    facts.field(INFO, "xdp.ifindex", 16, 4);
    facts.field(INFO, "struct_ops.map_id", 16, 4);
    fields!(facts, info::NetfilterLink, "struct bpf_link_info", "netfilter." + 16: pf, hooknum, priority, flags);
    fields!(facts, info::KprobeMultiLink, "struct bpf_link_info", "kprobe_multi." + 16:
        addrs, count, flags, missed, cookies);
    fields!(facts, info::UprobeMultiLink, "struct bpf_link_info", "uprobe_multi." + 16:
        path, offsets, ref_ctr_offsets, cookies, path_size, count, flags, pid);
    fields!(facts, info::PerfEventLink, "struct bpf_link_info", "perf_event." + 16:
        kind = "type", name = "kprobe.func_name", name_len = "kprobe.name_len", offset = "kprobe.offset"; pad, tail);
    let tail = 16 + offset_of!(info::PerfEventLink, tail);
    for (i, field) in ["kprobe.addr", "kprobe.missed", "kprobe.cookie"].into_iter().enumerate() {
        facts.field(INFO, &format!("perf_event.{field}"), tail + 8 * i, 8);
    }
    for field in ["uprobe.cookie", "tracepoint.cookie", "event.cookie"] {
        facts.field(INFO, &format!("perf_event.{field}"), tail, 8);
    }
    for field in ["uprobe.file_name", "tracepoint.tp_name", "event.config"] {
        facts.field(INFO, &format!("perf_event.{field}"), 16 + offset_of!(info::PerfEventLink, name), 8);
    }
    for field in ["uprobe.name_len", "tracepoint.name_len", "event.type"] {
        facts.field(INFO, &format!("perf_event.{field}"), 16 + offset_of!(info::PerfEventLink, name_len), 4);
    }
    for kind in ["tcx", "netkit"] {
        facts.field(INFO, &format!("{kind}.ifindex"), 16 + offset_of!(info::DeviceLink, ifindex), 4);
        facts.field(INFO, &format!("{kind}.attach_type"), 16 + offset_of!(info::DeviceLink, attach_type), 4);
    }
    fields!(facts, info::SockmapLink, "struct bpf_link_info", "sockmap." + 16: map_id, attach_type);
}

fn perf_event(facts: &mut Facts) {
    fields!(facts, PerfEventAttr, "struct perf_event_attr", "" + 0:
        kind = "type", size, config, sample_period, sample_type, read_format, wakeup = "wakeup_events", bp_type,
        config1, config2, branch_sample_type, sample_regs_user, sample_stack_user, clockid, sample_regs_intr,
        aux_watermark, sample_max_stack, reserved_2 = "__reserved_2", aux_sample_size, aux_action, sig_data, config3; flags);
    facts.constant("PERF_ATTR_SIZE_VER8", size_of::<PerfEventAttr>() as u64);
    let page = "struct perf_event_mmap_page";
    facts.field(page, "data_head", control_page::DATA_HEAD, 8);
    facts.field(page, "data_tail", control_page::DATA_TAIL, 8);
    facts.size("struct perf_event_query_bpf", 8);
}

fn constants(facts: &mut Facts) {
    macro_rules! kinds {
        ($($kind:ty),*) => {$(
            for value in <$kind>::ALL {
                facts.constant(value.name().unwrap_or_default(), u64::from(value.0));
            }
        )*};
    }
    kinds!(
        Cmd,
        MapType,
        ProgType,
        AttachType,
        LinkType,
        PerfLinkType,
        TaskFdType,
        StatsType,
        PerfType,
        RecordType
    );
    for (name, value) in flags::ALL.iter().chain(perf::CONSTANTS).chain(ioctl::ALL) {
        facts.constant(name, *value);
    }
}

/// The C file; bit-fields have no offset, so the program sets each and prints those whose word differs.
fn source(facts: &[String]) -> String {
    let mut c = String::from(
        "#include <stddef.h>\n#include <stdio.h>\n#include <string.h>\n#include <linux/bpf.h>\n#include <linux/perf_event.h>\n",
    );
    let mut checks = String::new();
    for fact in facts {
        let to = if fact.starts_with("CHECK") { &mut checks } else { &mut c };
        writeln!(to, "{fact}").unwrap();
    }
    c.push_str("static int bad;\n");
    c.push_str(
        "#define CHECK(field, bits, word) do { struct perf_event_attr a; unsigned long long w; memset(&a, 0, sizeof a); \
         a.field = bits; memcpy(&w, (char *)&a + offsetof(struct perf_event_attr, read_format) + 8, 8); \
         if (w != word) { bad = 1; printf(\"%s: %llx\\n\", #field, w); } } while (0)\n",
    );
    write!(c, "int main(void) {{\n{checks}return bad; }}\n").unwrap();
    c
}

#[test]
fn mirrors_equal_the_kernels_headers() {
    let include = std::env::var_os("UAPI_INCLUDE");
    let cross = std::env::var("UAPI_CC").ok();
    if cross.is_none() && !is_for_this_machine("cc") {
        assert!(
            include.is_none(),
            "UAPI_INCLUDE is set, but there is no C compiler (cc) for this architecture"
        );
        eprintln!(
            "SKIP: no C compiler (cc) for this architecture: layouts are NOT compared with the kernel's headers"
        );
        return;
    }
    let mut facts = Facts { lines: Vec::new(), newest: include.is_some() };
    map_attributes(&mut facts);
    prog_attributes(&mut facts);
    link_attributes(&mut facts);
    other_attributes(&mut facts);
    infos(&mut facts);
    link_infos(&mut facts);
    perf_event(&mut facts);
    constants(&mut facts);
    for (name, bits) in attr_flags::ALL {
        facts.lines.push(format!("CHECK({name}, 1, {bits:#x}ull);"));
    }
    facts.lines.push(format!("CHECK(precise_ip, 2, {:#x}ull);", attr_flags::precise_ip(2)));
    assert_eq!(offset_of!(PerfEventAttr, flags), offset_of!(PerfEventAttr, read_format) + 8);

    let dir = std::env::temp_dir().join(format!("bpf-sys-layout-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (c, program) = (dir.join("layout.c"), dir.join("layout"));
    let mut facts = facts.lines;
    let total = facts.len();
    // Each round leaves out what the headers do not know; an unknown member may hide another behind it.
    let result = loop {
        let text = source(&facts);
        std::fs::write(&c, &text).unwrap();
        let mut words = cross.as_deref().unwrap_or("cc").split(' ');
        let mut cc = Command::new(words.next().unwrap_or_default());
        match cross {
            Some(_) => cc.args(words).arg("-fsyntax-only"),
            None => cc.arg("-fmax-errors=0").arg("-o").arg(&program),
        };
        cc.arg("-w").arg(&c).env("LC_ALL", "C");
        for folder in include.iter().flat_map(std::env::split_paths) {
            cc.arg("-I").arg(folder);
        }
        let output = cc.output().unwrap();
        if output.status.success() && cross.is_some() {
            break Ok(());
        }
        if output.status.success() {
            if facts.len() < total {
                eprintln!(
                    "NOTE: the system's headers know {} of {total} facts; UAPI_INCLUDE checks all",
                    facts.len()
                );
            }
            let run = Command::new(&program).output().unwrap();
            break if run.status.success() {
                Ok(())
            } else {
                Err(String::from_utf8_lossy(&run.stdout).into_owned())
            };
        }
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let unknown = unknown_lines(&errors);
        let Some(unknown) = unknown.filter(|lines| include.is_none() && !lines.is_empty()) else {
            break Err(errors);
        };
        let lines: Vec<&str> = text.lines().collect();
        facts.retain(|fact| !unknown.iter().any(|n| lines.get(n - 1) == Some(&fact.as_str())));
    };
    std::fs::remove_dir_all(&dir).unwrap();
    result.unwrap_or_else(|e| panic!("{e}"));
}

/// Whether a C compiler is there, and makes programs for the architecture that this is for.
fn is_for_this_machine(cc: &str) -> bool {
    let Ok(output) = Command::new(cc).arg("-dumpmachine").output() else { return false };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let machine = text.split('-').next().unwrap_or_default();
    match std::env::consts::ARCH {
        "x86" => matches!(machine, "i386" | "i486" | "i586" | "i686"),
        arch => machine == arch,
    }
}

/// The numbers of the lines that name something unknown; `None` if something known is wrong. Errors that only follow from
/// others are passed over, and seen in the next round if they stay.
fn unknown_lines(errors: &str) -> Option<BTreeSet<usize>> {
    let mut lines = BTreeSet::new();
    for error in errors.lines().filter(|line| line.contains(" error: ")) {
        let known = ["no member named", "undeclared", "incomplete type", "undefined type"];
        if error.contains("static assertion failed") {
            return None;
        }
        if !known.iter().any(|text| error.contains(text)) {
            continue;
        }
        let number = error.split(".c:").nth(1)?.split(':').next()?;
        lines.insert(number.parse().ok()?);
    }
    Some(lines)
}
