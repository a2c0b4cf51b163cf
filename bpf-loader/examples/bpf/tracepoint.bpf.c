/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* How often each program starts, by its name. */
#include "helpers.h"

char LICENSE[] SEC("license") = "GPL";

struct name {
	char bytes[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct name);
	__type(value, __u64);
} starts SEC(".maps");

/* Starts of programs that found the table full. */
__u64 not_counted;

SEC("tracepoint/sched/sched_process_exec")
int count_start(void *ctx)
{
	struct name name = {};
	__u64 one = 1, *count;

	bpf_get_current_comm(&name, sizeof(name));
	count = bpf_map_lookup_elem(&starts, &name);
	if (count)
		__sync_fetch_and_add(count, 1);
	else if (bpf_map_update_elem(&starts, &name, &one, BPF_ANY))
		__sync_fetch_and_add(&not_counted, 1);
	return 0;
}
