/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A scheduler that schedules nobody: only threads of class SCHED_EXT would be its own. */
#include "helpers.h"

char LICENSE[] SEC("license") = "GPL";

struct sched_ext_ops {
	int (*init)(void);
	__u64 flags;
	char name[128];
};

__u64 initialized;

SEC("struct_ops.s/init")
int init(__u64 *ctx)
{
	__sync_fetch_and_add(&initialized, 1);
	return 0;
}

SEC(".struct_ops.link")
struct sched_ext_ops scheduler = {
	.init = (void *)init,
	.flags = 1 << 3, /* SCX_OPS_SWITCH_PARTIAL */
	.name = "bpf_loader",
};
