/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* UDP: payload and calls by process, and datagrams for which a socket had no room.
 *
 * Sends and receives are counted where they return, in the context of whoever called, so that what counts is what the caller
 * was told: payload, without headers. Receives that leave the datagram where it is (MSG_PEEK), and those of errors
 * (MSG_ERRQUEUE), are none.
 *
 * A datagram that finds no room is dropped in an interrupt, when nobody knows whose the socket is: its count waits under the
 * socket until a process receives from it. A socket's address is used again, so the number of its inode tells which it is.
 *
 * Sums exist twice; see profile.bpf.c for how windows are swapped. Processes run on several CPUs at once, so counting needs
 * atomics.
 */
#include "add.h"
#include "registers.h"
#include "task_filter.h"

#define WINDOWS 2
/* Defaults; user space sizes the maps. */
#define MAX_PROCESSES 1024
#define MAX_SOCKETS 1024
#define MAX_CALLS 4096

#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_UDP 17
#define IPPROTO_UDPLITE 136
#define MSG_PEEK 0x2
#define MSG_ERRQUEUE 0x2000

enum direction {
	SEND,
	RECEIVE,
};

struct udp_sums {
	__u64 sent_bytes;
	__u64 sends;
	__u64 received_bytes;
	__u64 receives;
	__u64 drops;
	/* Of the thread that was seen first. */
	char comm[16];
};

struct udp_stats {
	/* Sends and receives of UDP, whatever the filter. */
	__u64 hits;
	/* Of those that are looked at, these found no room. */
	__u64 processes_full;
	/* kprobes: calls whose end could not be awaited. */
	__u64 calls_full;
	/* Datagrams dropped, whoever's. */
	__u64 drops;
	/* Of these, those whose socket found no room. */
	__u64 sockets_full;
};

/* By process. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, WINDOWS);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_HASH);
		__uint(max_entries, MAX_PROCESSES);
		__type(key, __u32);
		__uint(value_size, sizeof(struct udp_sums));
	});
} processes SEC(".maps");

struct socket_key {
	/* Its address. */
	__u64 address;
	/* The number of its inode, of which there is one for each socket that a process has. */
	__u64 inode;
};

struct waiting_drops {
	__u64 count;
	/* When the last came (bpf_ktime_get_boot_ns()). */
	__u64 last;
};

/* Datagrams dropped, until somebody receives from the socket. User space takes out those that nobody claims. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SOCKETS);
	__type(key, struct socket_key);
	__type(value, struct waiting_drops);
} dropped SEC(".maps");

/* A call that a kprobe has seen the begin of. */
struct call {
	/* Which function's, as its return may be another's that it calls. */
	__u32 function;
	__u32 flags;
	__u64 socket;
};

/* By thread. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_CALLS);
	__type(key, __u64);
	__type(value, struct call);
} calls SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct udp_stats);
} stats SEC(".maps");

/* Clang describes in BTF only what it sees used in a map of the outer level or a global. */
const struct udp_sums *describe_udp_sums __attribute__((unused));

/* Which window is being filled. */
volatile __u32 active = 0;
/* Whether `dropped` may have anything; user space says when it has not. */
volatile __u32 any_dropped = 0;

/* How many arguments udp_recvmsg has: its flags are the fifth of six (before 5.19), the fourth of five or four. */
const volatile __u32 receive_arguments = 5;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct sock_common {
	__u16 skc_family;
};

struct inode {
	unsigned long i_ino;
};

struct socket {
	__u16 type;
};

struct socket_alloc {
	struct socket socket;
	struct inode vfs_inode;
};

struct sock {
	struct sock_common __sk_common;
	__u16 sk_protocol;
	struct socket *sk_socket;
};

#pragma clang attribute pop

static __always_inline struct udp_stats *own_stats(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&stats, &zero);
}

static __always_inline struct udp_sums *sums_of(__u32 tgid)
{
	__u32 window = active;
	void *table = bpf_map_lookup_elem(&processes, &window);
	struct udp_sums first = {}, *sums;

	if (!table)
		return 0;
	sums = bpf_map_lookup_elem(table, &tgid);
	if (sums)
		return sums;
	bpf_get_current_comm(first.comm, sizeof(first.comm));
	/* Another CPU may be faster. */
	bpf_map_update_elem(table, &tgid, &first, BPF_NOEXIST);
	return bpf_map_lookup_elem(table, &tgid);
}

