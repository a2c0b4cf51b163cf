/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Writes its argument, and the half of it, to a ring and to a perf buffer, and discards a record of the ring. */
#include "helpers.h"

char LICENSE[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

struct {
	__uint(type, 4 /* BPF_MAP_TYPE_PERF_EVENT_ARRAY */);
	__uint(key_size, 4);
	__uint(value_size, 4);
} events SEC(".maps");

static long (*const perf_event_output)(void *ctx, void *map, __u64 flags, void *data, __u64 size) = (void *)25;
static void *(*const ringbuf_reserve)(void *ring, __u64 size, __u64 flags) = (void *)131;
static void (*const ringbuf_discard)(void *data, __u64 flags) = (void *)133;

SEC("raw_tp/sys_enter")
int write_records(__u64 *ctx)
{
	struct {
		__u64 argument;
		__u32 half;
	} __attribute__((packed)) record = { ctx[0], ctx[0] / 2 };
	void *discarded;

	bpf_ringbuf_output(&ring, &record, sizeof(record), 0);
	discarded = ringbuf_reserve(&ring, 8, 0);
	if (discarded)
		ringbuf_discard(discarded, 0);
	perf_event_output(ctx, &events, 0xffffffffULL, &record, sizeof(record));
	return 0;
}
