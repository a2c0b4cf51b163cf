/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Memory: page faults, bytes mapped and unmapped, stalls in reclaim, and processes killed for want of memory.
 *
 * Faults cost nothing where the kernel's own counters are read: every thread's by `thread_faults`, and those of threads that
 * end by `thread_ends`. What is counted in programs goes into `sums`, which exists twice: user space flips `active`, and an
 * update of the outer map then waits until no program still uses the old window.
 */
#include "task_filter.h"
#include "events.h"
#include "exponential.h"

/* Defaults; user space sizes the maps before they are created. */
#define MAX_SUMS 4096
#define MAX_ENDED 8192
/* Threads that stall in reclaim, or are in a call that maps, at once. */
#define MAX_STALLED 1024

#define WINDOWS 2
#define PF_EXITING 0x4
#define PF_KTHREAD 0x200000
/* Of the duration of stalls: four buckets an octave. */
#define STALL_SCALE 2
/* Error numbers of system calls are the last addresses that there are. */
#define MAX_ERRNO 4095
/* A process of 32 bits on a kernel of 64: on x86, and on arm64. */
#define TS_COMPAT 2
#define TIF_32BIT (1UL << 22)

/* What a sum is of. */
enum {
	MINOR_FAULT = 1,
	MAJOR_FAULT,
	MAPPED,
	UNMAPPED,
	BRK_GROWN,
	BRK_SHRUNK,
	MACHINE_RECLAIM,
	CGROUP_RECLAIM,
};

/* Kinds of events. */
enum {
	OOM_KILL = 1,
};

struct sum_key {
	__u32 tgid;
	__u16 what;
	/* Of stalls, the bucket. */
	__s16 slot;
};

struct sum {
	__u64 count;
	/* Bytes or nanoseconds; of faults, as many. */
	__u64 total;
	char comm[16];
};

/* A thread by its number in the initial pid namespace, which is another's once it has ended. */
struct thread_key {
	__u32 pid;
	__u32 pad;
	__u64 started_ns;
};

struct thread_faults {
	struct thread_key thread;
	/* Its process, by its number in the agent's pid namespace. */
	__u32 tgid;
	/* Whether it passes the filter. */
	__u32 wanted;
	/* Since the thread began. */
	__u64 minor;
	__u64 major;
	char comm[16];
};

struct oom_kill {
	struct event event;
	char comm[16];
	/* Pages. */
	__u64 total_vm;
	__u64 anon_rss;
	__u64 file_rss;
	__u64 shmem_rss;
	__s32 oom_score_adj;
	/* Whether anything but the process is known. */
	__u32 known;
};

/* One a CPU. */
struct memory_stats {
	/* Times that a program had something to count. */
	__u64 hits;
	/* Faults that the programs of perf events saw. */
	__u64 minor_runs;
	__u64 major_runs;
	/* What found no room: in `sums`, `ended`, `stalled` and `in_call`. */
	__u64 sums_full;
	__u64 ended_full;
	__u64 stalled_full;
	__u64 in_call_full;
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	long long counter;
} atomic64;

/* Resident pages: of file, anonymous, swap, shared memory. Before Linux 6.2 as the first, since then as the second. */
struct mm_rss_stat {
	atomic64 count[4];
};

struct mm_struct___array {
	struct mm_rss_stat rss_stat;
};

struct percpu_counter {
	long long count;
};

struct mm_struct___counters {
	struct percpu_counter rss_stat[4];
};

struct mm_struct {
	unsigned long brk;
	unsigned long total_vm;
};

struct signal_struct___memory {
	short oom_score_adj;
};

struct task_struct___memory {
	unsigned int flags;
	__u64 start_time;
	unsigned long min_flt;
	unsigned long maj_flt;
	struct mm_struct *mm;
	struct task_struct *group_leader;
	struct signal_struct___memory *signal;
};

struct cgroup___memory {
	struct cgroup_subsys_state self;
};

struct css_set___memory {
	struct cgroup *dfl_cgrp;
};

/* Whether the tracepoint is given the task, or its number alone as before Linux 6.8. */
struct trace_event_raw_mark_victim {
	unsigned long total_vm;
};

