//! `perf_event_open(2)`: its attribute, constants and record headers (include/uapi/linux/perf_event.h), up to Linux 6.18.

use super::kinds::open_enum;

open_enum! {
    /// Which kind of event (`enum perf_type_id`); a dynamic PMU has the number in its sysfs `type` file.
    PerfType {
        HARDWARE = 0, "PERF_TYPE_HARDWARE";
        SOFTWARE = 1, "PERF_TYPE_SOFTWARE";
        TRACEPOINT = 2, "PERF_TYPE_TRACEPOINT";
        HW_CACHE = 3, "PERF_TYPE_HW_CACHE";
        RAW = 4, "PERF_TYPE_RAW";
        BREAKPOINT = 5, "PERF_TYPE_BREAKPOINT";
    }
}

open_enum! {
    /// Type of a record in a perf buffer (`enum perf_event_type`).
    RecordType {
        MMAP = 1, "PERF_RECORD_MMAP";
        LOST = 2, "PERF_RECORD_LOST";
        COMM = 3, "PERF_RECORD_COMM";
        EXIT = 4, "PERF_RECORD_EXIT";
        THROTTLE = 5, "PERF_RECORD_THROTTLE";
        UNTHROTTLE = 6, "PERF_RECORD_UNTHROTTLE";
        FORK = 7, "PERF_RECORD_FORK";
        READ = 8, "PERF_RECORD_READ";
        SAMPLE = 9, "PERF_RECORD_SAMPLE";
        MMAP2 = 10, "PERF_RECORD_MMAP2";
        AUX = 11, "PERF_RECORD_AUX";
        ITRACE_START = 12, "PERF_RECORD_ITRACE_START";
        LOST_SAMPLES = 13, "PERF_RECORD_LOST_SAMPLES";
        SWITCH = 14, "PERF_RECORD_SWITCH";
        SWITCH_CPU_WIDE = 15, "PERF_RECORD_SWITCH_CPU_WIDE";
        NAMESPACES = 16, "PERF_RECORD_NAMESPACES";
        KSYMBOL = 17, "PERF_RECORD_KSYMBOL";
        BPF_EVENT = 18, "PERF_RECORD_BPF_EVENT";
        CGROUP = 19, "PERF_RECORD_CGROUP";
        TEXT_POKE = 20, "PERF_RECORD_TEXT_POKE";
        AUX_OUTPUT_HW_ID = 21, "PERF_RECORD_AUX_OUTPUT_HW_ID";
    }
}

