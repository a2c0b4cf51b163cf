/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Functions that are in a module. */
#include "helpers.h"

char LICENSE[] SEC("license") = "GPL";

SEC("fentry/nf_conntrack_in")
int anywhere(void *ctx)
{
	return 0;
}

SEC("fexit/nf_conntrack:nf_conntrack_in")
int in_module(void *ctx)
{
	return 0;
}

SEC("fentry/no_such_module:nf_conntrack_in")
int in_no_module(void *ctx)
{
	return 0;
}
