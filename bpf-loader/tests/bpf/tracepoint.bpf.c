/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Tracepoints of each kind, at system calls. */
#include "one_thread.h"

SEC("tracepoint/syscalls/sys_enter_getppid")
int on_tracepoint(void *ctx)
{
	count();
	return 0;
}

SEC("tp")
int on_tracepoint_cookie(void *ctx)
{
	return count_with_cookie(ctx);
}

/* Linux gives the registers and the number of the call; getppid has another number on each architecture. */
__u64 number;

SEC("raw_tp/sys_enter")
int on_raw_tracepoint(__u64 *ctx)
{
	if (ctx[1] == number)
		count();
	return 0;
}

SEC("raw_tp")
int on_raw_tracepoint_cookie(__u64 *ctx)
{
	return ctx[1] == number ? count_with_cookie(ctx) : 0;
}

SEC("tp_btf/sys_enter")
int on_tracepoint_btf(__u64 *ctx)
{
	if (ctx[1] == number)
		count();
	return 0;
}

/* Those of system calls may sleep. */
SEC("tp.s/syscalls/sys_enter_getppid")
int on_sleepable_tracepoint(void *ctx)
{
	count();
	return 0;
}

SEC("raw_tp.s/sys_enter")
int on_sleepable_raw_tracepoint(__u64 *ctx)
{
	if (ctx[1] == number)
		count();
	return 0;
}

SEC("tp_btf.s/sys_enter")
int on_sleepable_tracepoint_btf(__u64 *ctx)
{
	if (ctx[1] == number)
		count();
	return 0;
}

/* Writes what the test run of a program returns: 42 is ENOMSG. */
SEC("raw_tp.w/bpf_test_finish")
int on_writable_tracepoint(__u64 *ctx)
{
	int *error = (int *)ctx[0];

	if (count())
		*error = -42;
	return 0;
}

/* The same kinds by their other names. */
SEC("tp/syscalls/sys_enter_getppid")
int on_tracepoint_by_short_name(void *ctx)
{
	count();
	return 0;
}

SEC("raw_tracepoint/sys_enter")
int on_raw_tracepoint_by_long_name(__u64 *ctx)
{
	if (ctx[1] == number)
		count();
	return 0;
}

SEC("raw_tracepoint.w/bpf_test_finish")
int on_writable_tracepoint_by_long_name(__u64 *ctx)
{
	int *error = (int *)ctx[0];

	if (count())
		*error = -42;
	return 0;
}