/// Declares constants and, for the comparison with the kernel's headers, a list of them by their C names.
macro_rules! constants {
    ($($(#[$meta:meta])* $name:ident: $ty:ty = $value:expr;)*) => {
        $($(#[$meta])* pub const $name: $ty = $value;)*
        #[cfg(test)]
        pub(crate) const CONSTANTS: &[(&str, u64)] = &[$((stringify!($name), $name as u64)),*];
    };
}

constants! {
    /// Software event: a timer on the CPU, running also while it is idle.
    PERF_COUNT_SW_CPU_CLOCK: u64 = 0;
    /// Software event: time that the task runs.
    PERF_COUNT_SW_TASK_CLOCK: u64 = 1;
    /// Software event: page faults.
    PERF_COUNT_SW_PAGE_FAULTS: u64 = 2;
    /// Software event: context switches.
    PERF_COUNT_SW_CONTEXT_SWITCHES: u64 = 3;
    /// Software event: migrations between CPUs.
    PERF_COUNT_SW_CPU_MIGRATIONS: u64 = 4;
    /// Software event: page faults without I/O.
    PERF_COUNT_SW_PAGE_FAULTS_MIN: u64 = 5;
    /// Software event: page faults with I/O.
    PERF_COUNT_SW_PAGE_FAULTS_MAJ: u64 = 6;
    /// Software event: unaligned accesses.
    PERF_COUNT_SW_ALIGNMENT_FAULTS: u64 = 7;
    /// Software event: emulated instructions.
    PERF_COUNT_SW_EMULATION_FAULTS: u64 = 8;
    /// Software event that counts nothing, for sideband records.
    PERF_COUNT_SW_DUMMY: u64 = 9;
    /// Software event that `bpf_perf_event_output` writes to.
    PERF_COUNT_SW_BPF_OUTPUT: u64 = 10;
    /// Software event: switches between control groups (Linux 5.13).
    PERF_COUNT_SW_CGROUP_SWITCHES: u64 = 11;
    /// Hardware event: cycles.
    PERF_COUNT_HW_CPU_CYCLES: u64 = 0;
    /// Hardware event: instructions.
    PERF_COUNT_HW_INSTRUCTIONS: u64 = 1;
    /// Hardware event: cache references.
    PERF_COUNT_HW_CACHE_REFERENCES: u64 = 2;
    /// Hardware event: cache misses.
    PERF_COUNT_HW_CACHE_MISSES: u64 = 3;

    /// Sample field: instruction pointer.
    PERF_SAMPLE_IP: u64 = 1 << 0;
    /// Sample field: process and thread.
    PERF_SAMPLE_TID: u64 = 1 << 1;
    /// Sample field: time.
    PERF_SAMPLE_TIME: u64 = 1 << 2;
    /// Sample field: address.
    PERF_SAMPLE_ADDR: u64 = 1 << 3;
    /// Sample field: counter values.
    PERF_SAMPLE_READ: u64 = 1 << 4;
    /// Sample field: call chain.
    PERF_SAMPLE_CALLCHAIN: u64 = 1 << 5;
    /// Sample field: id of the event.
    PERF_SAMPLE_ID: u64 = 1 << 6;
    /// Sample field: CPU.
    PERF_SAMPLE_CPU: u64 = 1 << 7;
    /// Sample field: period.
    PERF_SAMPLE_PERIOD: u64 = 1 << 8;
    /// Sample field: id of the stream.
    PERF_SAMPLE_STREAM_ID: u64 = 1 << 9;
    /// Sample field: raw data, as `bpf_perf_event_output` writes.
    PERF_SAMPLE_RAW: u64 = 1 << 10;
    /// Sample field: user registers.
    PERF_SAMPLE_REGS_USER: u64 = 1 << 12;
    /// Sample field: user stack.
    PERF_SAMPLE_STACK_USER: u64 = 1 << 13;
    /// Sample field: id of the event, first.
    PERF_SAMPLE_IDENTIFIER: u64 = 1 << 16;

    /// Counter format: with the time enabled.
    PERF_FORMAT_TOTAL_TIME_ENABLED: u64 = 1 << 0;
    /// Counter format: with the time running.
    PERF_FORMAT_TOTAL_TIME_RUNNING: u64 = 1 << 1;
    /// Counter format: with the id.
    PERF_FORMAT_ID: u64 = 1 << 2;
    /// Counter format: of the whole group.
    PERF_FORMAT_GROUP: u64 = 1 << 3;
    /// Counter format: with the lost samples (Linux 6.0).
    PERF_FORMAT_LOST: u64 = 1 << 4;

    /// Opening: leave the group out for output.
    PERF_FLAG_FD_NO_GROUP: u64 = 1 << 0;
    /// Opening: write into the group leader's buffer.
    PERF_FLAG_FD_OUTPUT: u64 = 1 << 1;
    /// Opening: the pid is a control group's fd.
    PERF_FLAG_PID_CGROUP: u64 = 1 << 2;
    /// Opening: close on exec.
    PERF_FLAG_FD_CLOEXEC: u64 = 1 << 3;

    /// Record bits: mask of the CPU mode.
    PERF_RECORD_MISC_CPUMODE_MASK: u16 = 7;
    /// Record bits: in the kernel.
    PERF_RECORD_MISC_KERNEL: u16 = 1;
    /// Record bits: in user space.
    PERF_RECORD_MISC_USER: u16 = 2;
    /// COMM: the name changed by exec.
    PERF_RECORD_MISC_COMM_EXEC: u16 = 1 << 13;
    /// MMAP: of data, not of code.
    PERF_RECORD_MISC_MMAP_DATA: u16 = 1 << 13;
    /// SWITCH: away from the task.
    PERF_RECORD_MISC_SWITCH_OUT: u16 = 1 << 13;
    /// MMAP2: with a build id in place of the inode (Linux 5.12).
    PERF_RECORD_MISC_MMAP_BUILD_ID: u16 = 1 << 14;
}

/// Bits of [`PerfEventAttr::flags`], in the order of the C bit-fields.
///
/// The kernel lays the bit-fields out from the least significant bit on little-endian machines and from the most
/// significant on big-endian ones.
pub mod attr_flags {
    const fn bit(n: u32) -> u64 {
        if cfg!(target_endian = "little") { 1 << n } else { 1 << (63 - n) }
    }

    macro_rules! bits {
        ($($(#[$meta:meta])* $name:ident = $n:literal, $c:literal;)*) => {
            $($(#[$meta])* pub const $name: u64 = bit($n);)*
            #[cfg(test)]
            pub(crate) const ALL: &[(&str, u64)] = &[$(($c, $name)),*];
        };
    }

    bits! {
        /// Starts disabled.
        DISABLED = 0, "disabled";
        /// Children inherit it.
        INHERIT = 1, "inherit";
        /// Always on the PMU.
        PINNED = 2, "pinned";
        /// The only group on the PMU.
        EXCLUSIVE = 3, "exclusive";
        /// Don't count user space.
        EXCLUDE_USER = 4, "exclude_user";
        /// Don't count the kernel.
        EXCLUDE_KERNEL = 5, "exclude_kernel";
        /// Don't count the hypervisor.
        EXCLUDE_HV = 6, "exclude_hv";
        /// Don't count idle.
        EXCLUDE_IDLE = 7, "exclude_idle";
        /// Records of executable mappings.
        MMAP = 8, "mmap";
        /// Records of names.
        COMM = 9, "comm";
        /// `sample_period` is a frequency.
        FREQ = 10, "freq";
        /// Counts by task.
        INHERIT_STAT = 11, "inherit_stat";
        /// The next exec enables it.
        ENABLE_ON_EXEC = 12, "enable_on_exec";
        /// Records of forks and exits.
        TASK = 13, "task";
        /// `wakeup` is in bytes.
        WATERMARK = 14, "watermark";
        /// Records of data mappings.
        MMAP_DATA = 17, "mmap_data";
        /// Sample fields in every record.
        SAMPLE_ID_ALL = 18, "sample_id_all";
        /// Don't count the host.
        EXCLUDE_HOST = 19, "exclude_host";
        /// Don't count guests.
        EXCLUDE_GUEST = 20, "exclude_guest";
        /// Call chains without the kernel.
        EXCLUDE_CALLCHAIN_KERNEL = 21, "exclude_callchain_kernel";
        /// Call chains without user space.
        EXCLUDE_CALLCHAIN_USER = 22, "exclude_callchain_user";
        /// Mappings with inode data.
        MMAP2 = 23, "mmap2";
        /// Flag names that come from exec.
        COMM_EXEC = 24, "comm_exec";
        /// Use `clockid`.
        USE_CLOCKID = 25, "use_clockid";
        /// Records of context switches.
        CONTEXT_SWITCH = 26, "context_switch";
        /// Write the buffer from its end.
        WRITE_BACKWARD = 27, "write_backward";
        /// Records of namespaces.
        NAMESPACES = 28, "namespaces";
        /// Records of kernel symbols.
        KSYMBOL = 29, "ksymbol";
        /// Records of BPF programs.
        BPF_EVENT = 30, "bpf_event";
        /// AUX records instead of events.
        AUX_OUTPUT = 31, "aux_output";
        /// Records of control groups (Linux 5.7).
        CGROUP = 32, "cgroup";
        /// Records of text pokes (Linux 5.9).
        TEXT_POKE = 33, "text_poke";
        /// Build ids in mappings (Linux 5.12).
        BUILD_ID = 34, "build_id";
        /// Only threads inherit (Linux 5.13).
        INHERIT_THREAD = 35, "inherit_thread";
        /// Removed by exec (Linux 5.13).
        REMOVE_ON_EXEC = 36, "remove_on_exec";
        /// SIGTRAP on the event (Linux 5.13).
        SIGTRAP = 37, "sigtrap";
    }

    /// How little skid a sample may have: 0 (any) to 3 (none).
    pub const fn precise_ip(level: u64) -> u64 {
        if cfg!(target_endian = "little") { (level & 3) << 15 } else { (level & 3) << 47 }
    }
}

/// `struct perf_event_attr`, up to `PERF_ATTR_SIZE_VER8` (Linux 6.3).
///
/// An older kernel takes it as long as the fields that it does not know are zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerfEventAttr {
    /// Kind of event.
    pub kind: PerfType,
    /// Size of this structure. The calls set it themselves.
    pub size: u32,
    /// Which event of that kind.
    pub config: u64,
    /// Events between samples, or with `FREQ` samples a second.
    pub sample_period: u64,
    /// `PERF_SAMPLE_*`.
    pub sample_type: u64,
    /// `PERF_FORMAT_*`.
    pub read_format: u64,
    /// [`attr_flags`].
    pub flags: u64,
    /// Wake up after so many events, or with `WATERMARK` so many bytes.
    pub wakeup: u32,
    /// Breakpoints: on which access.
    pub bp_type: u32,
    /// Breakpoint address, or more configuration. The kernel reads a string at this address for events of the kprobe and
    /// uprobe PMUs: see [`open_kprobe`](crate::perf::open_kprobe), which sets it.
    pub config1: u64,
    /// Breakpoint length, probe offset, or more configuration.
    pub config2: u64,
    /// Which branches to sample.
    pub branch_sample_type: u64,
    /// Which user registers to sample.
    pub sample_regs_user: u64,
    /// How much user stack to sample, in bytes.
    pub sample_stack_user: u32,
    /// Clock of the times in records.
    pub clockid: i32,
    /// Which registers to sample.
    pub sample_regs_intr: u64,
    /// AUX area: wake up after so many bytes.
    pub aux_watermark: u32,
    /// Longest call chain.
    pub sample_max_stack: u16,
    /// Zero.
    pub reserved_2: u16,
    /// AUX area: bytes a sample.
    pub aux_sample_size: u32,
    /// AUX area: pause and resume (Linux 6.13).
    pub aux_action: u32,
    /// With `SIGTRAP`: passed to the handler.
    pub sig_data: u64,
    /// More configuration (Linux 6.3).
    pub config3: u64,
}

const _: () = assert!(size_of::<PerfEventAttr>() == 136);

impl Default for PerfEventAttr {
    fn default() -> Self {
        Self {
            kind: PerfType::HARDWARE,
            size: size_of::<Self>() as u32,
            config: 0,
            sample_period: 0,
            sample_type: 0,
            read_format: 0,
            flags: 0,
            wakeup: 0,
            bp_type: 0,
            config1: 0,
            config2: 0,
            branch_sample_type: 0,
            sample_regs_user: 0,
            sample_stack_user: 0,
            clockid: 0,
            sample_regs_intr: 0,
            aux_watermark: 0,
            sample_max_stack: 0,
            reserved_2: 0,
            aux_sample_size: 0,
            aux_action: 0,
            sig_data: 0,
            config3: 0,
        }
    }
}

/// Numbers of the ioctls.
pub(crate) mod ioctl {
    use rustix::ioctl::{Opcode, opcode};

    macro_rules! ioctls {
        ($($name:ident = $code:expr;)*) => {
            $(pub(crate) const $name: Opcode = $code;)*
            #[cfg(test)]
            pub(crate) const ALL: &[(&str, u64)] = &[$((concat!("PERF_EVENT_IOC_", stringify!($name)), $name as u64)),*];
        };
    }

    ioctls! {
        ENABLE = opcode::none(b'$', 0);
        DISABLE = opcode::none(b'$', 1);
        REFRESH = opcode::none(b'$', 2);
        RESET = opcode::none(b'$', 3);
        PERIOD = opcode::write::<u64>(b'$', 4);
        SET_OUTPUT = opcode::none(b'$', 5);
        SET_FILTER = opcode::write::<*mut u8>(b'$', 6);
        ID = opcode::read::<*mut u64>(b'$', 7);
        SET_BPF = opcode::write::<u32>(b'$', 8);
        PAUSE_OUTPUT = opcode::write::<u32>(b'$', 9);
        QUERY_BPF = opcode::read_write::<*mut u8>(b'$', 10);
        MODIFY_ATTRIBUTES = opcode::write::<*mut u8>(b'$', 11);
    }
}

/// Offsets in the first page of a perf buffer's mapping, `struct perf_event_mmap_page`.
pub mod control_page {
    /// `data_head`, written by the kernel.
    pub const DATA_HEAD: usize = 1024;
    /// `data_tail`, written by the reader.
    pub const DATA_TAIL: usize = 1032;
    /// `data_offset`: where the records start.
    pub const DATA_OFFSET: usize = 1040;
    /// `data_size`: bytes of records.
    pub const DATA_SIZE: usize = 1048;
}
