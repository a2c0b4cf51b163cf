/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Probes of functions of executables and libraries. */
#include "one_thread.h"

SEC("uprobe//proc/self/exe:probed_function")
int on_uprobe(void *ctx)
{
	count();
	return 0;
}

SEC("uprobe.s//proc/self/exe:probed_function")
int on_uprobe_sleepable(void *ctx)
{
	count();
	return 0;
}

SEC("uretprobe//proc/self/exe:probed_function")
int on_uretprobe(void *ctx)
{
	count();
	return 0;
}

SEC("uprobe")
int on_uprobe_cookie(void *ctx)
{
	return count_with_cookie(ctx);
}

SEC("uprobe.multi//proc/self/exe:probed_*")
int on_uprobe_multi(void *ctx)
{
	count();
	return 0;
}

SEC("uretprobe.multi//proc/self/exe:probed_function")
int on_uretprobe_multi(void *ctx)
{
	count();
	return 0;
}

SEC("uprobe.multi")
int on_uprobe_multi_cookie(void *ctx)
{
	return count_with_cookie(ctx);
}

SEC("uprobe.session//proc/self/exe:probed_function")
int on_uprobe_session(void *ctx)
{
	count();
	return 0;
}

SEC("uretprobe.s//proc/self/exe:probed_function")
int on_uretprobe_sleepable(void *ctx)
{
	count();
	return 0;
}

SEC("uprobe.multi.s//proc/self/exe:probed_*")
int on_uprobe_multi_sleepable(void *ctx)
{
	count();
	return 0;
}

SEC("uretprobe.multi.s//proc/self/exe:probed_function")
int on_uretprobe_multi_sleepable(void *ctx)
{
	count();
	return 0;
}

SEC("uprobe.session.s//proc/self/exe:probed_function")
int on_uprobe_session_sleepable(void *ctx)
{
	count();
	return 0;
}
