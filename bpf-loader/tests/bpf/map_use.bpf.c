/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What user space sets, programs see, and the other way round. */
#include "helpers.h"

#define BPF_MAP_TYPE_PERCPU_ARRAY 6
#define BPF_MAP_TYPE_STACK_TRACE 7
static long (*const get_stackid)(void *ctx, void *map, __u64 flags) = (void *)27;

char LICENSE[] SEC("license") = "GPL";

const volatile __u32 step = 3;
__u64 total = 100;
__u8 bytes[3];
__u32 inner_value;
long stack_id;

struct inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__uint(key_size, 4);
	__array(values, struct inner);
} outer SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} per_cpu SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(max_entries, 64);
	__uint(key_size, 4);
	__uint(value_size, 8 * 64);
} stacks SEC(".maps");

SEC("raw_tp/sys_enter")
int use_maps(void *ctx)
{
	__u32 zero = 0, one = 1, *value;
	void *inner;

	total += step;
	bytes[1] = bytes[2] + 1;
	inner = bpf_map_lookup_elem(&outer, &one);
	if (inner) {
		value = bpf_map_lookup_elem(inner, &zero);
		if (value)
			inner_value = (*value)++;
	}
	value = bpf_map_lookup_elem(&per_cpu, &one);
	if (value)
		*value += 1;
	stack_id = get_stackid(ctx, &stacks, 0);
	return 0;
}
