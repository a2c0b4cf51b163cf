/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* DNS messages of this machine's clients: queries to port 53 and what comes back from there, copied to user space, which reads
 * them and pairs them by socket and id. Addresses do not take part: between the two hooks, they may be translated.
 *
 * Only the answers to queries that were copied are copied, the first to each: what others get stays in the kernel.
 *
 * The hooks are those of the root control group, and see every packet of every socket, so what a packet costs that is no DNS
 * message counts: one copy of its first bytes, and two comparisons.
 *
 * UDP's packets leave in the context of who sends them. TCP's may leave whenever the peer acknowledges, so whose they are is
 * noted when the socket connects.
 */
#include "add.h"
#include "task_filter.h"
#include "events.h"

#define DNS_PORT 53
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17

/* A message's head and its question; of answers that follow, nothing is wanted. */
#define MESSAGE_HEAD 12
#define MAX_MESSAGE 288
/* TCP's sockets to port 53; those unused for the longest time make way. */
#define MAX_OWNERS 1024
/* Queries that wait for their answers, as user space sizes it; it takes out those that wait in vain. */
#define MAX_ASKED 1024

#define EVENT_QUERY 1
#define EVENT_RESPONSE 2

struct dns_message {
	struct event event;
	/* The socket's cookie. */
	__u64 socket;
	/* The server's address; IPv4 as IPv6 maps it. */
	__u8 server[16];
	/* Of queries, the sender's thread. */
	char comm[16];
	/* How much of the message follows. */
	__u16 length;
	/* IPPROTO_* */
	__u8 transport;
	__u8 pad[5];
	__u8 bytes[MAX_MESSAGE];
};

struct owner {
	__u32 tgid;
	__u32 wanted;
	char comm[16];
};

struct dns_stats {
	/* Packets that the programs looked at. */
	__u64 packets;
	/* Queries over TCP by sockets that were connected before the tracer, or long ago. */
	__u64 unknown_owners;
	/* Queries that found too many waiting. */
	__u64 asked_full;
};

struct asked {
	/* The socket's cookie. */
	__u64 socket;
	/* The message's id, as it is on the wire. */
	__u64 id;
};

/* When each was sent (bpf_ktime_get_boot_ns()). */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_ASKED);
	__type(key, struct asked);
	__type(value, __u64);
} asked SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_OWNERS);
	__type(key, __u64);
	__type(value, struct owner);
} owners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct dns_stats);
} stats SEC(".maps");

/* Clang describes in BTF only what it sees used. */
const struct dns_message *describe_dns_message __attribute__((unused));

/* Contexts of the programs, as far as they are read (include/uapi/linux/bpf.h). */
struct __sk_buff {
	__u32 len;
};

struct bpf_sock_addr {
	__u32 user_family;
	__u32 user_ip4;
	__u32 user_ip6[4];
	__u32 user_port;
};

static long (*const bpf_skb_load_bytes)(const void *skb, __u32 offset, void *to, __u32 len) = (void *)26;
static __u64 (*const bpf_get_socket_cookie)(void *ctx) = (void *)46;

/* The current task, as far as helpers of programs on packets tell about it. */
static __always_inline void find_owner(struct owner *owner)
{
	struct task_struct *task = (void *)bpf_get_current_task(), *leader = 0;
	__u32 number = filter_in_use;
	const volatile struct task_filter *filter = &filters[(number - 1) & 1];
	__u32 conditions = number ? filter->conditions : 0;
	__u8 *in;

	owner->tgid = task_tgid(task);
	read_field(owner->comm, task, comm);
	owner->wanted = 1;
	if (conditions & FILTER_PIDS) {
		in = bpf_map_lookup_elem(&pids, &owner->tgid);
		if (!in || !(*in & (1 << ((number - 1) & 1))))
			owner->wanted = 0;
	}
	if (conditions & FILTER_COMM && !task_has_comm(task, filter)) {
		read_field(leader, task, group_leader);
		if (!task_has_comm(leader, filter))
			owner->wanted = 0;
	}
	if (conditions & FILTER_CGROUP_V1 && !in_cgroup_v1(filter))
		owner->wanted = 0;
}

static __always_inline __u16 port_at(const __u8 *bytes)
{
	return bytes[0] << 8 | bytes[1];
}

static __always_inline void send_message(struct __sk_buff *skb, __u32 offset, __u32 kind, __u8 transport,
					 const __u8 *address, int ipv4, const struct owner *owner,
					 struct dns_stats *stat)
{
	struct asked query = { .socket = bpf_get_socket_cookie(skb) };
	__u32 length = skb->len - offset;
	__u64 now = bpf_ktime_get_boot_ns();
	struct dns_message *message;
	__u16 start[2];

