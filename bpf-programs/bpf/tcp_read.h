/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the TCP tracer finds out about a socket. */
#pragma once
#include "tcp_maps.h"
#include "tcp_sock.h"

/* `direct`, a constant here and below: the verifier knows what `sk` points to, so that fields are read as they stand. A read
 * through the helper costs as much as a look into a table. */
static __always_inline int used_by_current(struct sock *sk, int direct)
{
	int owned = 0;

	get_field(owned, direct, sk, sk_lock.owned);
	return owned;
}

static __always_inline int is_tcp(struct sock *sk, int direct)
{
	__u16 protocol = 0;

	get_field(protocol, direct, sk, sk_protocol);
	return protocol == IPPROTO_TCP;
}

/* 0 if it is none. */
static __always_inline struct tcp_sock *tcp_of(struct sock *sk, int direct)
{
	if (direct)
		return bpf_skc_to_tcp_sock(sk);
	return is_tcp(sk, 0) ? (void *)sk : 0;
}

/* What the socket has counted so far. */
static __always_inline void take_bases(struct connection *connection, struct tcp_sock *tcp, int direct)
{
	get_field(connection->base_acked, direct, tcp, bytes_acked);
	get_field(connection->base_received, direct, tcp, bytes_received);
	get_field(connection->base_retransmits, direct, tcp, total_retrans);
	get_field(connection->base_segments_sent, direct, tcp, segs_out);
	get_field(connection->base_segments_received, direct, tcp, segs_in);
}

/* Whether it is, and was not before where `flags` ask for that. */
static __always_inline int follow(struct connection *connection, struct sock *sk, __u64 flags)
{
	__u64 id = (__u64)sk;
	long error = bpf_map_update_elem(&connections, &id, connection, flags);

	/* E2BIG; with BPF_NOEXIST, it may be followed already. */
	if (error == -7)
		count_stat(connections_full);
	return !error;
}

static __always_inline void measure(struct sock *sk, struct tcp_sock *tcp, const struct connection *connection, __u8 state,
				    struct traffic *traffic, int direct)
{
	__u64 acked = 0, received = 0, sent_base = connection->base_acked, received_base = connection->base_received;
	__u32 una = 0, write = 0, retransmits = 0, srtt = 0, segments = 0;
	unsigned long flags = 0;

	get_field(acked, direct, tcp, bytes_acked);
	get_field(received, direct, tcp, bytes_received);
	get_field(retransmits, direct, tcp, total_retrans);
	get_field(srtt, direct, tcp, srtt_us);
	get_field(flags, direct, sk, __sk_common.skc_flags);
	/* To TCP, a FIN is a byte like others. */
	if (state == TCP_FIN_WAIT1 || state == TCP_FIN_WAIT2 || state == TCP_CLOSING || state == TCP_LAST_ACK) {
		get_field(una, direct, tcp, snd_una);
		get_field(write, direct, tcp, write_seq);
		if (una == write)
			sent_base++;
	}
	if (flags & (1 << SOCK_DONE))
		received_base++;
	traffic->sent = acked > sent_base ? acked - sent_base : 0;
	traffic->received = received > received_base ? received - received_base : 0;
	traffic->retransmits = retransmits - connection->base_retransmits;
	traffic->rtt_us = srtt >> 3;
	get_field(segments, direct, tcp, segs_out);
	traffic->segments_sent = segments - connection->base_segments_sent;
	get_field(segments, direct, tcp, segs_in);
	traffic->segments_received = segments - connection->base_segments_received;
}

#define read_address(address, sk, v4, v6) \
	({ \
		__u16 family = 0; \
		read_field(family, sk, __sk_common.skc_family); \
		if (family == AF_INET6) { \
			bpf_probe_read_kernel(address, 16, __builtin_preserve_access_index(&(sk)->__sk_common.v6)); \
		} else { \
			__builtin_memset(address, 0, 10); \
			__builtin_memset((address) + 10, 0xff, 2); \
			bpf_probe_read_kernel((address) + 12, 4, __builtin_preserve_access_index(&(sk)->__sk_common.v4)); \
		} \
	})

/* Addresses, those of IPv4 as IPv6 maps them. */
#define read_local(address, sk) read_address(address, sk, skc_rcv_saddr, skc_v6_rcv_saddr)
#define read_peer(address, sk) read_address(address, sk, skc_daddr, skc_v6_daddr)

/* Of a connection that is followed and established: its local port is known by then. */
static __always_inline void note_ends(struct sock *sk)
{
	struct inet_sock *inet = (void *)sk;
	struct endpoints ends = { .peer_known = tell_peers };
	__u64 id = (__u64)sk;
	struct net *net = 0;

	if (!note_endpoints)
		return;
	read_field(net, sk, __sk_common.skc_net.net);
	read_field(ends.netns, net, ns.inum);
	read_local(ends.local, sk);
	read_peer(ends.peer, sk);
	read_field(ends.local_port, inet, inet_sport);
	read_field(ends.peer_port, sk, __sk_common.skc_dport);
	if (bpf_map_update_elem(&endpoints, &id, &ends, BPF_ANY))
		count_stat(connections_full);
}

static __always_inline void forget(__u64 id)
{
	bpf_map_delete_elem(&connections, &id);
	if (note_endpoints)
		bpf_map_delete_elem(&endpoints, &id);
}

/* Under what a connection is counted. Whether that is its own peer, where peers are told apart: decided when it is first asked,
 * for what was told under one key must not be told again under another. */
static __always_inline int key_of(struct sock *sk, struct connection *connection, struct series_key *key)
{
	struct {
		__u8 address[16];
		__u16 port;
	} __attribute__((packed)) peer = {};
	__u8 one = 1;

	key->tgid = connection->tgid;
	key->role = connection->role;
	if (!tell_peers)
		return 1;
	if (connection->told_under == OTHER_PEERS)
		return 0;
	read_peer(peer.address, sk);
	if (connection->role == CLIENT)
		read_field(peer.port, sk, __sk_common.skc_dport);
	if (!bpf_map_lookup_elem(&peers, &peer) && bpf_map_update_elem(&peers, &peer, &one, BPF_ANY) &&
	    connection->told_under != OWN_PEER) {
		connection->told_under = OTHER_PEERS;
		return 0;
	}
	connection->told_under = OWN_PEER;
	__builtin_memcpy(key->peer, peer.address, 16);
	key->peer_port = peer.port;
	return 1;
}

/* The current process is one that uses the connection. Whether the filter lets it pass; where not, forget it. */
static __always_inline int learn_owner(struct sock *sk, struct connection *connection)
{
	struct series_key key = {};
	__u32 tgid = current_tgid(bpf_get_current_pid_tgid(), 1);

	if (!task_wanted(tgid, 1))
		return 0;
	/* From when its process is known, user space may tell it, and must not decide for itself. */
	if (note_endpoints)
		key_of(sk, connection, &key);
	connection->tgid = tgid;
	bpf_get_current_comm(connection->comm, sizeof(connection->comm));
	connection->owner_known = 1;
	return 1;
}
