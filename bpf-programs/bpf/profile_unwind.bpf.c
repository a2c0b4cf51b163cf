/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* CPU profiler, as profile.bpf.c, for stacks of processes without frame pointers: see unwind.h.
 *
 * A sample goes through several programs, which call each other: one that begins it, one that walks some frames and calls itself, and one that
 * counts. What they hand on lies in `states`. A walk that misses a page is handed to user space with a piece of the stack, and
 * finished there.
 */
#include "profile.h"
#include "unwind.h"
#include "user_registers.h"

/* The stack is read in pieces that lie within pages: all of a piece or nothing, since it ends somewhere. */
#define PIECE_BYTES 1024
#define PIECES 17
#define SLICE_BYTES (PIECES * PIECE_BYTES)
/* What a function has taken from the stack may still be described below the stack pointer (the red zone). */
#define BELOW_BYTES 128

enum stage {
	STAGE_WALK = 0,
	STAGE_COUNT = 1,
	STAGES = 2,
};

struct state {
	struct walk walk;
	__u32 window;
	__u32 full;
	struct count_key key;
	char comm[16];
};

/* A sample whose walk is for user space to finish. */
struct missed {
	/* Its `user_stack` is 0. */
	struct count_key key;
	char comm[16];
	struct walk walk;
	__u32 window;
	/* How much of `slice` was read. */
	__u32 bytes;
	/* When, in the clock of bpf_ktime_get_ns(). */
	__u64 time;
	/* Frames that were found. */
	__u64 stack[MAX_FRAMES + 1];
	/* From the piece on that has what is BELOW_BYTES below the walk's stack pointer. */
	__u8 slice[SLICE_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct state);
} states SEC(".maps");

/* How the walks of a CPU have ended, by enum walk_end. */
struct walk_ends {
	__u64 counts[WALK_ENDS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_CPUS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct walk_ends);
} walk_ends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, STAGES);
	__uint(key_size, 4);
	__uint(value_size, 4);
} stages SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 65536);
} misses SEC(".maps");

const struct missed *describe_missed __attribute__((unused));

/* Set before loading: whether walks are made here at all, and not all of them in user space. */
const volatile __u32 walks_here = 1;

static __always_inline void count_end(__u32 cpu, __u32 end)
{
	struct walk_ends *ends = bpf_map_lookup_elem(&walk_ends, &cpu);

	if (ends && end < WALK_ENDS)
		ends->counts[end]++;
}

static __always_inline int begin(void *ctx, int kernel_types)
{
	struct sample sample = {};
	struct state *state;
	__u32 zero = 0;

	if (!begin_sample(&sample, kernel_types))
		return 0;
	state = bpf_map_lookup_elem(&states, &zero);
	if (!sample.region || !state) {
		sample.full = 1;
		count_sample(&sample);
		return 0;
	}
	sample.key.kernel_stack = store_stack(ctx, sample.region, sample.places, sample.cpu, 0, &sample.full);
	switch (begin_walk(&state->walk, ctx, kernel_types)) {
	case MODE_KERNEL:
		break;
	case MODE_USER:
		state->walk.tgid = sample.key.tgid;
		/* What cannot be seen from the agent's pid namespace has no tables. */
		if (state->walk.tgid) {
			__u64 *stack;

			if (!room_for_stack(sample.region, &stack)) {
				sample.full = 1;
				break;
			}
			state->walk.end = walks_here ? WALK_GOES_ON : WALK_MISSED;
			state->window = sample.window;
			state->full = sample.full;
			state->key = sample.key;
			__builtin_memcpy(state->comm, sample.first.comm, sizeof(state->comm));
			bpf_tail_call(ctx, &stages, walks_here ? STAGE_WALK : STAGE_COUNT);
		}
		/* Fallthrough: nothing has been called. */
	case MODE_COMPAT:
		count_end(sample.cpu, WALK_BY_KERNEL);
		sample.key.user_stack =
			store_stack(ctx, sample.region, sample.places, sample.cpu, BPF_F_USER_STACK, &sample.full);
	}
	count_sample(&sample);
	return 0;
}

