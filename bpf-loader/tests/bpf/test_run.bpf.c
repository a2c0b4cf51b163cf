/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Programs to be run by request. */
#include "count.h"

char LICENSE[] SEC("license") = "GPL";

struct __sk_buff {
	__u32 len, pkt_type, mark;
};

struct xdp_md {
	__u32 data, data_end;
};

struct numbers {
	__u64 left, right, sum;
};

static long (*const bpf_xdp_adjust_head)(void *ctx, int delta) = (void *)44;

/* Returns the length of the packet, and doubles its mark. */
SEC("tc")
int length(struct __sk_buff *skb)
{
	skb->mark *= 2;
	return skb->len;
}

/* Puts 8 bytes of 0xff before the packet. */
SEC("xdp")
int lengthen(struct xdp_md *ctx)
{
	/* Some machines have packets written in units as they are aligned: of 2 bytes. */
	__u16 *data;

	if (bpf_xdp_adjust_head(ctx, -8))
		return 0;
	data = (void *)(long)ctx->data;
	if ((void *)(data + 4) > (void *)(long)ctx->data_end)
		return 0;
	data[0] = data[1] = data[2] = data[3] = 0xffff;
	return 2;
}

SEC("syscall")
int add(struct numbers *numbers)
{
	numbers->sum = numbers->left + numbers->right;
	return 7;
}

__u64 cpu;

SEC("raw_tp/sys_enter")
int second_argument(__u64 *ctx)
{
	cpu = bpf_get_smp_processor_id();
	return ctx[1];
}

COUNT(counted, "socket", 5)
COUNT(kprobe, "kprobe/do_nanosleep", 0)
