/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Beginnings of calls, by thread. See syscalls.bpf.c.
 *
 * A thread takes a place by adding a claim: it has it if it then reads one alone, for of two that add, one at least reads more. This
 * needs no operation that kernels before 5.12 lack. It gives the place back when its call returns; where the return was missed,
 * it is still its own when the next call begins, and what is there is replaced or forgotten.
 */
#pragma once
#include "add.h"
#include "syscall_maps.h"

/* Threads that are started one after the other have places that are far apart, for CPUs not to share cache lines. */
static __always_inline struct start *start_of(__u32 tid)
{
	__u32 at = (tid & 63) << 6 | (tid >> 6 & 63);

	return bpf_map_lookup_elem(&starts, &at);
}

static __always_inline int is_of(__u64 word, __u32 tid)
{
	return word && (word ^ (__u64)(tid >> 12) << TIME_BITS) <= TIME_MASK;
}

/* Takes the beginning of the thread's last call. 0: there is none. */
static __always_inline __u64 take_start(__u32 tid, __u32 *call)
{
	struct start *start = start_of(tid);
	struct other_start *other;
	__u64 word, boot_ns;

	if (!start)
		return 0;
	word = start->word;
	if (is_of(word, tid)) {
		*call = start->call;
		start->word = 0;
		__sync_fetch_and_add(&start->threads, -CLAIM);
		return word;
	}
	if (start->threads < ELSEWHERE)
		return 0;
	other = bpf_map_lookup_elem(&more_starts, &tid);
	if (!other)
		return 0;
	*call = other->call;
	boot_ns = other->boot_ns;
	bpf_map_delete_elem(&more_starts, &tid);
	__sync_fetch_and_add(&start->threads, -ELSEWHERE);
	return boot_ns;
}

/* Keeps the beginning of a call, and forgets what is left of an earlier one. `call`: START_OF. */
static __always_inline void keep_start(__u32 tid, __u32 cpu, __u64 now, __u32 call)
{
	struct start *start = start_of(tid);
	struct other_start other = { .boot_ns = now, .call = call };
	struct cpu_state *state;
	__u64 word;

	if (!start)
		return;
	word = start->word;
	if (!word && !(start->threads & CLAIMS)) {
		__sync_fetch_and_add(&start->threads, CLAIM);
		if ((start->threads & CLAIMS) == CLAIM)
			goto ours;
		__sync_fetch_and_add(&start->threads, -CLAIM);
	} else if (is_of(word, tid)) {
		goto ours;
	}
	if (!bpf_map_update_elem(&more_starts, &tid, &other, BPF_NOEXIST)) {
		__sync_fetch_and_add(&start->threads, ELSEWHERE);
		return;
	}
	if (bpf_map_update_elem(&more_starts, &tid, &other, BPF_EXIST)) {
		state = cpu_state(cpu);
		if (state)
			add_to(&state->starts_full, 1);
	}
	return;
ours:
	/* What an earlier call of the thread left elsewhere, as its return was missed, must not be taken for this one's. */
	if (start->threads >= ELSEWHERE && !bpf_map_delete_elem(&more_starts, &tid))
		__sync_fetch_and_add(&start->threads, -ELSEWHERE);
	start->call = call;
	start->word = (__u64)(tid >> 12) << TIME_BITS | (now & TIME_MASK);
}
