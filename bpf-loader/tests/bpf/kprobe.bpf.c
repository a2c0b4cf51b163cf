/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Probes of kernel functions. Tests put what the machine calls it for `syscall_getppid`. */
#include "one_thread.h"

SEC("kprobe/syscall_getppid")
int on_kprobe(void *ctx)
{
	count();
	return 0;
}

SEC("kretprobe/syscall_getppid")
int on_kretprobe(void *ctx)
{
	count();
	return 0;
}

SEC("kprobe")
int on_kprobe_cookie(void *ctx)
{
	return count_with_cookie(ctx);
}

SEC("ksyscall/getppid")
int on_ksyscall(void *ctx)
{
	count();
	return 0;
}

SEC("kretsyscall/getppid")
int on_kretsyscall(void *ctx)
{
	count();
	return 0;
}

SEC("kprobe.multi/*_sys_du?")
int on_kprobe_multi(void *ctx)
{
	count();
	return 0;
}

SEC("kretprobe.multi/*_sys_dup")
int on_kretprobe_multi(void *ctx)
{
	count();
	return 0;
}

SEC("kprobe.multi")
int on_kprobe_multi_cookie(void *ctx)
{
	return count_with_cookie(ctx);
}

/* 0: run at the return, too. */
SEC("kprobe.session/*_sys_d?p")
int on_kprobe_session(void *ctx)
{
	count();
	return 0;
}
