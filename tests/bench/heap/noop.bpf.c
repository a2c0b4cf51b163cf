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

/* Nothing is to be done when free returns, whose cookie is 8. */
SEC("?uprobe.session")
int session(void *regs)
{
	return bpf_get_attach_cookie(regs) == 8;
}

char _license[] SEC("license") = "Dual MIT/GPL";
