/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Doubles a number in an arena, at the address that user space has it at. */
#include "helpers.h"

#define BPF_MAP_TYPE_ARENA 33
#define __arena __attribute__((address_space(1)))

char LICENSE[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_ARENA);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 4);
} arena SEC(".maps");

struct place {
	__u64 __arena *number;
};

SEC("syscall")
int twice(struct place *ctx)
{
	/* The verifier knows the program's arena by its use. */
	void *used = &arena;

	asm volatile("" : "+r"(used));
	*ctx->number *= 2;
	return 0;
}