/* Registers of x86-64 and of arm64. */
struct pt_regs___x86 {
	unsigned long si;
	unsigned long dx;
	unsigned long ax;
	unsigned long orig_ax;
	unsigned long di;
};

struct pt_regs___arm64 {
	__u64 regs[31];
	int syscallno;
};

struct thread_info___x86 {
	__u32 status;
};

struct thread_info___arm64 {
	unsigned long flags;
};

struct task_struct___x86 {
	struct thread_info___x86 thread_info;
};

struct task_struct___arm64 {
	struct thread_info___arm64 thread_info;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

struct bpf_iter_meta {
	struct seq_file *seq;
};

#pragma clang attribute pop

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, WINDOWS);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_HASH);
		__uint(max_entries, MAX_SUMS);
		__uint(key_size, sizeof(struct sum_key));
		__uint(value_size, sizeof(struct sum));
	});
} sums SEC(".maps");

/* Threads that ended. An entry is written once and not touched again, so that taking it out loses nothing. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_ENDED);
	__type(key, struct thread_key);
	__type(value, struct thread_faults);
} ended SEC(".maps");

/* When a thread began to stall, by its number and what reclaims. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_STALLED);
	__type(key, __u64);
	__type(value, __u64);
} stalled SEC(".maps");

/* What is kept of a call that a thread is in, by its number: of mmap and munmap the length, of brk where the heap ended. None
 * of them calls another. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_STALLED);
	__type(key, __u32);
	__type(value, __u64);
} in_call SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct memory_stats);
} memory_stats SEC(".maps");

/* Clang describes in BTF only what it sees used. */
const struct sum_key *describe_sum_key __attribute__((unused));
const struct sum *describe_sum __attribute__((unused));
const struct oom_kill *describe_oom_kill __attribute__((unused));

/* Which window is being filled. */
volatile __u32 active = 0;
/* Threads that were put into `ended`, so that user space need not look when there are few. */
volatile __u64 threads_ended = 0;
/* Size of a page. */
const volatile __u64 page_bytes = 4096;

/* Programs may be interrupted by others on their CPU, so counting needs atomics even there. */
#define COUNT(field)                                                                  \
	({                                                                            \
		__u32 zero = 0;                                                       \
		struct memory_stats *stats = bpf_map_lookup_elem(&memory_stats, &zero); \
		if (stats)                                                            \
			__sync_fetch_and_add(&stats->field, 1);                       \
	})

static __always_inline __u64 whole_pages(__u64 bytes)
{
	return (bytes + page_bytes - 1) & -page_bytes;
}

/* Adds to a sum of the current process, if that is wanted. */
static __always_inline void add(__u16 what, __s16 slot, __u64 amount)
{
	struct sum_key key = { .tgid = current_tgid(bpf_get_current_pid_tgid(), 1), .what = what, .slot = slot };
	__u32 window = active;
	struct sum *sum;
	void *sums_now;

	if (!task_wanted(key.tgid, 1))
		return;
	COUNT(hits);
	sums_now = bpf_map_lookup_elem(&sums, &window);
	if (!sums_now)
		return;
	sum = bpf_map_lookup_elem(sums_now, &key);
	if (!sum) {
		struct sum first = { .count = 1, .total = amount };

		bpf_get_current_comm(first.comm, sizeof(first.comm));
		if (!bpf_map_update_elem(sums_now, &key, &first, BPF_NOEXIST))
			return;
		sum = bpf_map_lookup_elem(sums_now, &key);
		if (!sum) {
			COUNT(sums_full);
			return;
		}
	}
	__sync_fetch_and_add(&sum->count, 1);
	__sync_fetch_and_add(&sum->total, amount);
}

/* -------------------------------------------------------------------------------------------------- page faults */

/* The state of a task in the hierarchy of that number, 0 being v2's; 0 if it has none. */
static __always_inline struct cgroup_subsys_state *state_in(struct task_struct *task, __s32 hierarchy)
{
	struct cgroup_subsys_state *state = 0;
	struct css_set *set = 0;
	void *group = 0;

	read_field(set, task, cgroups);
	if (!hierarchy) {
		read_field(group, (struct css_set___memory *)set, dfl_cgrp);
		return group + __builtin_preserve_field_info(((struct cgroup___memory *)group)->self, 0 /* offset */);
	}
	for (int i = 0; i < MAX_CGROUP_SUBSYS; i++) {
		if (i * sizeof(state) >= __builtin_preserve_field_info(set->subsys, 1 /* byte size */))
			break;
		read_field(state, set, subsys[i]);
		if (hierarchy_of(state) == hierarchy)
			return state;
	}
	return 0;
}

