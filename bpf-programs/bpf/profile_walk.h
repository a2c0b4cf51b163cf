/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Samples of stacks that are walked as unwind.h says.
 *
 * A sample goes through several programs, which call each other: one that begins it, one that walks some frames and calls itself, and one that
 * ends it. What they hand on lies in `states`. A walk that misses a page is handed to user space with a piece of the stack, and
 * finished there.
 */
#pragma once
#include "missed.h"
#include "profile.h"
#include "python.h"
#include "spans.h"
#include "user_registers.h"

enum stage {
	STAGE_WALK = 0,
	STAGE_COUNT = 1,
	/* Of processes that run CPython; there may be none. */
	STAGE_PYTHON_THREAD = 2,
	STAGE_PYTHON_FRAMES = 3,
	/* Of processes that say what span a thread works for. */
	STAGE_SPAN = 4,
	STAGES = 5,
};

struct state {
	struct walk walk;
	struct python_walk python;
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
	__u64 window;
	struct missed_walk at;
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

/* Goes on once all frames are known. */
static __always_inline void end_all_frames(void *ctx, struct state *state)
{
	if (bpf_map_lookup_elem(&span_places, &state->walk.tgid))
		bpf_tail_call(ctx, &stages, STAGE_SPAN);
	bpf_tail_call(ctx, &stages, STAGE_COUNT);
}

/* Goes on once the native frames are known. */
static __always_inline void end_frames(void *ctx, struct state *state)
{
	if (bpf_map_lookup_elem(&pythons, &state->walk.tgid)) {
		state->python.calls = 0;
		state->python.frame = 0;
		bpf_tail_call(ctx, &stages, STAGE_PYTHON_THREAD);
	}
	end_all_frames(ctx, state);
}

/* Stores the stacks of a sample that was begun; `mode` is what began its walk. Does not return where programs are called that walk the
 * stack of the process. */
static __always_inline void store_stacks(void *ctx, struct sample *sample, struct state *state, enum user_mode mode)
{
	__u64 *stack;

	sample->key.kernel_stack = store_stack(ctx, sample->region, sample->places, sample->cpu, 0, &sample->full);
	if (mode == MODE_KERNEL)
		return;
	state->walk.tgid = sample->key.tgid;
	/* What cannot be seen from the agent's pid namespace has no tables. */
	if (mode == MODE_USER && state->walk.tgid) {
		if (!room_for_stack(sample->region, &stack)) {
			sample->full = 1;
			return;
		}
		state->walk.end = walks_here ? WALK_GOES_ON : WALK_MISSED;
		state->window = sample->window;
		state->full = sample->full;
		state->key = sample->key;
		__builtin_memcpy(state->comm, sample->first.comm, sizeof(state->comm));
		if (walks_here)
			bpf_tail_call(ctx, &stages, STAGE_WALK);
		else
			end_frames(ctx, state);
		/* Nothing has been called. */
	}
	count_end(sample->cpu, WALK_BY_KERNEL);
	sample->key.user_stack =
		store_stack(ctx, sample->region, sample->places, sample->cpu, BPF_F_USER_STACK, &sample->full);
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

/* Hands a sample of that time to user space; whether there was room. */
static __always_inline int tell_miss(struct state *state, const __u64 *stack, __u64 time)
{
	struct missed *missed = bpf_ringbuf_reserve(&misses, sizeof(*missed), 0);

	if (!missed)
		return 0;
	missed->key = state->key;
	__builtin_memcpy(missed->comm, state->comm, sizeof(missed->comm));
	missed->window = state->window;
	copy_missed(&missed->at, &state->walk, stack, time);
	/* At once: the ring holds a few. */
	bpf_ringbuf_submit(missed, BPF_RB_FORCE_WAKEUP);
	return 1;
}

/* The stage that walks some frames. */
static __always_inline int walk_stage(void *ctx)
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
	end_frames(ctx, state);
	return 0;
}

/* The stage that finds the state of a thread of CPython. */
static __always_inline int python_thread_stage(void *ctx)
{
	__u32 zero = 0;
	struct state *state = bpf_map_lookup_elem(&states, &zero);
	const struct python *python;

	if (!state)
		return 0;
	python = bpf_map_lookup_elem(&pythons, &state->walk.tgid);
	if (python && find_python_thread(&state->python, python))
		bpf_tail_call(ctx, &stages, STAGE_PYTHON_THREAD);
	if (state->python.frame) {
		/* Of a stack that is too deep for both, the outermost native frames go. */
		if (state->walk.frames > MAX_FRAMES - LEAST_PYTHON_FRAMES) {
			state->walk.frames = MAX_FRAMES - LEAST_PYTHON_FRAMES;
			if (state->walk.end == WALK_WHOLE || state->walk.end == WALK_MISSED)
				state->walk.end = WALK_DEPTH;
		}
		bpf_tail_call(ctx, &stages, STAGE_PYTHON_FRAMES);
	}
	end_all_frames(ctx, state);
	return 0;
}

/* The stage that reads some frames of CPython. */
static __always_inline int python_frames_stage(void *ctx)
{
	struct sample sample = {};
	const struct python *python;
	struct state *state;
	__u64 *stack;

	if (!resume(&sample, &state) || !room_for_stack(sample.region, &stack))
		return 0;
	python = bpf_map_lookup_elem(&pythons, &state->walk.tgid);
	if (python && read_python_frames(&state->walk, &state->python, python, stack + 1))
		bpf_tail_call(ctx, &stages, STAGE_PYTHON_FRAMES);
	end_all_frames(ctx, state);
	return 0;
}

/* The stage that reads which span the thread works for. */
static __always_inline int span_stage(void *ctx)
{
	struct sample sample = {};
	struct state *state;
	__u64 *stack;

	if (!resume(&sample, &state) || !room_for_stack(sample.region, &stack))
		return 0;
	add_span(&state->walk, stack + 1);
	bpf_tail_call(ctx, &stages, STAGE_COUNT);
	return 0;
}

/* Ends a walk of that time: keeps its stack, or hands the sample to user space, which is true then. */
static __always_inline int end_walk(struct sample *sample, struct state *state, __u64 *stack, __u64 time)
{
	__u32 words;

	if (state->walk.end == WALK_MISSED) {
		if (tell_miss(state, stack + 1, time)) {
			count_end(sample->cpu, WALK_MISSED);
			return 1;
		}
		state->walk.end = WALK_LOST;
		/* At least where it was. */
		if (!state->walk.python && !state->walk.span && state->walk.frames < MAX_FRAMES) {
			stack[1 + state->walk.frames] = state->walk.pc;
			state->walk.frames++;
		}
	}
	count_end(sample->cpu, state->walk.end);
	words = state->walk.frames + state->walk.python + state->walk.span;
	if (words)
		sample->key.user_stack = keep_stack(sample->region, stack, words, sample->places, sample->cpu,
						    hash_seed ^ BPF_F_USER_STACK, &sample->full);
	return 0;
}
