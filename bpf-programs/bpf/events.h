/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The ring of a tracer's events. Records are committed without waking user space, which drains the ring on a timer: a
 * wake-up costs fifty times what a record does. Only past a fill threshold is user space woken.
 *
 * What was produced and what found no room is counted, so that produced = received + dropped at any time.
 */
#pragma once
#include "add.h"
#include "helpers.h"

/* Head of every record. */
struct event {
	/* What it is; each program numbers its own from 1. */
	__u32 kind;
	/* The process, by its number in the agent's pid namespace; 0 if there is none. */
	__u32 tgid;
	/* bpf_ktime_get_boot_ns(). */
	__u64 boot_ns;
};

struct event_stats {
	__u64 produced;
	/* Of these, what found no room in the ring. */
	__u64 dropped;
};

/* Its size is set by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 65536);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct event_stats);
} event_stats SEC(".maps");

/* Bytes in the ring past which user space is woken. */
const volatile __u64 wake_threshold = 32768;

/* Clang describes in BTF only what it sees used. */
const struct event *describe_event __attribute__((unused));

/* Programs may be interrupted by others on their CPU, so counting needs atomics even there. */
static __always_inline void count_event(int dropped)
{
	__u32 zero = 0;
	struct event_stats *stats = bpf_map_lookup_elem(&event_stats, &zero);

	if (!stats)
		return;
	add_to(&stats->produced, 1);
	if (dropped)
		add_to(&stats->dropped, 1);
}

/* Room for a record, or 0 when the ring is full. Whoever gets room must submit it. */
static __always_inline void *reserve_event(__u64 size)
{
	void *event = bpf_ringbuf_reserve(&events, size, 0);

	count_event(!event);
	return event;
}

static __always_inline void submit_event(void *event)
{
	__u64 filled = bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA);

	bpf_ringbuf_submit(event, filled > wake_threshold ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
}
