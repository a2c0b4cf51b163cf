/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Packets by IP protocol. */
#include "helpers.h"

char LICENSE[] SEC("license") = "GPL";

/* include/uapi/linux/bpf.h */
struct xdp_md {
	__u32 data;
	__u32 data_end;
};
enum { XDP_PASS = 2 };

#define ETH_HEADER 14
#define IPV4 0x0800
#define IPV6 0x86dd

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u64);
} packets SEC(".maps");

SEC("xdp")
int count_packet(struct xdp_md *ctx)
{
	__u8 *data = (__u8 *)(long)ctx->data, *end = (__u8 *)(long)ctx->data_end;
	__u32 protocol;
	__u64 *count;
	int ether_type;

	/* Up to the protocol of either version, which is well within the shortest IP header. */
	if (data + ETH_HEADER + 10 > end)
		return XDP_PASS;
	ether_type = data[12] << 8 | data[13];
	if (ether_type == IPV4)
		protocol = data[ETH_HEADER + 9];
	else if (ether_type == IPV6)
		protocol = data[ETH_HEADER + 6];
	else
		return XDP_PASS;
	count = bpf_map_lookup_elem(&packets, &protocol);
	if (count)
		++*count;
	return XDP_PASS;
}
