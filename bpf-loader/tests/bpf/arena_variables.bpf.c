/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Counts in a variable that lives in an arena. */
#include "helpers.h"

#define BPF_MAP_TYPE_ARENA 33
#define __arena __attribute__((address_space(1)))

char LICENSE[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_ARENA);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 4);
} arena SEC(".maps");

__u64 __arena before = 11;
__u64 __arena counter = 7;

SEC("syscall")
int count(void *ctx)
{
	/* The verifier knows the program's arena by its use. */
	void *used = &arena;

	asm volatile("" : "+r"(used));
	counter += before;
	return 0;
}
