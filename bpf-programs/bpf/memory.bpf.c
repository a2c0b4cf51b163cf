/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Memory: page faults, bytes mapped and unmapped, stalls in reclaim, and processes killed for want of memory.
 *
 * Faults cost nothing where the kernel's own counters are read: every thread's by `thread_faults`, and those of threads that
 * end by `thread_ends`. What is counted in programs goes into `sums`, which exists twice: user space flips `active`, and an
 * update of the outer map then waits until no program still uses the old window.
 */
#include "add.h"
#include "memory_calls.h"
#include "other_task.h"
#include "events.h"
#include "exponential.h"

#define PF_EXITING 0x4
#define PF_KTHREAD 0x200000
/* Of the duration of stalls: four buckets an octave. */
#define STALL_SCALE 2

/* Kinds of events. */
enum {
	OOM_KILL = 1,
};

/* Of `thread_faults`. */
#define THREAD_WANTED 1
#define THREAD_ENDING 2

/* A thread. Not by its number: that of a thread that execs becomes its process', and its start the process' too. */
struct thread_key {
	/* Where the kernel has it: another's once it is gone. */
	__u64 task;
	__u64 started_ns;
};

struct thread_faults {
	struct thread_key thread;
	/* Its process, by its number in the agent's pid namespace. */
	__u32 tgid;
	/* THREAD_*: whether it passes the filter, and whether it has begun to end. */
	__u32 flags;
	/* Since the thread began. */
	__u64 minor;
	__u64 major;
	/* When it ended, by bpf_ktime_get_ns(), as it started; 0 if it is still there. */
	__u64 ended_ns;
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

/* Whether the tracepoint is given the task, or its number alone as before Linux 6.8. */
struct trace_event_raw_mark_victim {
	unsigned long total_vm;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

struct bpf_iter_meta {
	struct seq_file *seq;
};

#pragma clang attribute pop

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

const struct oom_kill *describe_oom_kill __attribute__((unused));

/* Threads that were put into `ended`, so that user space need not look when there are few. */
volatile __u64 threads_ended = 0;

/* -------------------------------------------------------------------------------------------------- page faults */

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
	faults->thread.task = (__u64)task;
	read_field(faults->thread.started_ns, memory, start_time);
	read_field(leader, memory, group_leader);
	read_field(faults->comm, leader, comm);
	faults->tgid = task_tgid(task);
	if (other_task_wanted(task, leader, faults->tgid))
		faults->flags = THREAD_WANTED;
	return 1;
}

/* Tells of every thread. What one that is ending has had, thread_ends() has told or will tell: of those, this tells only that
 * they are still there. */
SEC("?iter/task")
int thread_faults(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct thread_faults faults = {};
	unsigned int flags = 0;

	if (!task)
		return 0;
	read_field(flags, (struct task_struct___memory *)task, flags);
	if (flags & PF_KTHREAD)
		return 0;
	if (!read_faults(task, &faults))
		return 0;
	if (flags & PF_EXITING)
		faults.flags |= THREAD_ENDING;
	bpf_seq_write(ctx->meta->seq, &faults, sizeof(faults));
	return 0;
}

SEC("?raw_tp/sched_process_exit")
int thread_ends(__u64 *args)
{
	struct thread_faults faults = {};

	if (!read_faults((void *)args[0], &faults) || !(faults.flags & THREAD_WANTED))
		return 0;
	COUNT(hits);
	faults.ended_ns = bpf_ktime_get_ns();
	if (bpf_map_update_elem(&ended, &faults.thread, &faults, BPF_NOEXIST))
		COUNT(ended_full);
	else
		add_to(&threads_ended, 1);
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

	if (field_exists(counters, rss_stat[0].count)) {
		read_field(file, counters, rss_stat[0].count);
		read_field(anon, counters, rss_stat[1].count);
		read_field(shmem, counters, rss_stat[3].count);
	} else if (field_exists(array, rss_stat.count)) {
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
	/* From another namespace it has another number, which cannot be found out here. */
	struct oom_kill kill = { .event.kind = OOM_KILL, .event.tgid = pid_ns ? 0 : pid };
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
	} else if (!process_wanted(filter_in_use, kill.event.tgid)) {
		/* Names and cgroups are left to user space. */
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
	int has_task = field_exists(((struct trace_event_raw_mark_victim *)0), total_vm);

	return oom_killed(has_task ? (void *)args[0] : 0, has_task ? 0 : args[0]);
}

char _license[] SEC("license") = "Dual MIT/GPL";
