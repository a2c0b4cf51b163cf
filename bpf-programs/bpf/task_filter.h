/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Which tasks a program looks at, and under which number. The same for every program; user space sets it through
 * collector's TaskFilter, and may change it while programs run: there are two filters, and `filter_in_use` says which counts.
 *
 * `kernel_types` is a constant everywhere: where it is 0, nothing depends on where this kernel has its fields, and the
 * kernel's BTF need not even be looked at. Conditions on names and on cgroup v1, and pid namespaces, need it.
 */
#pragma once
#include "add.h"
#include "kernel_types.h"

#define MAX_PID_NS_LEVEL 32
#define MAX_CGROUP_DEPTH 32
#define MAX_CGROUP_SUBSYS 16
/* As many as a filter may name; user space makes room for more where children are followed. */
#define MAX_PIDS 1024

#define FILTER_PIDS (1 << 0)
#define FILTER_COMM (1 << 1)
#define FILTER_CGROUP_V2 (1 << 2)
#define FILTER_CGROUP_V1 (1 << 3)

struct task_filter {
	/* FILTER_*: all that are set must hold. */
	__u32 conditions;
	__s32 cgroup_v1_hierarchy;
	/* kernfs id of a cgroup v1 directory, and above the number of its hierarchy: ids are unique within one. */
	__u64 cgroup_v1_id;
	char comm[16];
};

/* Processes, by their number in the agent's pid namespace. Bit n of the value: whether filter n has it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_PIDS);
	__type(key, __u32);
	__type(value, __u8);
} pids SEC(".maps");

/* The cgroup v2 of each filter. */
struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__uint(max_entries, 2);
	__uint(key_size, 4);
	__uint(value_size, 4);
} cgroups SEC(".maps");

volatile struct task_filter filters[2] = {};
/* 0: everything passes; 1 or 2: the first or the second filter counts. */
volatile __u32 filter_in_use = 0;
/* Children that found no room in `pids`. */
volatile __u64 children_lost = 0;

/* Inode number of the agent's pid namespace if it is not the initial one; 0 if it is. */
const volatile __u32 pid_ns = 0;

/* A process' or thread's number in the agent's pid namespace; 0 if it cannot be seen from there. */
static __always_inline __u32 number_in_ns(struct task_struct *task)
{
	struct pid *pid = 0;
	__u32 level = 0;

	read_field(pid, task, thread_pid);
	read_field(level, pid, level);
	for (int i = 0; i < MAX_PID_NS_LEVEL; i++) {
		struct pid_namespace *ns = 0;
		__u32 inum = 0;
		int nr = 0;

		if (i > level)
			break;
		read_field(ns, pid, numbers[i].ns);
		read_field(inum, ns, ns.inum);
		if (inum == pid_ns) {
			read_field(nr, pid, numbers[i].nr);
			return nr;
		}
	}
	return 0;
}

/* The number of a task's process. */
static __always_inline __u32 task_tgid(struct task_struct *task)
{
	struct task_struct *leader = 0;
	int tgid = 0;

	if (pid_ns) {
		read_field(leader, task, group_leader);
		return number_in_ns(leader);
	}
	read_field(tgid, task, tgid);
	return tgid;
}

/* The number of the current thread. `pid_tgid` is bpf_get_current_pid_tgid()'s, as in the next two. */
static __always_inline __u32 current_number(__u64 pid_tgid, int kernel_types)
{
	if (kernel_types && pid_ns)
		return number_in_ns((void *)bpf_get_current_task());
	return pid_tgid;
}

/* The number of the current process. */
static __always_inline __u32 current_tgid(__u64 pid_tgid, int kernel_types)
{
	if (kernel_types && pid_ns)
		return task_tgid((void *)bpf_get_current_task());
	return pid_tgid >> 32;
}

/* Whether a name, which zeros follow, is the wanted one. By words: the verifier would follow each character's way out of a loop on its own. */
static __always_inline int same_comm(const __u64 name[2], const volatile struct task_filter *filter)
{
	const volatile __u64 *wanted = (const volatile __u64 *)filter->comm;

	return name[0] == wanted[0] && name[1] == wanted[1];
}

