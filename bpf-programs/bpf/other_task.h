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

/* Whether a task is in the cgroup directory of that number or below it, in the hierarchy of that number, 0 being v2's. */
static __always_inline int in_cgroup(struct task_struct *task, __s32 hierarchy, __u64 wanted)
{
	struct cgroup_subsys_state *state;
	struct css_set *set = 0;
	void *group = 0;

	if (hierarchy) {
		state = state_in_v1(task, hierarchy);
	} else {
		read_field(set, task, cgroups);
		read_field(group, (struct css_set___v2 *)set, dfl_cgrp);
		state = group + field_offset(((struct cgroup___self *)group), self);
	}
	return is_below(state, wanted);
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
	if (conditions & FILTER_COMM && !task_has_comm(task, filter) && !task_has_comm(leader, filter))
		return 0;
	/* User space sets number and hierarchy of a v2 directory too. */
	return !(conditions & (FILTER_CGROUP_V1 | FILTER_CGROUP_V2)) ||
	       in_cgroup(task, filter->cgroup_v1_hierarchy, filter->cgroup_v1_id);
}
