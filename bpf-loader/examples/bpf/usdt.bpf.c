/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* How often a probe was passed, and what its first argument was the last time. */
#include "usdt.h"

char LICENSE[] SEC("license") = "GPL";

__u64 passed;
__u64 first_argument;

SEC("usdt")
int on_probe(void *ctx)
{
	__sync_fetch_and_add(&passed, 1);
	usdt_arg(ctx, 0, &first_argument);
	return 0;
}