/* Whether a task has the wanted name. */
static __always_inline int task_has_comm(struct task_struct *task, const volatile struct task_filter *filter)
{
	__u64 name[2] = {};

	/* As a string: what an earlier, longer name left stands behind the end. */
	bpf_probe_read_kernel_str(name, sizeof(name), __builtin_preserve_access_index(&task->comm));
	return same_comm(name, filter);
}

/* The current thread's own name, or its process'. */
static __always_inline int comm_wanted(const volatile struct task_filter *filter)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct task_struct *leader = 0;
	__u64 name[2] = {};

	bpf_get_current_comm(name, sizeof(name));
	if (same_comm(name, filter))
		return 1;
	read_field(leader, task, group_leader);
	return task_has_comm(leader, filter);
}

static __always_inline int hierarchy_of(struct cgroup_subsys_state *css)
{
	struct cgroup *group = 0;
	struct cgroup_root *root = 0;
	int hierarchy = -1;

	read_field(group, css, cgroup);
	read_field(root, group, root);
	read_field(hierarchy, root, hierarchy_id);
	return hierarchy;
}

/* The state of a task in the cgroup v1 hierarchy of that number; 0 if it has none. */
static __always_inline struct cgroup_subsys_state *state_in_v1(struct task_struct *task, __s32 hierarchy)
{
	struct css_set *set = 0;

	read_field(set, task, cgroups);
	for (int i = 0; i < MAX_CGROUP_SUBSYS; i++) {
		struct cgroup_subsys_state *state = 0;

		if (i * field_size(set, subsys[0]) >= field_size(set, subsys))
			break;
		read_pointer_at(state, __builtin_preserve_access_index(&set->subsys), i, field_size(set, subsys[0]));
		if (hierarchy_of(state) == hierarchy)
			return state;
	}
	return 0;
}

/* Whether a state is of the directory of that number or one below it. */
static __always_inline int is_below(struct cgroup_subsys_state *state, __u64 wanted)
{
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

/* Whether the current task is in the cgroup v1 directory or below it. */
static __always_inline int in_cgroup_v1(const volatile struct task_filter *filter)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	return is_below(state_in_v1(task, filter->cgroup_v1_hierarchy), filter->cgroup_v1_id);
}

/* Whether the current task, of the process `tgid`, passes the filter. */
static __always_inline int task_wanted(__u32 tgid, int kernel_types)
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
	if (conditions & FILTER_CGROUP_V2 && bpf_current_task_under_cgroup(&cgroups, number) != 1)
		return 0;
	if (kernel_types && conditions & FILTER_COMM && !comm_wanted(filter))
		return 0;
	return !(kernel_types && conditions & FILTER_CGROUP_V1) || in_cgroup_v1(filter);
}

/* With --children: a child of a wanted process is wanted too. */
SEC("?raw_tp/sched_process_fork")
int follow_fork(__u64 *args)
{
	__u32 parent = task_tgid((void *)args[0]);
	__u32 child = task_tgid((void *)args[1]);
	__u8 *in, copy;

	if (parent == child)
		return 0;
	in = bpf_map_lookup_elem(&pids, &parent);
	if (!in)
		return 0;
	copy = *in;
	if (bpf_map_update_elem(&pids, &child, &copy, BPF_ANY))
		add_to(&children_lost, 1);
	return 0;
}

/* Numbers are used again, so a process that is gone must not leave its own behind. */
SEC("?raw_tp/sched_process_exit")
int forget_exit(__u64 *args)
{
	struct task_struct *task = (void *)args[0];
	struct signal_struct *signal = 0;
	int live = 1;
	__u32 tgid;

	read_field(signal, task, signal);
	read_field(live, signal, live.counter);
	if (live == 0) {
		tgid = task_tgid(task);
		bpf_map_delete_elem(&pids, &tgid);
	}
	return 0;
}
