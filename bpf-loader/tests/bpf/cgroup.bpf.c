/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Programs on control groups, which all let things happen. */
#include "count.h"

char LICENSE[] SEC("license") = "GPL";

COUNT(skb, "cgroup/skb", 1)
COUNT(skb_ingress, "cgroup_skb/ingress", 1)
COUNT(skb_egress, "cgroup_skb/egress", 1)
COUNT(sock, "cgroup/sock", 1)
COUNT(sock_create, "cgroup/sock_create", 1)
COUNT(sock_release, "cgroup/sock_release", 1)
COUNT(post_bind4, "cgroup/post_bind4", 1)
COUNT(post_bind6, "cgroup/post_bind6", 1)
COUNT(bind4, "cgroup/bind4", 1)
COUNT(bind6, "cgroup/bind6", 1)
COUNT(connect4, "cgroup/connect4", 1)
COUNT(connect6, "cgroup/connect6", 1)
COUNT(connect_unix, "cgroup/connect_unix", 1)
COUNT(sendmsg4, "cgroup/sendmsg4", 1)
COUNT(sendmsg6, "cgroup/sendmsg6", 1)
COUNT(sendmsg_unix, "cgroup/sendmsg_unix", 1)
COUNT(recvmsg4, "cgroup/recvmsg4", 1)
COUNT(recvmsg6, "cgroup/recvmsg6", 1)
COUNT(recvmsg_unix, "cgroup/recvmsg_unix", 1)
COUNT(getpeername4, "cgroup/getpeername4", 1)
COUNT(getpeername6, "cgroup/getpeername6", 1)
COUNT(getpeername_unix, "cgroup/getpeername_unix", 1)
COUNT(getsockname4, "cgroup/getsockname4", 1)
COUNT(getsockname6, "cgroup/getsockname6", 1)
COUNT(getsockname_unix, "cgroup/getsockname_unix", 1)
COUNT(sysctl, "cgroup/sysctl", 1)
COUNT(getsockopt, "cgroup/getsockopt", 1)
COUNT(setsockopt, "cgroup/setsockopt", 1)
COUNT(dev, "cgroup/dev", 1)

/* include/uapi/linux/bpf.h */
enum { BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB = 4, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB = 5 };

struct bpf_sock_ops {
	__u32 op;
};

__u64 active_runs, passive_runs;

SEC("sockops")
int sock_ops(struct bpf_sock_ops *ctx)
{
	if (ctx->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
		__sync_fetch_and_add(&active_runs, 1);
	if (ctx->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		__sync_fetch_and_add(&passive_runs, 1);
	return 1;
}

__u64 order;

NOTE_ORDER(first, "cgroup/bind4", 1, 1)
NOTE_ORDER(second, "cgroup/bind4", 2, 1)
NOTE_ORDER(third, "cgroup/bind4", 3, 1)

/* Forbids. */
COUNT(no_bind4, "cgroup/bind4", 0)
