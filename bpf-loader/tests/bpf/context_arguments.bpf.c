/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Global functions that take the context of programs of several types. */
#include "helpers.h"

#define __arg_ctx __attribute__((btf_decl_tag("arg:ctx")))

char LICENSE[] SEC("license") = "GPL";

struct __sk_buff {
	__u32 len;
};

struct xdp_md {
	__u32 data, data_end;
};

/* Not inlined, and not specialised for its callers either. */
__attribute__((noinline)) int packet_length(void *context __arg_ctx)
{
	struct __sk_buff *packet = context;

	return packet->len;
}

SEC("tc")
int tc_length(struct __sk_buff *packet)
{
	return packet_length(packet);
}

SEC("socket")
int socket_length(struct __sk_buff *packet)
{
	return packet_length(packet);
}

__attribute__((noinline)) int frame_is_empty(void *context __arg_ctx)
{
	struct xdp_md *frame = context;

	return frame->data == frame->data_end;
}

SEC("xdp")
int xdp_is_empty(struct xdp_md *frame)
{
	return frame_is_empty(frame) + 2;
}

__attribute__((noinline)) int stack_depth(void *context __arg_ctx)
{
	__u64 stack[4] = {};

	return bpf_get_stack(context, stack, sizeof(stack), 0);
}

SEC("kprobe")
int probe_depth(void *context)
{
	return stack_depth(context) > 0;
}

SEC("perf_event")
int event_depth(void *context)
{
	return stack_depth(context) > 0;
}

SEC("raw_tp")
int tracepoint_depth(void *context)
{
	return stack_depth(context) > 0;
}
