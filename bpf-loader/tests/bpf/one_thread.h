/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Counting runs in one thread: the test sets `wanted` to its own before it loads. */
#pragma once
#include "helpers.h"

char LICENSE[] SEC("license") = "GPL";

__u32 wanted;
__u64 hits;
__u64 cookie;

static __always_inline int count(void)
{
	if ((__u32)bpf_get_current_pid_tgid() != wanted)
		return 0;
	__sync_fetch_and_add(&hits, 1);
	return 1;
}

static __always_inline int count_with_cookie(void *ctx)
{
	if (count())
		cookie = bpf_get_attach_cookie(ctx);
	return 0;
}
