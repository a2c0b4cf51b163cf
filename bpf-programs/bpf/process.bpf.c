/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Processes: forks, execs and ends, an event each. Threads are none.
 *
 * The events say who a process is, so that one that nobody had the time to look at can be named. All of this is rare beside
 * what other tracers see: fields are read one by one, in the same way for every hook.
 */
#include "add.h"
#include "events.h"
#include "task_filter.h"

#define PATH_BYTES 192
#define MAX_ENDED 4096
#define SIGNAL_GROUP_EXIT 4
#define CLONE_THREAD 0x10000

enum {
	EVENT_FORK = 1,
	EVENT_EXEC = 2,
	EVENT_EXIT = 3,
};

/* Begins every event. */
struct process {
	struct event head;
	/* Start, in the same clock; 0 if not known. */
	__u64 start_boot_ns;
	/* kernfs id of the cgroup v2. */
	__u64 cgroup_id;
	__u32 parent_tgid;
	/* The real one. */
	__u32 uid;
	char comm[16];
};

struct exec_event {
	struct process process;
	/* Bytes in `path`, its zero included: PATH_BYTES if it was cut. */
	__u32 path_bytes;
	__u32 pad;
	char path[PATH_BYTES];
};

struct exit_event {
	struct process process;
	/* As wait(2) has it. */
	__u32 status;
	__u32 pad;
};

struct process_counts {
	__u64 forks;
	__u64 execs;
	__u64 exits;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct process_counts);
} counts SEC(".maps");

struct ended_key {
	__u64 start_boot_ns;
	__u64 tgid;
};

/* In a key: the process is wanted. Without: its end was told. */
#define WANTED (1ULL << 32)

/* Processes that end. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_ENDED);
	__type(key, struct ended_key);
	__type(value, __u8);
} ended SEC(".maps");

/* Clang describes in BTF only what it sees used. */
const struct process *describe_process __attribute__((unused));
const struct exec_event *describe_exec __attribute__((unused));
const struct exit_event *describe_exit __attribute__((unused));

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct task_struct___process {
	struct task_struct *real_parent;
	__u64 start_boottime;
	int exit_code;
};

struct signal_struct___process {
	int group_exit_code;
	unsigned int flags;
};

struct linux_binprm {
	const char *filename;
};

#pragma clang attribute pop

/* What classic tracepoints say. */
struct exec_tracepoint {
	__u64 common;
	__u32 path_place;
};

struct newtask_tracepoint {
	__u64 common;
	__u32 pid;
	char comm[16];
	__u64 clone_flags;
};

static __always_inline struct process_counts *own_counts(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&counts, &zero);
}

static __always_inline __u64 start_of(struct task_struct *task)
{
	struct task_struct *leader = 0;
	__u64 start = 0;

	read_field(leader, task, group_leader);
	read_field(start, (struct task_struct___process *)leader, start_boottime);
	return start;
}

/* What the current task and a new child of its have in common. */
static __always_inline void fill_in(struct process *process, __u32 kind, __u32 tgid)
{
	process->head.kind = kind;
	process->head.tgid = tgid;
	process->head.boot_ns = bpf_ktime_get_boot_ns();
	process->cgroup_id = bpf_get_current_cgroup_id();
	process->uid = bpf_get_current_uid_gid();
}

static __always_inline void fill_in_current(struct process *process, __u32 kind, __u32 tgid)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct task_struct *leader = 0, *parent = 0;

	fill_in(process, kind, tgid);
	process->start_boot_ns = start_of(task);
	read_field(leader, task, group_leader);
	read_field(parent, (struct task_struct___process *)leader, real_parent);
	process->parent_tgid = task_tgid(parent);
	/* That of the process, not of the thread that happens to be its last. */
	read_field(process->comm, leader, comm);
}

/* `tgid` 0: the agent's pid namespace has no number for the child. */
static __always_inline int forked(__u32 parent, __u32 tgid, __u64 start, const char *comm)
{
	struct process_counts *counted = own_counts();
	struct process *event;

	if (!counted || !task_wanted(parent, 1))
		return 0;
	add_to(&counted->forks, 1);
	event = reserve_event(sizeof(*event));
	if (!event)
		return 0;
	fill_in(event, EVENT_FORK, tgid);
	event->start_boot_ns = start;
	event->parent_tgid = parent;
	__builtin_memcpy(event->comm, comm, sizeof(event->comm));
	submit_event(event);
	return 0;
}