	if (bpf_skb_load_bytes(skb, offset, start, sizeof(start)))
		return;
	query.id = start[0];
	if (kind == EVENT_RESPONSE) {
		/* The bit that tells responses, of the third byte. */
		if (!(start[1] & 0x80) || bpf_map_delete_elem(&asked, &query))
			return;
	} else if (bpf_map_update_elem(&asked, &query, &now, BPF_ANY)) {
		add_to(&stat->asked_full, 1);
		return;
	}
	message = reserve_event(sizeof(*message));
	if (!message) {
		/* No lookup is known that could be answered. */
		if (kind == EVENT_QUERY)
			bpf_map_delete_elem(&asked, &query);
		return;
	}
	message->event.kind = kind;
	message->event.tgid = owner->tgid;
	message->event.boot_ns = now;
	message->socket = query.socket;
	__builtin_memcpy(message->comm, owner->comm, sizeof(message->comm));
	__builtin_memset(message->server, 0, sizeof(message->server));
	if (ipv4) {
		message->server[10] = 0xff;
		message->server[11] = 0xff;
		__builtin_memcpy(&message->server[12], address, 4);
	} else {
		__builtin_memcpy(message->server, address, 16);
	}
	message->transport = transport;
	__builtin_memset(message->pad, 0, sizeof(message->pad));
	__builtin_memset(message->bytes, 0, sizeof(message->bytes));
	if (length > MAX_MESSAGE)
		length = MAX_MESSAGE;
	/* Lest the compiler compare something else that it holds equal. */
	asm volatile("" : "+r"(length));
	if (length < MESSAGE_HEAD || length > MAX_MESSAGE ||
	    bpf_skb_load_bytes(skb, offset, message->bytes, length))
		length = 0;
	message->length = length;
	submit_event(message);
}

static __always_inline int look(struct __sk_buff *skb, int is_response)
{
	/* An IPv6 header; or IPv4's, UDP's and a message's head. */
	__u8 head[40], ports[4], doff;
	struct owner owner = {}, *known;
	__u32 zero = 0, offset;
	struct dns_stats *stat = bpf_map_lookup_elem(&stats, &zero);
	const __u8 *address;
	__u8 transport;
	__u64 socket;
	int ipv4;

	if (!stat)
		return 1;
	add_to(&stat->packets, 1);
	if (bpf_skb_load_bytes(skb, 0, head, sizeof(head)))
		return 1;
	ipv4 = head[0] >> 4 == 4;
	transport = ipv4 ? head[9] : head[6];
	if (transport != IPPROTO_UDP && transport != IPPROTO_TCP)
		return 1;
	offset = ipv4 ? (head[0] & 15) * 4 : sizeof(head);
	if (bpf_skb_load_bytes(skb, offset, ports, sizeof(ports)))
		return 1;
	if (port_at(is_response ? ports : ports + 2) != DNS_PORT)
		return 1;
	if (ipv4)
		address = is_response ? head + 12 : head + 16;
	else
		address = is_response ? head + 8 : head + 24;
	if (transport == IPPROTO_TCP) {
		if (bpf_skb_load_bytes(skb, offset + 12, &doff, 1))
			return 1;
		/* A message over TCP comes after its length. */
		offset += (doff >> 4) * 4 + 2;
	} else {
		offset += 8;
	}
	if (skb->len < offset + MESSAGE_HEAD)
		return 1;
	if (is_response) {
		send_message(skb, offset, EVENT_RESPONSE, transport, address, ipv4, &owner, stat);
		return 1;
	}
	if (transport == IPPROTO_UDP) {
		find_owner(&owner);
	} else {
		socket = bpf_get_socket_cookie(skb);
		known = bpf_map_lookup_elem(&owners, &socket);
		if (!known) {
			add_to(&stat->unknown_owners, 1);
			return 1;
		}
		owner = *known;
	}
	if (owner.wanted)
		send_message(skb, offset, EVENT_QUERY, transport, address, ipv4, &owner, stat);
	return 1;
}

SEC("?cgroup_skb/egress")
int dns_egress(struct __sk_buff *skb)
{
	return look(skb, 0);
}

SEC("?cgroup_skb/ingress")
int dns_ingress(struct __sk_buff *skb)
{
	return look(skb, 1);
}

static __always_inline int note_owner(struct bpf_sock_addr *ctx)
{
	struct owner owner = {};
	__u64 socket;

	if ((__u16)ctx->user_port != ((DNS_PORT & 0xff) << 8 | DNS_PORT >> 8))
		return 1;
	socket = bpf_get_socket_cookie(ctx);
	find_owner(&owner);
	bpf_map_update_elem(&owners, &socket, &owner, BPF_ANY);
	return 1;
}

SEC("?cgroup/connect4")
int dns_connect4(struct bpf_sock_addr *ctx)
{
	return note_owner(ctx);
}

SEC("?cgroup/connect6")
int dns_connect6(struct bpf_sock_addr *ctx)
{
	return note_owner(ctx);
}

char _license[] SEC("license") = "Dual MIT/GPL";
