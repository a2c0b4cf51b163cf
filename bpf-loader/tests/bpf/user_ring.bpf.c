/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Drains a user ring buffer: counts the records, and adds up their first words. */
#include "helpers.h"

#define BPF_MAP_TYPE_USER_RINGBUF 31
struct dynptr {
	__u64 opaque[2];
} __attribute__((aligned(8)));
static long (*const dynptr_read)(void *dst, __u32 len, const struct dynptr *src, __u32 offset, __u64 flags) =
	(void *)201;
static long (*const user_ringbuf_drain)(void *map, void *callback, void *ctx, __u64 flags) = (void *)209;

char LICENSE[] SEC("license") = "GPL";

__u64 records, sum;
long drained;

struct {
	__uint(type, BPF_MAP_TYPE_USER_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

static long record(struct dynptr *data, void *ctx)
{
	__u32 word;

	records++;
	if (dynptr_read(&word, sizeof(word), data, 0, 0) == 0)
		sum += word;
	return 0;
}

SEC("syscall")
int drain(void *ctx)
{
	drained = user_ringbuf_drain(&ring, record, 0, 0);
	return 0;
}
