/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Programs on sockets: filters, socket maps, lookup, groups that share a port. */
#include "count.h"

char LICENSE[] SEC("license") = "GPL";

/* include/uapi/linux/bpf.h */
enum { SK_DROP = 0, SK_PASS = 1 };
enum { BPF_MAP_TYPE_SOCKMAP = 15, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY = 20 };
#define BPF_F_INGRESS 1

struct bpf_sk_lookup {
	void *sk;
	__u32 family, protocol, remote_ip4, remote_ip6[4];
	__u32 remote_port, local_ip4, local_ip6[4], local_port;
};

static long (*const bpf_sk_redirect_map)(void *skb, void *map, __u32 key, __u64 flags) = (void *)52;
static long (*const bpf_msg_redirect_map)(void *msg, void *map, __u32 key, __u64 flags) = (void *)60;
static long (*const bpf_sk_select_reuseport)(void *ctx, void *map, void *key, __u64 flags) = (void *)82;
static long (*const bpf_sk_release)(void *sk) = (void *)86;
static long (*const bpf_sk_assign)(void *ctx, void *sk, __u64 flags) = (void *)124;

COUNT(filter_all, "socket", 0xffff)
COUNT(filter_none, "socket", 0)
COUNT(lirc, "lirc_mode2", 0)

/* Sockets by name: 0 and 1. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} group SEC(".maps");

struct __sk_buff {
	__u32 len;
};

__u64 parser_runs;

SEC("sk_skb/stream_parser")
int parser(struct __sk_buff *skb)
{
	__sync_fetch_and_add(&parser_runs, 1);
	return skb->len;
}

/* What socket 0 receives is sent by socket 1. */
COUNT(stream_verdict, "sk_skb/stream_verdict", bpf_sk_redirect_map(ctx, &sockets, 1, 0))
COUNT(verdict, "sk_skb/verdict", bpf_sk_redirect_map(ctx, &sockets, 1, 0))
COUNT(verdict_untold, "sk_skb", bpf_sk_redirect_map(ctx, &sockets, 1, 0))
/* What socket 0 sends is received by socket 1. */
COUNT(message, "sk_msg", bpf_msg_redirect_map(ctx, &sockets, 1, BPF_F_INGRESS))

/* Port 7777 belongs to socket 0. */
__u64 lookup_runs;

SEC("sk_lookup")
int lookup(struct bpf_sk_lookup *ctx)
{
	__u32 key = 0;
	void *socket;

	if (ctx->local_port != 7777)
		return SK_PASS;
	__sync_fetch_and_add(&lookup_runs, 1);
	socket = bpf_map_lookup_elem(&sockets, &key);
	if (!socket)
		return SK_DROP;
	bpf_sk_assign(ctx, socket, 0);
	bpf_sk_release(socket);
	return SK_PASS;
}

/* All goes to socket 1. */
__u64 choose_runs;

SEC("sk_reuseport")
int choose(void *ctx)
{
	__u32 key = 1;

	__sync_fetch_and_add(&choose_runs, 1);
	bpf_sk_select_reuseport(ctx, &group, &key, 0);
	return SK_PASS;
}

__u64 migrate_runs;

SEC("sk_reuseport/migrate")
int migrate(void *ctx)
{
	__u32 key = 1;

	__sync_fetch_and_add(&migrate_runs, 1);
	bpf_sk_select_reuseport(ctx, &group, &key, 0);
	return SK_PASS;
}
