/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A map that is declared as pinned, and a program whose section does not say where it goes. */
#include "helpers.h"

char LICENSE[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
	/* LIBBPF_PIN_BY_NAME */
	__uint(pinning, 1);
} declared SEC(".maps");

SEC("socket")
int look(void *ctx)
{
	__u32 key = 0;

	return !bpf_map_lookup_elem(&declared, &key);
}
