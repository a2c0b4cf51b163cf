/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* As task_filter.h, of any task. */
#pragma once
#include "task_filter.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct cgroup___self {
	struct cgroup_subsys_state self;
};

struct css_set___v2 {
	struct cgroup *dfl_cgrp;
};

#pragma clang attribute pop

/* The state of a task in the hierarchy of that number, 0 being v2's; 0 if it has none. */
static __always_inline struct cgroup_subsys_state *state_in(struct task_struct *task, __s32 hierarchy)
{
	struct cgroup_subsys_state *state = 0;
	struct css_set *set = 0;
	void *group = 0;

	read_field(set, task, cgroups);
	if (!hierarchy) {
		read_field(group, (struct css_set___v2 *)set, dfl_cgrp);
		return group + field_offset(((struct cgroup___self *)group), self);
	}
	for (int i = 0; i < MAX_CGROUP_SUBSYS; i++) {
		if (i * field_size(set, subsys[0]) >= field_size(set, subsys))
			break;
		read_pointer_at(state, __builtin_preserve_access_index(&set->subsys), i, field_size(set, subsys[0]));
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

/* Whether the filter in use, of that number, lets a process pass by its number. */
static __always_inline int process_wanted(__u32 number, __u32 tgid)
{
	__u8 *in;

	if (!number || !(filters[(number - 1) & 1].conditions & FILTER_PIDS))
		return 1;
	in = bpf_map_lookup_elem(&pids, &tgid);
	return in && *in & (1 << ((number - 1) & 1));
}

/* As task_wanted(), of any task. */
static __always_inline int other_task_wanted(struct task_struct *task, struct task_struct *leader, __u32 tgid)
{
	__u32 number = filter_in_use;
	const volatile struct task_filter *filter;
	__u32 conditions;

	if (!number)
		return 1;
	if (!process_wanted(number, tgid))
		return 0;
	filter = &filters[(number - 1) & 1];
	conditions = filter->conditions;
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
