/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A record for each process that ends. */
#include "helpers.h"

char LICENSE[] SEC("license") = "GPL";

struct end {
	__u32 pid;
	__u32 tid;
	char name[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} ends SEC(".maps");

/* Records that found the ring full. */
__u64 lost;

SEC("tp_btf/sched_process_exit")
int on_exit(void *ctx)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	struct end end = { .pid = pid_tgid >> 32, .tid = pid_tgid };

	/* Of a process's threads, the one that is named after it. */
	if (end.pid != end.tid)
		return 0;
	bpf_get_current_comm(end.name, sizeof(end.name));
	if (bpf_ringbuf_output(&ends, &end, sizeof(end), 0))
		__sync_fetch_and_add(&lost, 1);
	return 0;
}