/* Whether a task is in the cgroup directory of that number or below it. */
static __always_inline int in_cgroup(struct task_struct *task, __s32 hierarchy, __u64 wanted)
{
	struct cgroup_subsys_state *state = state_in(task, hierarchy);

	for (int depth = 0; state && depth < MAX_CGROUP_DEPTH; depth++) {
		struct kernfs_node *node = 0;
		struct cgroup *group = 0;
		__u64 id = 0;

		read_field(group, state, cgroup);
		read_field(node, group, kn);
		read_field(id, node, id);
		if (id == wanted)
			return 1;
		read_field(state, state, parent);
	}
	return 0;
}

/* As task_wanted(), of any task. */
static __always_inline int other_task_wanted(struct task_struct *task, struct task_struct *leader, __u32 tgid)
{
	__u32 number = filter_in_use;
	const volatile struct task_filter *filter;
	__u32 conditions;

	if (!number)
		return 1;
	number = (number - 1) & 1;
	filter = &filters[number];
	conditions = filter->conditions;
	if (conditions & FILTER_PIDS) {
		__u8 *in = bpf_map_lookup_elem(&pids, &tgid);

		if (!in || !(*in & (1 << number)))
			return 0;
	}
	if (conditions & FILTER_COMM) {
		char own[16] = {}, process[16] = {};

		read_field(own, task, comm);
		read_field(process, leader, comm);
		if (!same_comm(own, filter->comm) && !same_comm(process, filter->comm))
			return 0;
	}
	/* User space sets number and hierarchy of a v2 directory too. */
	return !(conditions & (FILTER_CGROUP_V1 | FILTER_CGROUP_V2)) ||
	       in_cgroup(task, filter->cgroup_v1_hierarchy, filter->cgroup_v1_id);
}

/* What a thread has had since it began; 0 if there is nothing to tell. */
static __always_inline int read_faults(struct task_struct *task, struct thread_faults *faults)
{
	struct task_struct___memory *memory = (void *)task;
	struct task_struct *leader = 0;
	unsigned long minor = 0, major = 0;

	read_field(minor, memory, min_flt);
	read_field(major, memory, maj_flt);
	if (!minor && !major)
		return 0;
	faults->minor = minor;
	faults->major = major;
	read_field(faults->thread.pid, task, pid);
	read_field(faults->thread.started_ns, memory, start_time);
	read_field(leader, memory, group_leader);
	read_field(faults->comm, leader, comm);
	faults->tgid = task_tgid(task);
	faults->wanted = other_task_wanted(task, leader, faults->tgid);
	return 1;
}

/* Tells of every thread that is not about to end: those that are, thread_ends() has seen or will see. */
SEC("?iter/task")
int thread_faults(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct thread_faults faults = {};
	unsigned int flags = 0;

	if (!task)
		return 0;
	read_field(flags, (struct task_struct___memory *)task, flags);
	if (flags & (PF_EXITING | PF_KTHREAD))
		return 0;
	if (read_faults(task, &faults))
		bpf_seq_write(ctx->meta->seq, &faults, sizeof(faults));
	return 0;
}

SEC("?raw_tp/sched_process_exit")
int thread_ends(__u64 *args)
{
	struct thread_faults faults = {};

	if (!read_faults((void *)args[0], &faults) || !faults.wanted)
		return 0;
	COUNT(hits);
	if (bpf_map_update_elem(&ended, &faults.thread, &faults, BPF_NOEXIST))
		COUNT(ended_full);
	else
		__sync_fetch_and_add(&threads_ended, 1);
	return 0;
}

SEC("?perf_event")
int minor_fault(void *ctx)
{
	COUNT(minor_runs);
	add(MINOR_FAULT, 0, 1);
	return 0;
}