static __always_inline struct socket_key key_of(__u64 address)
{
	struct socket_key key = { .address = address };
	struct socket *socket = 0;

	read_field(socket, (struct sock *)address, sk_socket);
	/* The socket is the first that there is in what it was allocated with. */
	if (socket)
		read_field(key.inode, (struct socket_alloc *)socket, vfs_inode.i_ino);
	return key;
}

/* Takes what waits for the socket's process to show. */
static __always_inline __u64 claim_drops(__u64 socket)
{
	struct waiting_drops *waiting;
	struct socket_key key;
	__u64 count;

	if (!any_dropped)
		return 0;
	key = key_of(socket);
	waiting = bpf_map_lookup_elem(&dropped, &key);
	if (!waiting)
		return 0;
	count = waiting->count;
	/* Of two that receive at once, one deletes. A drop in this very moment goes with it: programs of old kernels cannot take a
	 * number and leave 0 at once. */
	return bpf_map_delete_elem(&dropped, &key) ? 0 : count;
}

/* A call has ended, with this result. */
static __always_inline int count_call(__u64 socket, enum direction direction, int result, __u32 flags)
{
	struct udp_stats *stat = own_stats();
	struct udp_sums *sums;
	__u32 tgid;
	__u64 drops;

	if (!stat)
		return 0;
	add_to(&stat->hits, 1);
	if (result < 0 || (direction == RECEIVE && flags & (MSG_PEEK | MSG_ERRQUEUE)))
		return 0;
	/* Those of processes that are not looked at must not take the room of others'. */
	drops = direction == RECEIVE ? claim_drops(socket) : 0;
	tgid = current_tgid(bpf_get_current_pid_tgid(), 1);
	if (!task_wanted(tgid, 1))
		return 0;
	sums = sums_of(tgid);
	if (!sums) {
		add_to(&stat->processes_full, 1 + drops);
		return 0;
	}
	if (direction == SEND) {
		add_to(&sums->sent_bytes, result);
		add_to(&sums->sends, 1);
		return 0;
	}
	add_to(&sums->received_bytes, result);
	add_to(&sums->receives, 1);
	if (drops)
		add_to(&sums->drops, drops);
	return 0;
}

static __always_inline __u16 family_of(__u64 socket)
{
	__u16 family = 0;

	read_field(family, (struct sock *)socket, __sk_common.skc_family);
	return family;
}

/* ---- whatever kind of socket it is: (struct sock *, int result, int flags) ---- */

static __always_inline int of_any_socket(__u64 *args, enum direction direction)
{
	struct sock *sk = (void *)args[0];
	__u16 protocol = 0, family = family_of(args[0]);

	if (family != AF_INET && family != AF_INET6)
		return 0;
	read_field(protocol, sk, sk_protocol);
	if (protocol != IPPROTO_UDP && protocol != IPPROTO_UDPLITE)
		return 0;
	return count_call(args[0], direction, args[1], args[2]);
}

SEC("?tp_btf/sock_send_length")
int send_btf(__u64 *args)
{
	return of_any_socket(args, SEND);
}

SEC("?tp_btf/sock_recv_length")
int receive_btf(__u64 *args)
{
	return of_any_socket(args, RECEIVE);
}

SEC("?raw_tp/sock_send_length")
int send_raw(__u64 *args)
{
	return of_any_socket(args, SEND);
}

SEC("?raw_tp/sock_recv_length")
int receive_raw(__u64 *args)
{
	return of_any_socket(args, RECEIVE);
}

/* ---- UDP's own functions: udpv6_* of IPv6 sockets may call udp_*, which then does not count ---- */

static __always_inline int receive_exit(__u64 *args)
{
	if (receive_arguments == 6)
		return count_call(args[0], RECEIVE, args[6], args[4]);
	if (receive_arguments == 5)
		return count_call(args[0], RECEIVE, args[5], args[3]);
	return count_call(args[0], RECEIVE, args[4], args[3]);
}

SEC("?fexit/udp_sendmsg")
int send_fexit(__u64 *args)
{
	return family_of(args[0]) == AF_INET ? count_call(args[0], SEND, args[3], 0) : 0;
}

SEC("?fexit/udpv6_sendmsg")
int send6_fexit(__u64 *args)
{
	return count_call(args[0], SEND, args[3], 0);
}

SEC("?fexit/udp_recvmsg")
int receive_fexit(__u64 *args)
{
	return family_of(args[0]) == AF_INET ? receive_exit(args) : 0;
}

SEC("?fexit/udpv6_recvmsg")
int receive6_fexit(__u64 *args)
{
	return receive_exit(args);
}

