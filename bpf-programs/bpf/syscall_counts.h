/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Counts of calls: cells of each CPU, and the table that all share. See syscalls.bpf.c. */
#pragma once
#include "add.h"
#include "syscall_maps.h"

/* Adds to the window's table, which all CPUs share. */
static __always_inline void add_to_table(__u32 window, const struct cell_key *key, const struct cell_count *add)
{
	void *table = bpf_map_lookup_elem(&counts, &window);
	struct cell_count *count;
	struct cpu_state *state;

	if (!table)
		return;
	count = bpf_map_lookup_elem(table, key);
	if (!count) {
		if (!bpf_map_update_elem(table, key, add, BPF_NOEXIST))
			return;
		/* Another CPU was faster, or it is full. */
		count = bpf_map_lookup_elem(table, key);
		if (!count) {
			state = cpu_state(bpf_get_smp_processor_id());
			if (state)
				add_to(&state->table_full, add->calls);
			return;
		}
	}
	add_to(&count->calls, add->calls);
	add_to(&count->weight, add->weight);
	add_to(&count->sum_ns, add->sum_ns);
}

/* Counts a call in the table, without a CPU's cells. */
static __always_inline void count_in_table(__u32 tgid, __u32 what, __u32 weight, __u64 sum_ns)
{
	struct cell_key key = { .tgid = tgid, .what = what };
	struct cell_count one = { .calls = 1, .weight = weight, .sum_ns = sum_ns };

	bpf_get_current_comm(one.comm, sizeof(one.comm));
	add_to_table(active & 1, &key, &one);
}

/* Counts a call in this CPU's cells. Only for the program that sees calls return. */
static __always_inline void count_return(__u32 cpu, __u32 tgid, __u32 what, __u32 weight, __u64 sum_ns)
{
	__u32 window = active & 1, at = window * cpus + cpu;
	struct cells *own = cpu < cpus ? bpf_map_lookup_elem(&cells, &at) : 0;
	struct cell *cell;

	if (!own) {
		count_in_table(tgid, what, weight, sum_ns);
		return;
	}
	cell = &own->cells[(tgid * 0x9e3779b1 ^ what * 0x85ebca6b) >> 26 & (CELLS - 1)];
	if (cell->key.tgid != tgid || cell->key.what != what) {
		if (cell->count.calls)
			add_to_table(window, &cell->key, &cell->count);
		cell->key.tgid = tgid;
		cell->key.what = what;
		cell->count.calls = 0;
		cell->count.weight = 0;
		cell->count.sum_ns = 0;
		bpf_get_current_comm(cell->count.comm, sizeof(cell->count.comm));
	}
	cell->count.calls++;
	cell->count.weight += weight;
	cell->count.sum_ns += sum_ns;
}
