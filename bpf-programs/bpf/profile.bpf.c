/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* CPU profiler: counts stacks on a timer, those of processes by their frame pointers. */
#include "profile.h"

static __always_inline int sample(void *ctx, int kernel_types)
{
	struct sample sample = {};

	if (!begin_sample(&sample, kernel_types))
		return 0;
	if (sample.region) {
		sample.key.kernel_stack = store_stack(ctx, sample.region, sample.places, sample.cpu, 0, &sample.full);
		sample.key.user_stack =
			store_stack(ctx, sample.region, sample.places, sample.cpu, BPF_F_USER_STACK, &sample.full);
	} else {
		sample.full = 1;
	}
	count_by(&sample, &sample.key, 1);
	return 0;
}

/* Samples everything, processes by number, or a cgroup v2. */
SEC("?perf_event")
int profile(void *ctx)
{
	return sample(ctx, 0);
}

/* Samples by names or a cgroup v1 too, and from inside a pid namespace. */
SEC("?perf_event")
int profile_by_kernel_types(void *ctx)
{
	return sample(ctx, 1);
}

char _license[] SEC("license") = "Dual MIT/GPL";
