/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Replaces and traces functions of another program. */
#include "helpers.h"

char LICENSE[] SEC("license") = "GPL";

struct __sk_buff {
	__u32 len;
};

__u64 traced_runs;

SEC("freplace/tens")
int replacement(struct __sk_buff *skb)
{
	return 70;
}

SEC("?fentry/units")
int traced(__u64 *ctx)
{
	__sync_fetch_and_add(&traced_runs, 1);
	return 0;
}