static __always_inline int executed(const char *path)
{
	__u32 tgid = current_tgid(bpf_get_current_pid_tgid(), 1);
	struct process_counts *counted = own_counts();
	struct exec_event *event;
	long bytes;

	if (!counted || !task_wanted(tgid, 1))
		return 0;
	add_to(&counted->execs, 1);
	event = reserve_event(sizeof(*event));
	if (!event)
		return 0;
	fill_in_current(&event->process, EVENT_EXEC, tgid);
	event->pad = 0;
	bytes = bpf_probe_read_kernel_str(event->path, sizeof(event->path), path);
	event->path_bytes = bytes > 0 ? bytes : 0;
	submit_event(event);
	return 0;
}

static __always_inline int status_of(struct task_struct *task, struct signal_struct___process *signal)
{
	struct task_struct *leader = 0;
	unsigned int flags = 0;
	int status = 0;

	read_field(flags, signal, flags);
	if (flags & SIGNAL_GROUP_EXIT) {
		read_field(status, signal, group_exit_code);
		return status;
	}
	read_field(leader, task, group_leader);
	read_field(status, (struct task_struct___process *)leader, exit_code);
	return status;
}

/* The current thread ends; tells so if it is its process' last, or one of several that end at once and find that none is left.
 *
 * With a filter that follows children, forget_exit runs after this on each thread's CPU, and may find that none is left when
 * this did not: the process is then out of the filter before its end is told. So threads that are not the last leave a mark that
 * their process is wanted.
 */
static __always_inline int ended_thread(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	__u32 tgid = current_tgid(pid_tgid, 1);
	struct ended_key key = { .tgid = pid_tgid >> 32, .start_boot_ns = start_of(task) };
	struct process_counts *counted = own_counts();
	int wanted = task_wanted(tgid, 1);
	struct signal_struct *signal = 0;
	struct exit_event *event;
	int live = 1;
	__u8 set = 1;

	if (!counted)
		return 0;
	read_field(signal, task, signal);
	read_field(live, signal, live.counter);
	if (live || !wanted) {
		key.tgid |= WANTED;
		if (live) {
			if (wanted && filter_in_use)
				bpf_map_update_elem(&ended, &key, &set, BPF_ANY);
			return 0;
		}
		if (!filter_in_use || !bpf_map_lookup_elem(&ended, &key))
			return 0;
		key.tgid &= ~WANTED;
	}
	if (bpf_map_update_elem(&ended, &key, &set, BPF_NOEXIST))
		return 0;
	add_to(&counted->exits, 1);
	event = reserve_event(sizeof(*event));
	if (!event)
		return 0;
	fill_in_current(&event->process, EVENT_EXIT, tgid);
	event->status = status_of(task, (void *)signal);
	event->pad = 0;
	submit_event(event);
	return 0;
}

SEC("?raw_tp/sched_process_fork")
int fork_raw(__u64 *args)
{
	struct task_struct *child = (void *)args[1];
	int tid = 0, tgid = 0;
	char comm[16] = {};

	read_field(tid, child, pid);
	read_field(tgid, child, tgid);
	if (tid != tgid)
		return 0;
	read_field(comm, child, comm);
	return forked(task_tgid((void *)args[0]), task_tgid(child), start_of(child), comm);
}

SEC("?raw_tp/sched_process_exec")
int exec_raw(__u64 *args)
{
	struct linux_binprm *binprm = (void *)args[2];
	const char *path = 0;

	read_field(path, binprm, filename);
	return executed(path);
}

SEC("?raw_tp/sched_process_exit")
int exit_raw(__u64 *args)
{
	return ended_thread();
}

/* sched_process_fork has no flags, by which to tell a thread from a process. */
SEC("?tracepoint/task/task_newtask")
int fork_classic(struct newtask_tracepoint *task)
{
	__u32 parent = current_tgid(bpf_get_current_pid_tgid(), 1);
	char comm[16];

	if (task->clone_flags & CLONE_THREAD)
		return 0;
	__builtin_memcpy(comm, task->comm, sizeof(comm));
	return forked(parent, pid_ns ? 0 : task->pid, 0, comm);
}

SEC("?tracepoint/sched/sched_process_exec")
int exec_classic(struct exec_tracepoint *exec)
{
	return executed((void *)exec + (exec->path_place & 0xffff));
}

SEC("?tracepoint/sched/sched_process_exit")
int exit_classic(void *exit)
{
	return ended_thread();
}

char _license[] SEC("license") = "Dual MIT/GPL";
