/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* CPU profiler, as profile.bpf.c, for stacks of processes without frame pointers: see profile_walk.h. */
#include "profile_walk.h"

static __always_inline int begin(void *ctx, int kernel_types)
{
	struct sample sample = {};
	struct state *state;
	__u32 zero = 0;

	if (!begin_sample(&sample, kernel_types))
		return 0;
	state = bpf_map_lookup_elem(&states, &zero);
	if (sample.region && state)
		store_stacks(ctx, &sample, state, begin_walk(&state->walk, ctx, kernel_types));
	else
		sample.full = 1;
	count_by(&sample, &sample.key, 1);
	return 0;
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
	return walk_stage(ctx);
}

SEC("?perf_event")
int python_thread(void *ctx)
{
	return python_thread_stage(ctx);
}

SEC("?perf_event")
int python_frames(void *ctx)
{
	return python_frames_stage(ctx);
}

SEC("?perf_event")
int unwind_span(void *ctx)
{
	return span_stage(ctx);
}

SEC("?perf_event")
int unwind_count(void *ctx)
{
	struct sample sample = {};
	struct state *state;
	__u64 *stack;

	if (!resume(&sample, &state) || !room_for_stack(sample.region, &stack))
		return 0;
	if (!end_walk(&sample, state, stack, bpf_ktime_get_ns())) {
		count_by(&sample, &sample.key, 1);
		return 0;
	}
	sample.stat->samples++;
	if (sample.full)
		sample.stat->no_stack++;
	return 0;
}

char _license[] SEC("license") = "Dual MIT/GPL";
