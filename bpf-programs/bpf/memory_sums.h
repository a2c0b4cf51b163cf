/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the memory tracer sums up by process, and what found no room. */
#pragma once
#include "add.h"
#include "task_filter.h"

/* Defaults; user space sizes the maps before they are created. */
#define MAX_SUMS 4096
#define MAX_ENDED 8192
/* Threads that stall in reclaim, or are in a call that maps, at once. */
#define MAX_STALLED 1024

#define WINDOWS 2

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

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct memory_stats);
} memory_stats SEC(".maps");

/* Clang describes in BTF only what it sees used. */
const struct sum_key *describe_sum_key __attribute__((unused));
const struct sum *describe_sum __attribute__((unused));

/* Which window is being filled. */
volatile __u32 active = 0;

/* Programs may be interrupted by others on their CPU, so counting needs atomics even there. */
#define COUNT(field)                                                                  \
	({                                                                            \
		__u32 zero = 0;                                                       \
		struct memory_stats *stats = bpf_map_lookup_elem(&memory_stats, &zero); \
		if (stats)                                                            \
			add_to(&stats->field, 1);                       \
	})

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
	add_to(&sum->count, 1);
	add_to(&sum->total, amount);
}
