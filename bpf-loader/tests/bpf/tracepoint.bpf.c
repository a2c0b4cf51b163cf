/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Counts its runs, in one thread alone. */
#include "helpers.h"

char LICENSE[] SEC("license") = "GPL";

__u32 wanted;
__u64 runs;

SEC("raw_tp/sys_enter")
int raw_tracepoint(void *ctx)
{
	if ((__u32)bpf_get_current_pid_tgid() == wanted)
		__sync_fetch_and_add(&runs, 1);
	return 0;
}