SEC("?perf_event")
int major_fault(void *ctx)
{
	COUNT(major_runs);
	add(MAJOR_FAULT, 0, 1);
	return 0;
}

/* ---------------------------------------------------------------------------------------------- mmap, munmap, brk */

/* What a call answered: an address, or an error. */
static __always_inline int is_error(__u64 returned)
{
	return returned > (__u64)-MAX_ERRNO - 1;
}

static __always_inline int mapped(__u64 length, __u64 returned)
{
	if (!is_error(returned))
		add(MAPPED, 0, whole_pages(length));
	return 0;
}

static __always_inline int unmapped(__u64 length, __u64 returned)
{
	if (!is_error((long long)(__s32)returned))
		add(UNMAPPED, 0, whole_pages(length));
	return 0;
}

/* Where the heap of the current process ends. */
static __always_inline __u64 heap_end(void)
{
	struct task_struct___memory *task = (void *)bpf_get_current_task();
	struct mm_struct *mm = 0;
	unsigned long end = 0;

	read_field(mm, task, mm);
	read_field(end, mm, brk);
	return end;
}

static __always_inline int call_begins(__u64 value)
{
	__u32 thread = bpf_get_current_pid_tgid();

	if (bpf_map_update_elem(&in_call, &thread, &value, BPF_ANY))
		COUNT(in_call_full);
	return 0;
}

/* Takes back what call_begins() kept; whether there was anything. */
static __always_inline int call_ends(__u64 *value)
{
	__u32 thread = bpf_get_current_pid_tgid();
	__u64 *found = bpf_map_lookup_elem(&in_call, &thread);

	if (!found)
		return 0;
	*value = *found;
	bpf_map_delete_elem(&in_call, &thread);
	return 1;
}

/* brk() answers where the heap ends, whether that was changed or not. */
static __always_inline int brk_ends(__u64 end)
{
	__u64 before;

	if (!call_ends(&before))
		return 0;
	before = whole_pages(before);
	end = whole_pages(end);
	if (end != before)
		add(end > before ? BRK_GROWN : BRK_SHRUNK, 0, end > before ? end - before : before - end);
	return 0;
}

SEC("?fexit/vm_mmap_pgoff")
int mmap_fexit(__u64 *args)
{
	return mapped(args[2], args[6]);
}

SEC("?fexit/__vm_munmap")
int munmap_fexit(__u64 *args)
{
	return unmapped(args[1], args[3]);
}

SEC("?fentry/__x64_sys_brk")
int brk_fentry(__u64 *args)
{
	return call_begins(heap_end());
}

SEC("?fexit/__x64_sys_brk")
int brk_fexit(__u64 *args)
{
	return brk_ends(args[1]);
}

/* Of the registers at a function's entry, argument 0, 1 or 2; `n` is a constant. */
static __always_inline __u64 argument(void *regs, int n)
{
	__u64 value = 0;

	if (__builtin_preserve_field_info(((struct pt_regs___x86 *)regs)->si, 2 /* exists */)) {
		if (n == 0)
			read_field(value, (struct pt_regs___x86 *)regs, di);
		else if (n == 1)
			read_field(value, (struct pt_regs___x86 *)regs, si);
		else
			read_field(value, (struct pt_regs___x86 *)regs, dx);
	} else if (__builtin_preserve_field_info(((struct pt_regs___arm64 *)regs)->regs, 2)) {
		if (n == 0)
			read_field(value, (struct pt_regs___arm64 *)regs, regs[0]);
		else if (n == 1)
			read_field(value, (struct pt_regs___arm64 *)regs, regs[1]);
		else
			read_field(value, (struct pt_regs___arm64 *)regs, regs[2]);
	}
	return value;
}

static __always_inline __u64 returned(void *regs)
{
	__u64 value = 0;

	if (__builtin_preserve_field_info(((struct pt_regs___x86 *)regs)->ax, 2))
		read_field(value, (struct pt_regs___x86 *)regs, ax);
	else if (__builtin_preserve_field_info(((struct pt_regs___arm64 *)regs)->regs, 2))
		read_field(value, (struct pt_regs___arm64 *)regs, regs[0]);
	return value;
}

