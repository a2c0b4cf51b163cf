/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Iterators: what they write is read from a file. */
#include "count.h"

char LICENSE[] SEC("license") = "GPL";

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct bpf_iter_meta {
	void *seq;
};

struct task_struct {
	int pid;
	int tgid;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

struct bpf_iter__bpf_map_elem {
	struct bpf_iter_meta *meta;
	void *map;
	void *key;
	void *value;
};

struct bpf_iter__cgroup {
	struct bpf_iter_meta *meta;
	void *cgroup;
};

#pragma clang attribute pop

static __always_inline int write_thread(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;

	if (task) {
		int copy = task->pid;

		bpf_seq_write(ctx->meta->seq, &copy, sizeof(copy));
	}
	return 0;
}

/* The thread's id, 4 bytes for each. */
SEC("iter/task")
int iter_task(struct bpf_iter__task *ctx)
{
	return write_thread(ctx);
}

SEC("iter.s/task")
int iter_task_sleepable(struct bpf_iter__task *ctx)
{
	return write_thread(ctx);
}

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 3);
	__type(key, __u32);
	__type(value, __u64);
} numbers SEC(".maps");

/* The element's value, 8 bytes for each. */
SEC("iter/bpf_map_elem")
int iter_map(struct bpf_iter__bpf_map_elem *ctx)
{
	__u64 *value = ctx->value;

	if (value) {
		__u64 copy = *value;

		bpf_seq_write(ctx->meta->seq, &copy, sizeof(copy));
	}
	return 0;
}

/* A byte for each group. */
SEC("iter/cgroup")
int iter_cgroup(struct bpf_iter__cgroup *ctx)
{
	if (ctx->cgroup)
		bpf_seq_write(ctx->meta->seq, "g", 1);
	return 0;
}

/* Whatever there is of these is passed, and then the end. */
COUNT(iter_task_file, "iter/task_file", 0)
COUNT(iter_task_vma, "iter/task_vma", 0)
COUNT(iter_bpf_map, "iter/bpf_map", 0)
COUNT(iter_bpf_prog, "iter/bpf_prog", 0)
COUNT(iter_bpf_link, "iter/bpf_link", 0)
COUNT(iter_netlink, "iter/netlink", 0)
COUNT(iter_ipv6_route, "iter/ipv6_route", 0)
COUNT(iter_tcp, "iter/tcp", 0)
COUNT(iter_udp, "iter/udp", 0)
COUNT(iter_unix, "iter/unix", 0)
COUNT(iter_ksym, "iter/ksym", 0)
COUNT(iter_kmem_cache, "iter/kmem_cache", 0)
