/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Programs that the verifier refuses, each for another reason, and one that it takes: what their logs look like on
 * each kernel is recorded in tests/fixtures. */
#include "helpers.h"

char LICENSE[] SEC("license") = "GPL";

#define __noinline __attribute__((noinline))

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} values SEC(".maps");

/* No kernel has the first of these members. */
struct task_struct {
	int no_such_member;
	int pid;
} __attribute__((preserve_access_index));

SEC("socket")
int accepted(void *ctx)
{
	__u32 key = 0;
	__u64 *value = bpf_map_lookup_elem(&values, &key);

	return value ? (int)*value : 0;
}

SEC("socket")
int unchecked_pointer(void *ctx)
{
	__u32 key = bpf_get_prandom_u32();
	__u64 *value = bpf_map_lookup_elem(&values, &key);

	/* Null if the key is not there. */
	return (int)*value;
}

SEC("socket")
int past_the_value(void *ctx)
{
	__u32 key = bpf_get_prandom_u32();
	__u64 *value = bpf_map_lookup_elem(&values, &key);

	if (!value)
		return 0;
	return (int)value[key & 7];
}

SEC("socket")
int past_the_stack(void *ctx)
{
	volatile __u64 words[4] = {};
	__u64 at = bpf_get_prandom_u32();

	return (int)words[at];
}

static __noinline int callee(__u64 *value)
{
	return (int)value[3];
}

SEC("socket")
int in_a_function(void *ctx)
{
	__u32 key = 1;
	__u64 *value = bpf_map_lookup_elem(&values, &key);

	if (!value)
		return 0;
	return callee(value) + 1;
}

/* Checked by itself, whatever its callers pass. */
__noinline int global_callee(__u64 *value)
{
	return value ? (int)value[9] : 0;
}

SEC("socket")
int in_a_global_function(void *ctx)
{
	__u64 value = 5;

	return global_callee(&value);
}

SEC("socket")
__attribute__((naked)) int endless_loop(void *ctx)
{
	asm volatile("r0 = 0\n"
		     "again: if r0 != 1 goto again\n"
		     "exit");
}

SEC("socket")
int many_branches(void *ctx)
{
	__u32 key = 0;
	__u64 sum = 0;
	__u64 *value = bpf_map_lookup_elem(&values, &key);

	if (!value)
		return 0;
#pragma unroll
	for (int i = 0; i < 6; i++)
		if (*(volatile __u64 *)value & 1ULL << i)
			sum += bpf_get_prandom_u32();
	return (int)value[sum];
}

SEC("socket")
__attribute__((naked)) int no_result(void *ctx)
{
	asm volatile("exit");
}

SEC("raw_tp/sys_enter")
int missing_field(void *ctx)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	int found = 0;

	read_field(found, task, no_such_member);
	return found;
}

/* What stands in the place of a kernel function that is missing, and of a map that is. */
SEC("raw_tp/sys_enter")
__attribute__((naked)) int missing_function(void *ctx)
{
	asm volatile("call 2002000003\n"
		     "exit");
}

SEC("raw_tp/sys_enter")
__attribute__((naked)) int missing_map(void *ctx)
{
	asm volatile("call 2001000002\n"
		     "exit");
}

/* A helper that this program type may not call: bpf_skb_load_bytes. */
SEC("raw_tp/sys_enter")
__attribute__((naked)) int forbidden_helper(void *ctx)
{
	asm volatile("call 26\n"
		     "exit");
}