SEC("?kprobe/vm_mmap_pgoff")
int mmap_kprobe(void *regs)
{
	return call_begins(argument(regs, 2));
}

SEC("?kretprobe/vm_mmap_pgoff")
int mmap_kretprobe(void *regs)
{
	__u64 length;

	return call_ends(&length) ? mapped(length, returned(regs)) : 0;
}

SEC("?kprobe/__vm_munmap")
int munmap_kprobe(void *regs)
{
	return call_begins(argument(regs, 1));
}

SEC("?kretprobe/__vm_munmap")
int munmap_kretprobe(void *regs)
{
	__u64 length;

	return call_ends(&length) ? unmapped(length, returned(regs)) : 0;
}

SEC("?ksyscall/brk")
int brk_kprobe(void *regs)
{
	return call_begins(heap_end());
}

SEC("?kretsyscall/brk")
int brk_kretprobe(void *regs)
{
	return brk_ends(returned(regs));
}

/* Numbers of the calls. */
struct calls {
	int mmap;
	int munmap;
	int brk;
};

/* The calls of this machine; none for a 32-bit process, whose numbers are others. */
static __always_inline int find_calls(struct calls *calls)
{
	void *task = (void *)bpf_get_current_task();

	if (__builtin_preserve_field_info(((struct pt_regs___x86 *)0)->orig_ax, 2)) {
		__u32 status = 0;

		read_field(status, (struct task_struct___x86 *)task, thread_info.status);
		*calls = (struct calls){ .mmap = 9, .munmap = 11, .brk = 12 };
		return !(status & TS_COMPAT);
	}
	if (__builtin_preserve_field_info(((struct pt_regs___arm64 *)0)->syscallno, 2)) {
		unsigned long flags = 0;

		read_field(flags, (struct task_struct___arm64 *)task, thread_info.flags);
		*calls = (struct calls){ .mmap = 222, .munmap = 215, .brk = 214 };
		return !(flags & TIF_32BIT);
	}
	return 0;
}

SEC("?raw_tp/sys_enter")
int brk_sys_enter(__u64 *args)
{
	struct calls calls;

	if (!find_calls(&calls) || (int)args[1] != calls.brk)
		return 0;
	return call_begins(heap_end());
}

SEC("?raw_tp/sys_exit")
int calls_sys_exit(__u64 *args)
{
	void *regs = (void *)args[0];
	struct calls calls;
	int number = -1;

	if (__builtin_preserve_field_info(((struct pt_regs___x86 *)regs)->orig_ax, 2)) {
		unsigned long original = 0;

		read_field(original, (struct pt_regs___x86 *)regs, orig_ax);
		number = original;
	} else if (__builtin_preserve_field_info(((struct pt_regs___arm64 *)regs)->syscallno, 2)) {
		read_field(number, (struct pt_regs___arm64 *)regs, syscallno);
	}
	if (!find_calls(&calls))
		return 0;
	if (number == calls.brk)
		return brk_ends(args[1]);
	if ((number == calls.mmap || number == calls.munmap) && !is_error(args[1]))
		add(number == calls.mmap ? MAPPED : UNMAPPED, 0, whole_pages(argument(regs, 1)));
	return 0;
}

/* -------------------------------------------------------------------------------------------------------- reclaim */

static __always_inline int stall_begins(__u64 what)
{
	__u64 key = what << 32 | (__u32)bpf_get_current_pid_tgid();
	__u64 now = bpf_ktime_get_boot_ns();

	if (bpf_map_update_elem(&stalled, &key, &now, BPF_ANY))
		COUNT(stalled_full);
	return 0;
}

static __always_inline int stall_ends(__u64 what)
{
	__u64 key = what << 32 | (__u32)bpf_get_current_pid_tgid();
	__u64 *began = bpf_map_lookup_elem(&stalled, &key);
	__u64 duration;

	if (!began)
		return 0;
	duration = bpf_ktime_get_boot_ns() - *began;
	bpf_map_delete_elem(&stalled, &key);
	add(what, duration_slot(duration, STALL_SCALE), duration);
	return 0;
}

