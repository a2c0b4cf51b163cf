/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the TCP tracer remembers, counts and tells. */
#pragma once
#include "add.h"
#include "task_filter.h"
#include "events.h"
#include "exponential.h"

/* Defaults; user space sizes the maps. */
#define WINDOWS 2
#define MAX_CONNECTIONS 8192
#define MAX_SERIES 256
#define MAX_PEERS 64
#define MAX_DROP_REASONS 1024

#define SCALE 1
#define TCP_SLOTS SLOTS(SCALE)

#define CLIENT 1
#define SERVER 2

#define OWN_PEER 1
#define OTHER_PEERS 2

#define ECONNABORTED 103
#define EADDRNOTAVAIL 99

#define EVENT_CONNECTION 1

struct connection {
	/* The SYN; of passive opens and of those that were there before, when they were first seen. Also what tells this
	 * connection from others of the same socket. */
	__u64 start_ns;
	/* 0 until it is established. */
	__u64 established_ns;
	/* What the socket had counted before. */
	__u64 base_acked;
	__u64 base_received;
	__u32 base_retransmits;
	__u32 base_segments_sent;
	__u32 base_segments_received;
	__u32 tgid;
	char comm[16];
	__u32 role;
	/* Whether `tgid` and `comm` are. */
	__u16 owner_known;
	/* OWN_PEER or OTHER_PEERS once it is decided under what it is told, which it stays; only where peers are told apart. */
	__u16 told_under;
};

/* The two ends of a connection, by which user space finds its socket. */
struct endpoints {
	__u32 netns;
	/* In network order. */
	__u16 local_port;
	__u16 peer_port;
	/* IPv4 as IPv6 maps it. */
	__u8 local[16];
	__u8 peer[16];
	/* Whether peers are told apart. */
	__u32 peer_known;
};

/* Growth since the connection is followed. */
struct traffic {
	__u64 sent;
	__u64 received;
	__u32 retransmits;
	__u32 rtt_us;
	__u32 segments_sent;
	__u32 segments_received;
};

struct series_key {
	__u32 tgid;
	__u8 role;
	/* An errno, of connections that failed; 0 of others and of those that live. */
	__u8 error;
	/* In network order, and 0 of servers' peers. */
	__u16 peer_port;
	/* All zero unless peers are told apart; IPv4 as IPv6 maps it. */
	__u8 peer[16];
};

struct durations {
	__u64 sum_ns;
	__u32 zero;
	__u32 slots[TCP_SLOTS];
	__u32 pad;
};

struct series {
	__u64 sent;
	__u64 received;
	__u64 retransmits;
	__u64 segments_sent;
	__u64 segments_received;
	/* How many ended. */
	__u64 ended;
	char comm[16];
	struct durations connect;
	struct durations connection;
	struct durations rtt;
};

/* A connection that is over. */
struct connection_event {
	struct event head;
	__u64 start_ns;
	__u64 established_ns;
	__u64 sent;
	__u64 received;
	__u32 segments_sent;
	__u32 segments_received;
	__u32 retransmits;
	__u32 rtt_us;
	__u32 netns;
	__u32 error;
	__u16 role;
	/* The state that it was in before. */
	__u16 state;
	__u16 local_port;
	__u16 peer_port;
	/* IPv4 as IPv6 maps it. */
	__u8 local[16];
	__u8 peer[16];
	char comm[16];
};

/* What the iterator writes of a connection that lives. */
struct living {
	__u64 socket;
	__u64 start_ns;
	struct traffic traffic;
	struct series_key key;
	char comm[16];
};

struct tcp_stats {
	/* Runs of programs. */
	__u64 runs;
	/* Connections that were not followed, since the table was full. */
	__u64 connections_full;
	/* What was measured of connections, or of their end, for which the window had no room. */
	__u64 series_full;
	/* Spans beyond the rate, and those that sampling leaves out. */
	__u64 span_rate;
	__u64 span_sampling;
	/* Packets whose reason found no room. */
	__u64 reasons_full;
	/* Connections that are counted among those of other peers, since there was no room for theirs. */
	__u64 peers_full;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_CONNECTIONS);
	__type(key, __u64);
	__type(value, struct connection);
} connections SEC(".maps");

/* Of the connections that were established. Only where `note_endpoints`. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_CONNECTIONS);
	__type(key, __u64);
	__type(value, struct endpoints);
} endpoints SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, WINDOWS);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_HASH);
		__uint(max_entries, MAX_SERIES);
		__uint(key_size, sizeof(struct series_key));
		__uint(value_size, sizeof(struct series));
	});
} series SEC(".maps");

/* Peers that have series of their own: the first that come, so that there are never more series than that. User space takes out
 * those that are not seen any more. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_PEERS);
	__uint(key_size, 18);
	__type(value, __u8);
} peers SEC(".maps");

/* Ports that are listened on, by namespace: for connections that were there before. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __u8);
} listening SEC(".maps");

/* Packets that were dropped, by reason. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_DROP_REASONS);
	__type(key, __u32);
	__type(value, __u64);
} drops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tcp_stats);
} stats SEC(".maps");

/* Clang describes in BTF only what it sees used in a map of the outer level or a global. */
const struct series_key *describe_series_key __attribute__((unused));
const struct series *describe_series __attribute__((unused));
const struct durations *describe_durations __attribute__((unused));
const struct connection_event *describe_connection_event __attribute__((unused));
const struct living *describe_living __attribute__((unused));
const struct traffic *describe_traffic __attribute__((unused));

/* Which window is being filled. */
volatile __u32 active = 0;
/* Of so many spans, one is sent. */
volatile __u32 span_one_in = 1;
/* How many there were in this second, which is the clock's number of 2^30 ns. Programs that get here at once may let one
 * more pass or one less. */
volatile __u32 span_count = 0;
volatile __u64 span_second = 0;

/* Set before loading: spans in a second, whether peers are told apart, and whether user space looks for sockets itself. */
const volatile __u32 span_rate = 100;
const volatile __u32 tell_peers = 0;
const volatile __u32 note_endpoints = 0;

#define count_stat(field) \
	({ \
		__u32 zero = 0; \
		struct tcp_stats *stat = bpf_map_lookup_elem(&stats, &zero); \
		if (stat) \
			add_to(&stat->field, 1); \
	})
