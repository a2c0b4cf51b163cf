/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Congestion controls of TCP that count their runs. */
#include "helpers.h"

char LICENSE[] SEC("license") = "GPL";

struct sock;

/* The members that matter, of a name with a flavour, in another order than the kernel's. */
struct tcp_congestion_ops___test {
	char name[16];
	__u32 (*ssthresh)(struct sock *sk);
	__u32 (*undo_cwnd)(struct sock *sk);
	void (*cong_avoid)(struct sock *sk, __u32 ack, __u32 acked);
	__u32 flags;
	__u64 not_in_any_kernel;
};

__u64 plain_runs, first_runs, second_runs;

SEC("struct_ops/ssthresh")
__u32 ssthresh(__u64 *ctx)
{
	return 1 << 30;
}

SEC("struct_ops")
__u32 undo_cwnd(__u64 *ctx)
{
	return 10;
}

SEC("struct_ops/cong_avoid")
void plain_avoid(__u64 *ctx)
{
	__sync_fetch_and_add(&plain_runs, 1);
}

SEC("struct_ops/cong_avoid")
void first_avoid(__u64 *ctx)
{
	__sync_fetch_and_add(&first_runs, 1);
}

/* Named by a map, so loaded with it. */
SEC("?struct_ops/cong_avoid")
void second_avoid(__u64 *ctx)
{
	__sync_fetch_and_add(&second_runs, 1);
}

SEC("struct_ops/cong_avoid")
void named_by_none(__u64 *ctx)
{
}

SEC("struct_ops/nothing")
int of_no_kernel(__u64 *ctx)
{
	return 0;
}

SEC(".struct_ops")
struct tcp_congestion_ops___test plain = {
	.name = "bpf_plain",
	.ssthresh = (void *)ssthresh,
	.undo_cwnd = (void *)undo_cwnd,
	.cong_avoid = (void *)plain_avoid,
};

SEC(".struct_ops.link")
struct tcp_congestion_ops___test first = {
	.name = "bpf_linked",
	.ssthresh = (void *)ssthresh,
	.undo_cwnd = (void *)undo_cwnd,
	.cong_avoid = (void *)first_avoid,
};

SEC(".struct_ops.link")
struct tcp_congestion_ops___test second = {
	.name = "bpf_linked",
	.ssthresh = (void *)ssthresh,
	.undo_cwnd = (void *)undo_cwnd,
	.cong_avoid = (void *)second_avoid,
};

struct no_such_ops {
	int (*nothing)(void);
};

SEC("?.struct_ops")
struct no_such_ops optional = {
	.nothing = (void *)of_no_kernel,
};