#define STALLS(kind, suffix)                                            \
	SEC("?" kind "/mm_vmscan_direct_reclaim_begin")                 \
	int reclaim_begins_##suffix(void *ctx)                          \
	{                                                               \
		return stall_begins(MACHINE_RECLAIM);                   \
	}                                                               \
	SEC("?" kind "/mm_vmscan_direct_reclaim_end")                   \
	int reclaim_ends_##suffix(void *ctx)                            \
	{                                                               \
		return stall_ends(MACHINE_RECLAIM);                     \
	}                                                               \
	SEC("?" kind "/mm_vmscan_memcg_reclaim_begin")                  \
	int cgroup_reclaim_begins_##suffix(void *ctx)                   \
	{                                                               \
		return stall_begins(CGROUP_RECLAIM);                    \
	}                                                               \
	SEC("?" kind "/mm_vmscan_memcg_reclaim_end")                    \
	int cgroup_reclaim_ends_##suffix(void *ctx)                     \
	{                                                               \
		return stall_ends(CGROUP_RECLAIM);                      \
	}

STALLS("raw_tp", raw_tp)
STALLS("tracepoint/vmscan", tracepoint)

/* ------------------------------------------------------------------------------------------------------ OOM kills */

/* The kernel's counters are larger than ours, so that each place must be a constant. */
static __always_inline void resident_pages(void *mm, struct oom_kill *kill)
{
	struct mm_struct___counters *counters = mm;
	struct mm_struct___array *array = mm;
	long long file = 0, anon = 0, shmem = 0;

	if (__builtin_preserve_field_info(counters->rss_stat[0].count, 2)) {
		read_field(file, counters, rss_stat[0].count);
		read_field(anon, counters, rss_stat[1].count);
		read_field(shmem, counters, rss_stat[3].count);
	} else if (__builtin_preserve_field_info(array->rss_stat.count, 2)) {
		read_field(file, array, rss_stat.count[0].counter);
		read_field(anon, array, rss_stat.count[1].counter);
		read_field(shmem, array, rss_stat.count[3].counter);
	}
	/* Counters of several CPUs may be below zero for a moment. */
	kill->file_rss = file > 0 ? file : 0;
	kill->anon_rss = anon > 0 ? anon : 0;
	kill->shmem_rss = shmem > 0 ? shmem : 0;
}

/* User space is woken at once: it looks at the victim while it is still there. */
static __always_inline int oom_killed(struct task_struct *victim, __u32 pid)
{
	struct oom_kill kill = { .event.kind = OOM_KILL, .event.tgid = pid };
	struct oom_kill *record;

	if (victim) {
		struct task_struct___memory *memory = (void *)victim;
		struct signal_struct___memory *signal = 0;
		struct task_struct *leader = 0;
		struct mm_struct *mm = 0;
		short adjustment = 0;

		read_field(leader, memory, group_leader);
		read_field(signal, memory, signal);
		read_field(adjustment, signal, oom_score_adj);
		read_field(kill.comm, leader, comm);
		kill.oom_score_adj = adjustment;
		kill.event.tgid = task_tgid(victim);
		kill.known = 1;
		read_field(mm, memory, mm);
		if (mm) {
			read_field(kill.total_vm, mm, total_vm);
			resident_pages(mm, &kill);
		}
		if (!other_task_wanted(victim, leader, kill.event.tgid))
			return 0;
	}
	kill.event.boot_ns = bpf_ktime_get_boot_ns();
	record = reserve_event(sizeof(*record));
	if (!record)
		return 0;
	*record = kill;
	bpf_ringbuf_submit(record, BPF_RB_FORCE_WAKEUP);
	return 0;
}

SEC("?fentry/__oom_kill_process")
int oom_fentry(__u64 *args)
{
	return oom_killed((void *)args[0], 0);
}

SEC("?kprobe/__oom_kill_process")
int oom_kprobe(void *regs)
{
	return oom_killed((void *)argument(regs, 0), 0);
}

SEC("?raw_tp/mark_victim")
int oom_raw_tp(__u64 *args)
{
	int has_task = __builtin_preserve_field_info(((struct trace_event_raw_mark_victim *)0)->total_vm, 2);

	return oom_killed(has_task ? (void *)args[0] : 0, has_task ? 0 : args[0]);
}

char _license[] SEC("license") = "Dual MIT/GPL";
