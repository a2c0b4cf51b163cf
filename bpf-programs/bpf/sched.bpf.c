/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Scheduling: how long threads wait for a CPU, how long and why they are off it, and how often they are switched, summed by
 * process.
 *
 * This is the hottest of all hooks, so a switch costs one reading of the clock, two lookups of threads and one of a process: a
 * thread notes when and why it leaves the CPU, and all about that time is added to its process' sums when it gets the CPU
 * again. A switch away is so counted once the thread is back, or at once if it ends.
 *
 * All hooks run with the run queue locked and interrupts off: a thread's note is written by one CPU at a time, and sums by
 * their own CPU alone, so neither needs atomics. The sums exist twice; see profile.bpf.c for how windows are swapped.
 */
#include "exponential.h"
#include "task_filter.h"

/* Defaults; user space sizes the maps before they are created. */
#define WINDOWS 2
#define MAX_PROCESSES 1024
#define MAX_THREADS 4096
#define SCALE 0

/* Why a thread is not on a CPU. */
enum {
	ON_CPU = 0,
	/* It could go on, but for another. */
	PREEMPTED = 1,
	/* It waits for something, and signals wake it. */
	SLEEPING = 2,
	/* It waits for something that nothing else interrupts: mostly disks. */
	BLOCKED = 3,
	/* It was just born. */
	NEW = 4,
};

/* States of tasks (include/linux/sched.h). */
#define TASK_UNINTERRUPTIBLE 0x2
#define TASK_DEAD 0x80
#define TASK_NOLOAD 0x400
/* As classic tracepoints report them: what was preempted, and what has ended. */
#define REPORT_PREEMPTED 0x100
#define REPORT_ENDED 0x30

#define CLONE_THREAD 0x10000

struct thread {
	/* When it left the CPU; 0 if this time is not measured. */
	__u64 off_since;
	/* Since when it could run again; 0 if it cannot yet. */
	__u64 runnable_since;
	/* Its process, by its number in the agent's pid namespace. */
	__u32 tgid;
	__u16 reason;
	/* How many such times this one stands for. */
	__u16 weight;
};

struct sums {
	__u32 slots[SLOTS(SCALE)];
	__u32 zero;
	/* Switches away: of its own will, and not. */
	__u32 voluntary;
	__u32 involuntary;
	__u32 pad;
	__u64 run_queue_ns;
	/* Time off the CPU, waiting for it included. */
	__u64 preempted_ns;
	__u64 sleeping_ns;
	__u64 blocked_ns;
	/* Of the thread that was seen first. */
	char comm[16];
};

/* What became of it all, on each CPU. */
struct cpu_counts {
	/* Switches and wake-ups of threads that are looked at. */
	__u64 hits;
	/* Threads and processes that found no room. */
	__u64 threads_full;
	__u64 processes_full;
};

/* Threads, by their number in the initial pid namespace. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_THREADS);
	__type(key, __u32);
	__type(value, struct thread);
} threads SEC(".maps");

/* Sums by process. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, WINDOWS);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
		__uint(max_entries, MAX_PROCESSES);
		__type(key, __u32);
		__uint(value_size, sizeof(struct sums));
	});
} processes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cpu_counts);
} counts SEC(".maps");

/* Clang describes in BTF only what it sees used in a map of the outer level or a global. */
const struct sums *describe_sums __attribute__((unused));

/* Which window is being filled. */
volatile __u32 active = 0;

/* One in so many times off the CPU is measured, and counts as many; 1: all. */
volatile __u32 sampling = 1;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* Since 5.14, and before. */
struct task_struct___state {
	unsigned int __state;
};

struct task_struct___old_state {
	long state;
};

#pragma clang attribute pop

/* Since 5.18 the hook says in which state the thread leaves: by then the field may hold another. */
typedef void (*btf_trace_sched_switch___state)(void *, _Bool, struct task_struct *, struct task_struct *, unsigned int);

/* What classic tracepoints say. */
struct switch_tracepoint {
	__u64 common;
	char prev_comm[16];
	__u32 prev_pid;
	int prev_prio;
	long prev_state;
	char next_comm[16];
	__u32 next_pid;
};

struct wakeup_tracepoint {
	__u64 common;
	char comm[16];
	__u32 pid;
};

struct newtask_tracepoint {
	__u64 common;
	__u32 pid;
	char comm[16];
	__u64 clone_flags;
};

static __always_inline struct cpu_counts *own_counts(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&counts, &zero);
}

