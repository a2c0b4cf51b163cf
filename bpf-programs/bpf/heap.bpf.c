/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Heap of one process, whose stacks are walked by frame pointers. */
#define MAX_FRAMES 64
#define WALK_STATE

#include "helpers.h"

/* Set before loading: on which architecture this runs. */
const volatile __u32 on_arm64 = 0;

#include "heap.h"

/* The walk is the kernel's by frame pointers (perf_callchain_user), done here: bpf_get_stack takes three times as long, as it
 * has more to prepare. It ends at what cannot be a return address. */
static __always_inline void count_by_stack(void *regs, struct thread *thread, struct heap_stats *stats)
{
	struct stack *new = &thread->stack;
	__u64 frame = REGISTER(regs, 4, 29), hash;
	/* Of the frame: its caller's frame, and where that goes on. */
	__u64 words[2] = {};

	new->frames[1] = INSTRUCTION(regs);
	new->frame_count = 2;
	hash = mix(mix(hash_seed, new->frames[0]), new->frames[1]);
#pragma clang loop unroll(disable)
	for (int i = 2; i < MAX_FRAMES; i++) {
		if (!frame || frame & 7 || bpf_probe_read_user(words, sizeof(words), (void *)frame))
			break;
		/* Return addresses may be signed, above what an address needs. */
		if (on_arm64)
			words[1] &= (1ULL << 48) - 1;
		if (words[1] < MIN_CODE || words[1] >> 56)
			break;
		new->frames[i] = words[1];
		new->frame_count = i + 1;
		hash = mix(hash, words[1]);
		frame = words[0];
	}
	count_under(hash, thread, stats);
}
