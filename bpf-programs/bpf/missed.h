/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Walks that have missed a page, as user space gets them: with a piece of the stack, by which it goes on. */
#pragma once
#include "unwind.h"

/* The stack is read in pieces that lie within pages: all of a piece or nothing, since it ends somewhere. */
#define PIECE_BYTES 1024
#define PIECES 17
#define SLICE_BYTES (PIECES * PIECE_BYTES)
/* What a function has taken from the stack may still be described below the stack pointer (the red zone). */
#define BELOW_BYTES 128

/* Behind the frames may stand what else a stack is known by (spans.h). */
#define MISSED_WORDS (MAX_WALK_FRAMES + 4)

struct missed_walk {
	struct walk walk;
	/* When, in the clock of bpf_ktime_get_ns(). */
	__u64 time;
	/* How much of `slice` was read. */
	__u64 bytes;
	/* Frames that were found, and what stands behind them. */
	__u64 stack[MISSED_WORDS];
	/* From the piece on that has what is BELOW_BYTES below the walk's stack pointer. */
	__u8 slice[SLICE_BYTES];
};

/* `stack` has as many words as `missed->stack`, though not all of them say anything. */
static __always_inline void copy_missed(struct missed_walk *missed, const struct walk *walk, const __u64 *stack, __u64 time)
{
	__u64 start = (walk->sp - BELOW_BYTES) & ~(__u64)(PIECE_BYTES - 1);
	__u32 bytes = 0;

	missed->walk = *walk;
	missed->time = time;
	bpf_probe_read_kernel(missed->stack, sizeof(missed->stack), stack);
#pragma clang loop unroll(disable)
	for (int i = 0; i < PIECES; i++) {
		/* Below the stack pointer there may be none yet: zeros. */
		if (bpf_probe_read_user(missed->slice + i * PIECE_BYTES, PIECE_BYTES,
					(const void *)(start + i * PIECE_BYTES)) &&
		    start + (i + 1) * PIECE_BYTES > walk->sp)
			break;
		bytes += PIECE_BYTES;
	}
	missed->bytes = bytes;
}
