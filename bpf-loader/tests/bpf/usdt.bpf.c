/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Probes that a program brings with it, and their arguments. */
#include "one_thread.h"
#include "usdt.h"

__u64 arg_count, first, second, third, fourth, missing;

static __always_inline int record(void *ctx)
{
	if (!count())
		return 0;
	cookie = usdt_cookie(ctx);
	arg_count = usdt_arg_count(ctx);
	usdt_arg(ctx, 0, &first);
	usdt_arg(ctx, 1, &second);
	usdt_arg(ctx, 2, &third);
	usdt_arg(ctx, 3, &fourth);
	missing = usdt_arg(ctx, arg_count, &missing);
	return 0;
}

SEC("usdt")
int on_usdt(void *ctx)
{
	return record(ctx);
}

SEC("usdt//proc/self/exe:ebpf_otlp_test:counted")
int on_usdt_by_section(void *ctx)
{
	return record(ctx);
}

SEC("usdt.s//proc/self/exe:ebpf_otlp_test:counted")
int on_usdt_sleepable(void *ctx)
{
	return record(ctx);
}