/* The process' sums of this window on this CPU. `comm`: the name, or where a task has it, as `comm_of_task` says. */
static __always_inline struct sums *sums_of(__u32 tgid, const void *comm, int comm_of_task, struct cpu_counts *counted)
{
	__u32 window = active;
	void *window_sums = bpf_map_lookup_elem(&processes, &window);
	struct sums *sums;

	if (!window_sums)
		return 0;
	sums = bpf_map_lookup_elem(window_sums, &tgid);
	if (!sums) {
		/* Another CPU may have made the entry meanwhile; then it is there, with a name. */
		struct sums first = {};

		if (comm_of_task)
			read_field(first.comm, (struct task_struct *)comm, comm);
		else
			__builtin_memcpy(first.comm, comm, sizeof(first.comm));
		bpf_map_update_elem(window_sums, &tgid, &first, BPF_NOEXIST);
		sums = bpf_map_lookup_elem(window_sums, &tgid);
		if (!sums)
			counted->processes_full++;
	}
	return sums;
}

/* How many times off the CPU the one that begins is to stand for; 0: it is not measured. */
static __always_inline __u32 sample(void)
{
	__u32 one_in = sampling;

	if (one_in <= 1)
		return 1;
	return bpf_get_prandom_u32() % one_in ? 0 : one_in;
}

/* The current thread leaves the CPU. Returns the time if it was read. */
static __always_inline __u64 leave(__u32 tid, __u32 reason, int ends, const void *comm, int comm_of_task,
				   struct cpu_counts *counted)
{
	__u32 tgid = current_tgid(bpf_get_current_pid_tgid(), 1);
	struct thread first = {}, *thread;
	struct sums *sums;
	__u64 now = 0;

	if (!task_wanted(tgid, 1)) {
		/* It may have been wanted before the filter was changed. */
		if (ends)
			bpf_map_delete_elem(&threads, &tid);
		return 0;
	}
	counted->hits++;
	if (ends) {
		bpf_map_delete_elem(&threads, &tid);
		sums = sums_of(tgid, comm, comm_of_task, counted);
		if (sums)
			sums->voluntary++;
		return 0;
	}
	thread = bpf_map_lookup_elem(&threads, &tid);
	if (!thread) {
		if (bpf_map_update_elem(&threads, &tid, &first, BPF_ANY)) {
			counted->threads_full++;
			return 0;
		}
		thread = bpf_map_lookup_elem(&threads, &tid);
		if (!thread)
			return 0;
	}
	thread->tgid = tgid;
	thread->reason = reason;
	thread->weight = sample();
	if (thread->weight)
		now = bpf_ktime_get_boot_ns();
	thread->off_since = now;
	thread->runnable_since = reason == PREEMPTED ? now : 0;
	return now;
}

/* A thread gets the CPU. `now`: the time if it was read. */
static __always_inline void enter(__u32 tid, __u64 now, const void *comm, int comm_of_task, struct cpu_counts *counted)
{
	struct thread *thread = bpf_map_lookup_elem(&threads, &tid);
	__u64 off, waited;
	struct sums *sums;
	__u32 reason;
	int slot;

	if (!thread || thread->reason == ON_CPU)
		return;
	reason = thread->reason;
	thread->reason = ON_CPU;
	counted->hits++;
	sums = sums_of(thread->tgid, comm, comm_of_task, counted);
	if (!sums)
		return;
	if (reason == PREEMPTED)
		sums->involuntary++;
	else if (reason != NEW)
		sums->voluntary++;
	if (!thread->weight)
		return;
	if (!now)
		now = bpf_ktime_get_boot_ns();
	off = (now - thread->off_since) * thread->weight;
	if (reason == PREEMPTED)
		sums->preempted_ns += off;
	else if (reason == SLEEPING)
		sums->sleeping_ns += off;
	else if (reason == BLOCKED)
		sums->blocked_ns += off;
	/* A wake-up may have been missed, while paused. */
	if (!thread->runnable_since)
		return;
	waited = now - thread->runnable_since;
	sums->run_queue_ns += waited * thread->weight;
	slot = duration_slot(waited, SCALE);
	if (slot == ZERO_SLOT)
		sums->zero += thread->weight;
	else if (is_slot(slot, SCALE))
		sums->slots[slot] += thread->weight;
}

/* A thread could run again. */
static __always_inline int woken(__u32 tid)
{
	struct thread *thread = bpf_map_lookup_elem(&threads, &tid);
	struct cpu_counts *counted;

	/* One that runs may be woken too, before it has gone to sleep; and one that waits already, again. */
	if (!thread || thread->reason == ON_CPU || !thread->weight || thread->runnable_since)
		return 0;
	counted = own_counts();
	if (counted)
		counted->hits++;
	thread->runnable_since = bpf_ktime_get_boot_ns();
	return 0;
}

/* A thread was born. The current one is its parent, whose cgroup and name it has. */
static __always_inline int born(__u32 tid, __u32 tgid, int can_run)
{
	struct cpu_counts *counted = own_counts();
	struct thread first = {};

	if (!counted || !task_wanted(tgid, 1))
		return 0;
	counted->hits++;
	first.tgid = tgid;
	first.reason = NEW;
	first.weight = sample();
	if (first.weight && can_run) {
		first.off_since = bpf_ktime_get_boot_ns();
		first.runnable_since = first.off_since;
	}
	if (bpf_map_update_elem(&threads, &tid, &first, BPF_ANY))
		counted->threads_full++;
	return 0;
}

