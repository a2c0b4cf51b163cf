//! The attribute of each `bpf(2)` command: the members of `union bpf_attr` (include/uapi/linux/bpf.h), up to Linux 6.18.
//!
//! A kernel that knows fewer fields takes a longer attribute as long as the rest is zero, so each is passed whole.
//! Padding is spelled out: the kernel refuses what it does not know, and every byte must be initialised.

use super::ObjName;

/// Declares an attribute; its size is asserted, so that no padding hides in it.
macro_rules! attr {
    ($(#[$meta:meta])* $name:ident ($size:literal) { $($field:ident: $ty:ty,)* }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Default)]
        pub(crate) struct $name { $(pub(crate) $field: $ty,)* }
        const _: () = assert!(size_of::<$name>() == $size && 0 $(+ size_of::<$ty>())* == $size);
    };
}

attr! {
    /// `BPF_MAP_CREATE`.
    MapCreate (96) {
        map_type: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        map_flags: u32,
        inner_map_fd: u32,
        numa_node: u32,
        map_name: ObjName,
        map_ifindex: u32,
        btf_fd: u32,
        btf_key_type_id: u32,
        btf_value_type_id: u32,
        btf_vmlinux_value_type_id: u32,
        map_extra: u64,
        value_type_btf_obj_fd: i32,
        map_token_fd: i32,
        excl_prog_hash: u64,
        excl_prog_hash_size: u32,
        pad: u32,
    }
}

attr! {
    /// `BPF_MAP_{LOOKUP,UPDATE,DELETE,LOOKUP_AND_DELETE}_ELEM`, `BPF_MAP_GET_NEXT_KEY`, `BPF_MAP_FREEZE`.
    MapElem (32) {
        map_fd: u32,
        pad: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
}

attr! {
    /// `BPF_MAP_*_BATCH`.
    MapBatch (56) {
        in_batch: u64,
        out_batch: u64,
        keys: u64,
        values: u64,
        count: u32,
        map_fd: u32,
        elem_flags: u64,
        flags: u64,
    }
}

attr! {
    /// `BPF_PROG_LOAD`.
    ProgLoad (168) {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buf: u64,
        kern_version: u32,
        prog_flags: u32,
        prog_name: ObjName,
        prog_ifindex: u32,
        expected_attach_type: u32,
        prog_btf_fd: u32,
        func_info_rec_size: u32,
        func_info: u64,
        func_info_cnt: u32,
        line_info_rec_size: u32,
        line_info: u64,
        line_info_cnt: u32,
        attach_btf_id: u32,
        attach_fd: u32,
        core_relo_cnt: u32,
        fd_array: u64,
        core_relos: u64,
        core_relo_rec_size: u32,
        log_true_size: u32,
        prog_token_fd: i32,
        fd_array_cnt: u32,
        signature: u64,
        signature_size: u32,
        keyring_id: i32,
    }
}

attr! {
    /// `BPF_OBJ_PIN`, `BPF_OBJ_GET`.
    Obj (24) {
        pathname: u64,
        bpf_fd: u32,
        file_flags: u32,
        path_fd: i32,
        pad: u32,
    }
}

attr! {
    /// `BPF_PROG_ATTACH`, `BPF_PROG_DETACH`.
    ProgAttach (32) {
        target: u32,
        attach_bpf_fd: u32,
        attach_type: u32,
        attach_flags: u32,
        replace_bpf_fd: u32,
        relative: u32,
        expected_revision: u64,
    }
}

attr! {
    /// `BPF_PROG_TEST_RUN`.
    TestRun (80) {
        prog_fd: u32,
        retval: u32,
        data_size_in: u32,
        data_size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
        ctx_size_in: u32,
        ctx_size_out: u32,
        ctx_in: u64,
        ctx_out: u64,
        flags: u32,
        cpu: u32,
        batch_size: u32,
        pad: u32,
    }
}

attr! {
    /// `BPF_*_GET_NEXT_ID`, `BPF_*_GET_FD_BY_ID`.
    GetId (16) {
        id: u32,
        next_id: u32,
        open_flags: u32,
        token_fd: i32,
    }
}

attr! {
    /// `BPF_OBJ_GET_INFO_BY_FD`.
    GetInfo (16) {
        bpf_fd: u32,
        info_len: u32,
        info: u64,
    }
}

attr! {
    /// `BPF_PROG_QUERY`.
    ProgQuery (64) {
        target: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        prog_ids: u64,
        count: u32,
        pad: u32,
        prog_attach_flags: u64,
        link_ids: u64,
        link_attach_flags: u64,
        revision: u64,
    }
}

attr! {
    /// `BPF_RAW_TRACEPOINT_OPEN`.
    RawTracepoint (24) {
        name: u64,
        prog_fd: u32,
        pad: u32,
        cookie: u64,
    }
}

attr! {
    /// `BPF_BTF_LOAD`.
    BtfLoad (40) {
        btf: u64,
        btf_log_buf: u64,
        btf_size: u32,
        btf_log_size: u32,
        btf_log_level: u32,
        btf_log_true_size: u32,
        btf_flags: u32,
        btf_token_fd: i32,
    }
}

attr! {
    /// `BPF_TASK_FD_QUERY`.
    TaskFdQuery (48) {
        pid: u32,
        fd: u32,
        flags: u32,
        buf_len: u32,
        buf: u64,
        prog_id: u32,
        fd_type: u32,
        probe_offset: u64,
        probe_addr: u64,
    }
}

attr! {
    /// `BPF_LINK_CREATE`, with the largest of its variants' space.
    LinkCreate (64) {
        prog_fd: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
        variant: [u64; 6],
    }
}

attr! {
    /// `BPF_LINK_UPDATE`.
    LinkUpdate (16) {
        link_fd: u32,
        new_fd: u32,
        flags: u32,
        old_fd: u32,
    }
}

attr! {
    /// `BPF_LINK_DETACH`.
    LinkDetach (4) {
        link_fd: u32,
    }
}

attr! {
    /// `BPF_ENABLE_STATS`.
    EnableStats (4) {
        kind: u32,
    }
}

attr! {
    /// `BPF_ITER_CREATE`.
    IterCreate (8) {
        link_fd: u32,
        flags: u32,
    }
}

attr! {
    /// `BPF_PROG_BIND_MAP`.
    ProgBindMap (12) {
        prog_fd: u32,
        map_fd: u32,
        flags: u32,
    }
}

attr! {
    /// `BPF_TOKEN_CREATE`.
    TokenCreate (8) {
        flags: u32,
        bpffs_fd: u32,
    }
}

attr! {
    /// `BPF_PROG_STREAM_READ_BY_FD`.
    StreamRead (24) {
        stream_buf: u64,
        stream_buf_len: u32,
        stream_id: u32,
        prog_fd: u32,
        pad: u32,
    }
}

/// The part of `BPF_LINK_CREATE`'s attribute that depends on the kind of link, one field in use.
///
/// Written over zeroes, so that whatever the variant leaves is zero.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) union LinkVariant {
    pub(crate) zero: [u64; 6],
    pub(crate) target_btf_id: u32,
    pub(crate) iter: LinkIter,
    pub(crate) perf_event: u64,
    pub(crate) kprobe_multi: LinkKprobeMulti,
    pub(crate) tracing: LinkTracing,
    pub(crate) netfilter: LinkNetfilter,
    pub(crate) relative: LinkRelative,
    pub(crate) uprobe_multi: LinkUprobeMulti,
}

const _: () = assert!(size_of::<LinkVariant>() == 48);

impl LinkVariant {
    pub(crate) const NONE: Self = Self { zero: [0; 6] };

    pub(crate) fn words(self) -> [u64; 6] {
        // SAFETY: every value starts as `NONE`, whose 48 bytes are initialised, and fields are only ever assigned.
        unsafe { self.zero }
    }
}

attr! {
    /// `link_create.iter_info`, with its length.
    LinkIter (16) {
        info: u64,
        info_len: u32,
        pad: u32,
    }
}

attr! {
    /// `link_create.kprobe_multi`.
    LinkKprobeMulti (32) {
        flags: u32,
        cnt: u32,
        syms: u64,
        addrs: u64,
        cookies: u64,
    }
}

attr! {
    /// `link_create.tracing`.
    LinkTracing (16) {
        target_btf_id: u32,
        pad: u32,
        cookie: u64,
    }
}

attr! {
    /// `link_create.netfilter`.
    LinkNetfilter (16) {
        pf: u32,
        hooknum: u32,
        priority: i32,
        flags: u32,
    }
}

attr! {
    /// `link_create.{tcx,netkit,cgroup}`.
    LinkRelative (16) {
        relative: u32,
        pad: u32,
        expected_revision: u64,
    }
}

attr! {
    /// `link_create.uprobe_multi`.
    LinkUprobeMulti (48) {
        path: u64,
        offsets: u64,
        ref_ctr_offsets: u64,
        cookies: u64,
        cnt: u32,
        flags: u32,
        pid: u32,
        pad: u32,
    }
}