/* Finds again what the first stage has found. */
static __always_inline int resume(struct sample *sample, struct state **state)
{
	__u32 zero = 0;

	*state = bpf_map_lookup_elem(&states, &zero);
	if (!*state)
		return 0;
	sample->cpu = bpf_get_smp_processor_id();
	sample->window = (*state)->window;
	sample->key = (*state)->key;
	sample->full = (*state)->full;
	__builtin_memcpy(sample->first.comm, (*state)->comm, sizeof(sample->first.comm));
	sample->stat = bpf_map_lookup_elem(&stats, &sample->cpu);
	return sample->stat && find_window(sample) && sample->region;
}

/* Hands a sample to user space; whether there was room. */
static __always_inline int tell_miss(struct state *state, const __u64 *stack)
{
	struct missed *missed = bpf_ringbuf_reserve(&misses, sizeof(*missed), 0);
	__u64 start = (state->walk.sp - BELOW_BYTES) & ~(__u64)(PIECE_BYTES - 1);
	__u32 bytes = 0;

	if (!missed)
		return 0;
	missed->key = state->key;
	__builtin_memcpy(missed->comm, state->comm, sizeof(missed->comm));
	missed->walk = state->walk;
	missed->window = state->window;
	missed->time = bpf_ktime_get_ns();
	bpf_probe_read_kernel(missed->stack, MAX_FRAMES * 8, stack);
#pragma clang loop unroll(disable)
	for (int i = 0; i < PIECES; i++) {
		/* Below the stack pointer there may be none yet: zeros. */
		if (bpf_probe_read_user(missed->slice + i * PIECE_BYTES, PIECE_BYTES,
					(const void *)(start + i * PIECE_BYTES)) &&
		    start + (i + 1) * PIECE_BYTES > state->walk.sp)
			break;
		bytes += PIECE_BYTES;
	}
	missed->bytes = bytes;
	/* At once: the ring holds a few. */
	bpf_ringbuf_submit(missed, BPF_RB_FORCE_WAKEUP);
	return 1;
}

SEC("?perf_event")
int unwind_begin(void *ctx)
{
	return begin(ctx, 0);
}

SEC("?perf_event")
int unwind_begin_by_kernel_types(void *ctx)
{
	return begin(ctx, 1);
}

SEC("?perf_event")
int unwind_walk(void *ctx)
{
	struct sample sample = {};
	struct state *state;
	__u64 *stack;

	if (!resume(&sample, &state) || !room_for_stack(sample.region, &stack))
		return 0;
	state->walk.end = walk_frames(&state->walk, stack + 1);
	if (state->walk.end == WALK_GOES_ON) {
		bpf_tail_call(ctx, &stages, STAGE_WALK);
		state->walk.end = WALK_DEPTH;
	}
	bpf_tail_call(ctx, &stages, STAGE_COUNT);
	return 0;
}

SEC("?perf_event")
int unwind_count(void *ctx)
{
	struct sample sample = {};
	struct state *state;
	__u64 *stack;

	if (!resume(&sample, &state) || !room_for_stack(sample.region, &stack))
		return 0;
	if (state->walk.end == WALK_MISSED) {
		if (tell_miss(state, stack + 1)) {
			count_end(sample.cpu, WALK_MISSED);
			sample.stat->samples++;
			if (sample.full)
				sample.stat->no_stack++;
			return 0;
		}
		state->walk.end = WALK_LOST;
		/* At least where it was. */
		if (state->walk.frames < MAX_FRAMES) {
			stack[1 + state->walk.frames] = state->walk.pc;
			state->walk.frames++;
		}
	}
	count_end(sample.cpu, state->walk.end);
	if (state->walk.frames)
		sample.key.user_stack = keep_stack(sample.region, stack, state->walk.frames, sample.places, sample.cpu,
						   hash_seed ^ BPF_F_USER_STACK, &sample.full);
	count_sample(&sample);
	return 0;
}

char _license[] SEC("license") = "Dual MIT/GPL";