static __always_inline unsigned int state_of(struct task_struct *task, int direct)
{
	unsigned int state = 0;
	long old_state = 0;

	if (field_exists((struct task_struct___state *)task, __state)) {
		get_field(state, direct, (struct task_struct___state *)task, __state);
		return state;
	}
	get_field(old_state, direct, (struct task_struct___old_state *)task, state);
	return old_state;
}

static __always_inline int switched(__u64 *args, int direct)
{
	struct task_struct *prev = (void *)args[1], *next = (void *)args[2];
	struct cpu_counts *counted = own_counts();
	unsigned int state = 0;
	int prev_tid = 0, next_tid = 0;
	__u32 reason = SLEEPING;
	__u64 now = 0;

	if (!counted)
		return 0;
	get_field(prev_tid, direct, prev, pid);
	get_field(next_tid, direct, next, pid);
	/* The idle task's number is 0. */
	if (prev_tid) {
		if (type_exists(btf_trace_sched_switch___state))
			state = args[3];
		else
			state = state_of(prev, direct);
		if (args[0] & 1 || !state)
			reason = PREEMPTED;
		else if ((state & (TASK_UNINTERRUPTIBLE | TASK_NOLOAD)) == TASK_UNINTERRUPTIBLE)
			reason = BLOCKED;
		now = leave(prev_tid, reason, state & TASK_DEAD, prev, 1, counted);
	}
	if (next_tid)
		enter(next_tid, now, next, 1, counted);
	return 0;
}

static __always_inline int woken_task(struct task_struct *task, int direct)
{
	int tid = 0;

	get_field(tid, direct, task, pid);
	return woken(tid);
}

static __always_inline int born_task(struct task_struct *task, int direct)
{
	int tid = 0;

	get_field(tid, direct, task, pid);
	return born(tid, task_tgid(task), 1);
}

SEC("?tp_btf/sched_switch")
int switch_btf(__u64 *args)
{
	return switched(args, 1);
}

SEC("?tp_btf/sched_wakeup")
int wakeup_btf(__u64 *args)
{
	return woken_task((void *)args[0], 1);
}

SEC("?tp_btf/sched_wakeup_new")
int wakeup_new_btf(__u64 *args)
{
	return born_task((void *)args[0], 1);
}

SEC("?raw_tp/sched_switch")
int switch_raw(__u64 *args)
{
	return switched(args, 0);
}

SEC("?raw_tp/sched_wakeup")
int wakeup_raw(__u64 *args)
{
	return woken_task((void *)args[0], 0);
}

SEC("?raw_tp/sched_wakeup_new")
int wakeup_new_raw(__u64 *args)
{
	return born_task((void *)args[0], 0);
}

SEC("?tracepoint/sched/sched_switch")
int switch_classic(struct switch_tracepoint *args)
{
	struct cpu_counts *counted = own_counts();
	long state = args->prev_state;
	char prev_comm[16], next_comm[16];
	__u32 reason = SLEEPING;
	__u64 now = 0;

	if (!counted)
		return 0;
	__builtin_memcpy(prev_comm, args->prev_comm, sizeof(prev_comm));
	__builtin_memcpy(next_comm, args->next_comm, sizeof(next_comm));
	if (args->prev_pid) {
		/* Before 5.18, one that is being woken already is told to be able to run. */
		if (state & REPORT_PREEMPTED || (!state && !state_of((void *)bpf_get_current_task(), 0)))
			reason = PREEMPTED;
		else if (state & TASK_UNINTERRUPTIBLE)
			reason = BLOCKED;
		now = leave(args->prev_pid, reason, state & REPORT_ENDED, prev_comm, 0, counted);
	}
	if (args->next_pid)
		enter(args->next_pid, now, next_comm, 0, counted);
	return 0;
}

SEC("?tracepoint/sched/sched_wakeup")
int wakeup_classic(struct wakeup_tracepoint *args)
{
	return woken(args->pid);
}

/* That of sched_wakeup_new does not say of which process the thread is. */
SEC("?tracepoint/task/task_newtask")
int newtask_classic(struct newtask_tracepoint *args)
{
	__u32 tgid = current_tgid(bpf_get_current_pid_tgid(), 1);

	if (args->clone_flags & CLONE_THREAD)
		return born(args->pid, tgid, 0);
	/* Not known by its number in another namespace. */
	return pid_ns ? 0 : born(args->pid, args->pid, 0);
}

SEC("?tracepoint/sched/sched_wakeup_new")
int wakeup_new_classic(struct wakeup_tracepoint *args)
{
	return woken(args->pid);
}

char _license[] SEC("license") = "Dual MIT/GPL";
