/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Beginnings of calls, by thread. See syscalls.bpf.c. */
#pragma once
#include "syscall_maps.h"

/* Threads that are started one after the other have places that are far apart, for CPUs not to share cache lines. */
static __always_inline struct start *start_of(__u32 tid)
{
	__u32 at = (tid & 63) << 6 | (tid >> 6 & 63);

	return bpf_map_lookup_elem(&starts, &at);
}

static __always_inline __u64 owner_of(__u32 tid)
{
	return (__u64)(tid >> 12) << TIME_BITS;
}

static __always_inline void keep_start(__u32 tid, __u32 cpu, __u64 now, __u32 weight)
{
	struct start *start = start_of(tid);
	struct other_start other = { .boot_ns = now, .weight = weight };
	struct cpu_state *state;
	__u64 word;

	if (!start)
		return;
	word = start->word;
	if (!word || (word ^ owner_of(tid)) <= TIME_MASK) {
		start->weight = weight;
		start->word = owner_of(tid) | (now & TIME_MASK);
		return;
	}
	if (!bpf_map_update_elem(&more_starts, &tid, &other, BPF_NOEXIST)) {
		__sync_fetch_and_add(&start->elsewhere, 1);
		return;
	}
	if (bpf_map_update_elem(&more_starts, &tid, &other, BPF_ANY)) {
		state = cpu_state(cpu);
		if (state)
			__sync_fetch_and_add(&state->starts_full, 1);
	}
}

/* Takes the beginning of the thread's call. 0: there is none. */
static __always_inline __u64 take_start(__u32 tid, __u32 *weight)
{
	struct start *start = start_of(tid);
	struct other_start *other;
	__u64 word, boot_ns;

	if (!start)
		return 0;
	word = start->word;
	if (word && (word ^ owner_of(tid)) <= TIME_MASK) {
		*weight = start->weight;
		start->word = 0;
		return word;
	}
	if (!start->elsewhere)
		return 0;
	other = bpf_map_lookup_elem(&more_starts, &tid);
	if (!other)
		return 0;
	*weight = other->weight;
	boot_ns = other->boot_ns;
	bpf_map_delete_elem(&more_starts, &tid);
	__sync_fetch_and_add(&start->elsewhere, -1);
	return boot_ns;
}
