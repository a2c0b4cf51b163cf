/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Programs that do nothing: what probes cost whatever they do. */
#include "helpers.h"

SEC("uprobe")
int entry(void *regs)
{
	return 0;
}

SEC("uretprobe")
int leave(void *regs)
{
	return 0;
}

SEC("?uprobe.session")
int session(void *regs)
{
	return 0;
}

char _license[] SEC("license") = "Dual MIT/GPL";
