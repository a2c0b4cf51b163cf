/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Programs that see packets: XDP, traffic control, tcx, netkit, routes, netfilter, flow dissector. */
#include "count.h"

char LICENSE[] SEC("license") = "GPL";

/* include/uapi/linux/bpf.h, pkt_cls.h, netfilter.h */
enum { XDP_DROP = 1, XDP_PASS = 2 };
enum { TC_ACT_UNSPEC = -1, TC_ACT_OK = 0, TC_ACT_SHOT = 2 };
enum { NF_DROP = 0, NF_ACCEPT = 1 };
enum { BPF_OK = 0 };
enum { BPF_MAP_TYPE_DEVMAP = 14, BPF_MAP_TYPE_CPUMAP = 16 };

static __u32 (*const bpf_get_hash_recalc)(void *skb) = (void *)34;
static void (*const bpf_set_hash_invalid)(void *skb) = (void *)41;
static long (*const bpf_redirect_map)(void *map, __u64 key, __u64 flags) = (void *)51;

__u64 order;

COUNT(xdp_pass, "xdp", XDP_PASS)
COUNT(xdp_other, "xdp", XDP_PASS)
COUNT(xdp_drop, "xdp", XDP_DROP)
COUNT(xdp_frags, "xdp.frags", XDP_PASS)

struct cpu_map {
	__uint(type, BPF_MAP_TYPE_CPUMAP);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 8);
};
struct cpu_map cpus SEC(".maps"), cpus_frags SEC(".maps");

struct device_map {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 8);
};
struct device_map devices SEC(".maps"), devices_frags SEC(".maps");

COUNT(on_cpu, "xdp/cpumap", XDP_PASS)
COUNT(on_cpu_frags, "xdp.frags/cpumap", XDP_PASS)
COUNT(on_device, "xdp/devmap", XDP_DROP)
COUNT(on_device_frags, "xdp.frags/devmap", XDP_DROP)
COUNT(to_cpu, "xdp", bpf_redirect_map(&cpus, 0, 0))
COUNT(to_device, "xdp", bpf_redirect_map(&devices, 0, 0))
COUNT(to_cpu_frags, "xdp.frags", bpf_redirect_map(&cpus_frags, 0, 0))
COUNT(to_device_frags, "xdp.frags", bpf_redirect_map(&devices_frags, 0, 0))

COUNT(tc_ok, "tc", TC_ACT_OK)
COUNT(tc_ingress, "tc/ingress", TC_ACT_OK)
COUNT(tc_egress, "tc/egress", TC_ACT_OK)
COUNT(tc_shot, "classifier", TC_ACT_SHOT)
COUNT(action_ok, "action", TC_ACT_OK)
COUNT(action_shot, "action", TC_ACT_SHOT)
COUNT(tcx_ingress, "tcx/ingress", TC_ACT_UNSPEC)
COUNT(tcx_egress, "tcx/egress", TC_ACT_UNSPEC)
NOTE_ORDER(first, "tc", 1, TC_ACT_UNSPEC)
NOTE_ORDER(second, "tc", 2, TC_ACT_UNSPEC)
NOTE_ORDER(third, "tc", 3, TC_ACT_UNSPEC)

COUNT(netkit_primary, "netkit/primary", TC_ACT_UNSPEC)
COUNT(netkit_peer, "netkit/peer", TC_ACT_UNSPEC)

COUNT(route_in, "lwt_in", BPF_OK)
COUNT(route_out, "lwt_out", BPF_OK)
COUNT(route_xmit, "lwt_xmit", BPF_OK)
COUNT(route_seg6local, "lwt_seg6local", BPF_OK)

COUNT(nf_accept, "netfilter", NF_ACCEPT)
COUNT(nf_drop, "netfilter", NF_DROP)

COUNT(dissect, "flow_dissector", BPF_OK)

/* Makes the kernel dissect the packet. */
SEC("tc")
int hash(void *skb)
{
	bpf_set_hash_invalid(skb);
	bpf_get_hash_recalc(skb);
	return TC_ACT_OK;
}