enum function {
	UDP_SENDMSG,
	UDPV6_SENDMSG,
	UDP_RECVMSG,
	UDPV6_RECVMSG,
};

static __always_inline int call_begins(void *regs, __u32 function)
{
	struct call call = { .function = function };
	__u64 thread = bpf_get_current_pid_tgid();
	struct udp_stats *stat;
	__u64 flags = 0;

	call.socket = argument(regs, 0);
	flags = receive_arguments == 6 ? argument(regs, 4) : argument(regs, 3);
	call.flags = flags;
	if ((function == UDP_SENDMSG || function == UDP_RECVMSG) && family_of(call.socket) != AF_INET)
		return 0;
	if (bpf_map_update_elem(&calls, &thread, &call, BPF_ANY)) {
		stat = own_stats();
		if (stat)
			add_to(&stat->calls_full, 1);
	}
	return 0;
}

static __always_inline int call_ends(void *regs, __u32 function, enum direction direction)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct call *found = bpf_map_lookup_elem(&calls, &thread);
	struct call call;

	if (!found || found->function != function)
		return 0;
	call = *found;
	bpf_map_delete_elem(&calls, &thread);
	return count_call(call.socket, direction, returned(regs), call.flags);
}

SEC("?kprobe/udp_sendmsg")
int send_kprobe(void *regs)
{
	return call_begins(regs, UDP_SENDMSG);
}

SEC("?kretprobe/udp_sendmsg")
int send_kretprobe(void *regs)
{
	return call_ends(regs, UDP_SENDMSG, SEND);
}

SEC("?kprobe/udpv6_sendmsg")
int send6_kprobe(void *regs)
{
	return call_begins(regs, UDPV6_SENDMSG);
}

SEC("?kretprobe/udpv6_sendmsg")
int send6_kretprobe(void *regs)
{
	return call_ends(regs, UDPV6_SENDMSG, SEND);
}

SEC("?kprobe/udp_recvmsg")
int receive_kprobe(void *regs)
{
	return call_begins(regs, UDP_RECVMSG);
}

SEC("?kretprobe/udp_recvmsg")
int receive_kretprobe(void *regs)
{
	return call_ends(regs, UDP_RECVMSG, RECEIVE);
}

SEC("?kprobe/udpv6_recvmsg")
int receive6_kprobe(void *regs)
{
	return call_begins(regs, UDPV6_RECVMSG);
}

SEC("?kretprobe/udpv6_recvmsg")
int receive6_kretprobe(void *regs)
{
	return call_ends(regs, UDPV6_RECVMSG, RECEIVE);
}

/* ---- where a datagram leaves the receive queue: no return has to be awaited, of which old kernels keep few ---- */

struct sk_buff {
	struct sk_buff *next;
} __attribute__((preserve_access_index));

/* (struct sock *, struct sk_buff *, int what the receiver is told, below 0 where the datagram stays) */
SEC("?kprobe/skb_consume_udp")
int consume_kprobe(void *regs)
{
	int result = argument(regs, 2);
	struct sk_buff *next = 0;

	/* An empty datagram has no sign: one that stays is still in a list. */
	if (!result)
		read_field(next, (struct sk_buff *)argument(regs, 1), next);
	if (result < 0 || next)
		return count_call(argument(regs, 0), RECEIVE, 0, MSG_PEEK);
	return count_call(argument(regs, 0), RECEIVE, result, 0);
}

/* ---- drops ---- */

static __always_inline int count_drop(__u64 socket)
{
	struct socket_key key = key_of(socket);
	struct waiting_drops none = {}, *waiting = bpf_map_lookup_elem(&dropped, &key);
	struct udp_stats *stat = own_stats();

	if (!stat)
		return 0;
	add_to(&stat->drops, 1);
	if (!waiting) {
		bpf_map_update_elem(&dropped, &key, &none, BPF_NOEXIST);
		waiting = bpf_map_lookup_elem(&dropped, &key);
		if (!waiting) {
			add_to(&stat->sockets_full, 1);
			return 0;
		}
	}
	add_to(&waiting->count, 1);
	waiting->last = bpf_ktime_get_boot_ns();
	any_dropped = 1;
	return 0;
}

/* (int error, struct sock *, ...) */
SEC("?tp_btf/udp_fail_queue_rcv_skb")
int drop_btf(__u64 *args)
{
	return count_drop(args[1]);
}

SEC("?raw_tp/udp_fail_queue_rcv_skb")
int drop_raw(__u64 *args)
{
	return count_drop(args[1]);
}

char _license[] SEC("license") = "Dual MIT/GPL";
