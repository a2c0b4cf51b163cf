/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* TCP connections, from the states that their sockets go through.
 *
 * A table holds every connection that is followed, by its socket, from the SYN (or, of passive opens, from when it is
 * established) until it is closed. What is counted goes into one of two windows: user space flips `active`, and an update of
 * one of the outer maps then waits until no program still uses the old window.
 *
 * Whose a connection is: that of the process that opens it; of a passive one, the first that is seen to use the socket.
 * Transitions run in softirq too, in the context of whatever was interrupted: only while a process holds the socket's lock
 * (`sk_lock.owned`) is the current process one that uses it.
 *
 * Programs may interrupt each other on a CPU, hence atomics everywhere.
 */
#include "add.h"
#include "registers.h"
#include "tcp_read.h"

/* Zeros to begin a series with; too large for the stack. */
const struct series no_series = {};

static __always_inline struct series *series_of(void *window, const struct series_key *key, const char *comm)
{
	struct series *found = bpf_map_lookup_elem(window, key);

	if (found)
		return found;
	bpf_map_update_elem(window, key, &no_series, BPF_NOEXIST);
	found = bpf_map_lookup_elem(window, key);
	if (found)
		__builtin_memcpy(found->comm, comm, sizeof(found->comm));
	else
		count_stat(series_full);
	return found;
}

static __always_inline void add_duration(struct durations *durations, __u64 ns)
{
	int slot = duration_slot(ns, SCALE);

	add_to(&durations->sum_ns, ns);
	if (is_slot(slot, SCALE))
		add_to(&durations->slots[slot], 1);
	else
		add_to(&durations->zero, 1);
}

/* A connection begins: an active one with its SYN, a passive one when it is established. */
static __always_inline void begin(struct sock *sk, struct tcp_sock *tcp, __u32 role, int direct)
{
	struct connection connection = { .role = role };

	if (used_by_current(sk, direct) && !learn_owner(sk, &connection)) {
		/* There may be one whose end was missed. */
		forget((__u64)sk);
		return;
	}
	take_bases(&connection, tcp, direct);
	connection.start_ns = bpf_ktime_get_boot_ns();
	/* To TCP, a SYN is a byte like others. */
	if (role == CLIENT)
		connection.base_acked++;
	else
		connection.established_ns = connection.start_ns;
	if (follow(&connection, sk, BPF_ANY) && role == SERVER)
		note_ends(sk);
}

static __always_inline void on_connected(struct sock *sk, struct connection *connection)
{
	struct series_key key = {};
	struct series *found;
	__u64 now = bpf_ktime_get_boot_ns();
	__u32 window = active;
	void *all = bpf_map_lookup_elem(&series, &window);

	connection->established_ns = now;
	note_ends(sk);
	if (!all)
		return;
	key_of(sk, connection, &key);
	found = series_of(all, &key, connection->comm);
	if (found)
		add_duration(&found->connect, now - connection->start_ns);
}

static __always_inline __u32 why_closed(struct sock *sk, struct tcp_sock *tcp, const struct connection *connection, int state,
					int direct)
{
	__u32 sent = 0;
	int error = 0;

	get_field(error, direct, sk, sk_err);
	if (error)
		return error;
	if (state == TCP_SYN_SENT) {
		/* Not even a SYN was sent: there is no port left for it. */
		get_field(sent, direct, tcp, segs_out);
		return sent == connection->base_segments_sent ? EADDRNOTAVAIL : ECONNABORTED;
	}
	/* Closed with data unread, or to be reset. */
	return state == TCP_ESTABLISHED || state == TCP_CLOSE_WAIT || state == TCP_SYN_RECV ? ECONNABORTED : 0;
}

static __always_inline int span_wanted(__u64 now)
{
	__u64 second = now >> 30;
	__u32 one_in = span_one_in;

	if (one_in > 1 && bpf_get_prandom_u32() % one_in) {
		count_stat(span_sampling);
		return 0;
	}
	if (span_second != second) {
		span_second = second;
		span_count = 0;
	}
	if (span_count >= span_rate) {
		count_stat(span_rate);
		return 0;
	}
	add_to(&span_count, 1);
	return 1;
}

static __always_inline void tell(struct sock *sk, const struct connection *connection, const struct traffic *traffic,
				 __u32 error, int state, __u64 now)
{
	struct inet_sock *inet = (void *)sk;
	struct connection_event *event;
	struct net *net = 0;
	__u32 netns = 0;
	__u16 port = 0;

	event = reserve_event(sizeof(*event));
	if (!event)
		return;
	event->head.kind = EVENT_CONNECTION;
	event->head.tgid = connection->tgid;
	event->head.boot_ns = now;
	event->start_ns = connection->start_ns;
	event->established_ns = connection->established_ns;
	event->sent = traffic->sent;
	event->received = traffic->received;
	event->retransmits = traffic->retransmits;
	event->rtt_us = traffic->rtt_us;
	event->segments_sent = traffic->segments_sent;
	event->segments_received = traffic->segments_received;
	read_field(net, sk, __sk_common.skc_net.net);
	read_field(netns, net, ns.inum);
	event->netns = netns;
	event->error = error;
	event->role = connection->role;
	event->state = state;
	read_local(event->local, sk);
	read_peer(event->peer, sk);
	read_field(port, inet, inet_sport);
	event->local_port = port;
	read_field(port, sk, __sk_common.skc_dport);
	event->peer_port = port;
	__builtin_memcpy(event->comm, connection->comm, sizeof(event->comm));
	submit_event(event);
}

static __always_inline void on_closed(struct sock *sk, struct tcp_sock *tcp, struct connection *connection, int state,
				      int direct)
{
	struct series_key key = {};
	struct traffic traffic = {};
	__u32 window = active;
	void *all = bpf_map_lookup_elem(&series, &window);
	struct series *found;
	__u64 now = bpf_ktime_get_boot_ns();
	__u32 error;

	/* What belongs to nobody passes no filter. */
	if (!all || (filter_in_use && !connection->owner_known))
		return;
	measure(sk, tcp, connection, state, &traffic, direct);
	if (!key_of(sk, connection, &key))
		count_stat(peers_full);
	error = why_closed(sk, tcp, connection, state, direct);
	key.error = error;
	found = series_of(all, &key, connection->comm);
	if (found) {
		add_to(&found->sent, traffic.sent);
		add_to(&found->received, traffic.received);
		add_to(&found->retransmits, (__u64)traffic.retransmits);
		add_to(&found->segments_sent, (__u64)traffic.segments_sent);
		add_to(&found->segments_received, (__u64)traffic.segments_received);
		add_to(&found->ended, 1);
		if (connection->established_ns)
			add_duration(&found->connection, now - connection->established_ns);
		if (traffic.rtt_us)
			add_duration(&found->rtt, traffic.rtt_us * 1000ULL);
	}
	if (span_wanted(now))
		tell(sk, connection, &traffic, error, state, now);
}

static __always_inline int on_state(struct sock *sk, int old, int new, int direct)
{
	__u64 id = (__u64)sk;
	struct connection *connection = 0;
	struct tcp_sock *tcp;

	count_stat(runs);
	if (new != TCP_SYN_SENT && new != TCP_ESTABLISHED && new != TCP_FIN_WAIT1 && new != TCP_LAST_ACK && new != TCP_CLOSE)
		return 0;
	tcp = tcp_of(sk, direct);
	if (!tcp)
		return 0;
	if (new == TCP_SYN_SENT) {
		begin(sk, tcp, CLIENT, direct);
		return 0;
	}
	connection = bpf_map_lookup_elem(&connections, &id);
	/* Both ends may be active, and the state be SYN_RECV nevertheless. */
	if (new == TCP_ESTABLISHED && old == TCP_SYN_RECV && (!connection || connection->established_ns)) {
		begin(sk, tcp, SERVER, direct);
		return 0;
	}
	if (!connection)
		return 0;
	if (!connection->owner_known && used_by_current(sk, direct) && !learn_owner(sk, connection)) {
		forget(id);
		return 0;
	}
	if (new == TCP_ESTABLISHED && !connection->established_ns) {
		on_connected(sk, connection);
	} else if (new == TCP_CLOSE) {
		on_closed(sk, tcp, connection, old, direct);
		forget(id);
	}
	return 0;
}

/* The current process uses the socket for certain, or if it holds its lock. */
static __always_inline int on_use(struct sock *sk, int certain, int direct)
{
	__u64 id = (__u64)sk;
	struct connection *connection = bpf_map_lookup_elem(&connections, &id);

	count_stat(runs);
	if (connection && !connection->owner_known && (certain || used_by_current(sk, direct)) && !learn_owner(sk, connection))
		forget(id);
	return 0;
}

SEC("?tp_btf/inet_sock_set_state")
int states_btf(__u64 *args)
{
	return on_state((void *)args[0], args[1], args[2], 1);
}

SEC("?raw_tp/inet_sock_set_state")
int states_raw(__u64 *args)
{
	return on_state((void *)args[0], args[1], args[2], 0);
}

/* As tracefs describes it; the same since it is there. */
struct states_record {
	__u64 common;
	void *socket;
	int old;
	int new;
};

SEC("?tracepoint/sock/inet_sock_set_state")
int states_classic(struct states_record *record)
{
	return on_state(record->socket, record->old, record->new, 0);
}

SEC("?tp_btf/tcp_rcv_space_adjust")
int receive_btf(__u64 *args)
{
	return on_use((void *)args[0], 0, 1);
}

SEC("?raw_tp/tcp_rcv_space_adjust")
int receive_raw(__u64 *args)
{
	return on_use((void *)args[0], 0, 0);
}

struct receive_record {
	__u64 common;
	void *socket;
};

SEC("?tracepoint/tcp/tcp_rcv_space_adjust")
int receive_classic(struct receive_record *record)
{
	return on_use(record->socket, 0, 0);
}

/* Of any socket, after the lock was released, and always by the process that sends. */
SEC("?tp_btf/sock_send_length")
int send_btf(__u64 *args)
{
	struct sock *sk = (void *)args[0];

	return is_tcp(sk, 1) ? on_use(sk, 1, 1) : 0;
}

SEC("?fexit/inet_csk_accept")
int accept_fexit(__u64 *args)
{
	__u64 sk;

	/* Behind the arguments is what it returns. In assembler, since the compiler would load from either place with one
	 * instruction, which verifiers refuse. */
	if (__builtin_preserve_type_info(*(struct proto_accept_arg *)0, 0))
		asm volatile("%0 = *(u64 *)(%1 + 16)" : "=r"(sk) : "r"(args));
	else
		asm volatile("%0 = *(u64 *)(%1 + 32)" : "=r"(sk) : "r"(args));
	return sk ? on_use((void *)sk, 1, 0) : 0;
}

/* (struct sock *, struct socket *): where accept(2) ties a connection to a descriptor. No return has to be awaited, of which old
 * kernels keep few. */
SEC("?kprobe/security_sock_graft")
int accept_kprobe(void *regs)
{
	struct sock *sk = (void *)argument(regs, 0);

	return is_tcp(sk, 0) ? on_use(sk, 1, 0) : 0;
}

SEC("?kretprobe/inet_csk_accept")
int accept_kretprobe(void *regs)
{
	__u64 sk = returned_pointer(regs);

	return sk ? on_use((void *)sk, 1, 0) : 0;
}

struct exit_record {
	__u64 common;
	__u64 number;
	long ret;
};

/* The socket behind a descriptor of the current process. */
static __always_inline int on_accept_exit(struct exit_record *record)
{
	struct task_struct___files *task = (void *)bpf_get_current_task();
	struct files_struct *files = 0;
	struct fdtable *table = 0;
	struct file **all = 0, *file = 0;
	struct socket *socket = 0;
	struct sock *sk = 0;
	unsigned int max = 0;
	long fd = record->ret;

	if (fd < 0)
		return 0;
	read_field(files, task, files);
	read_field(table, files, fdt);
	read_field(max, table, max_fds);
	if (fd >= max)
		return 0;
	read_field(all, table, fd);
	read_pointer_at(file, all, fd, field_size(table, fd));
	read_field(socket, file, private_data);
	read_field(sk, socket, sk);
	return sk ? on_use(sk, 1, 0) : 0;
}

SEC("?tracepoint/syscalls/sys_exit_accept")
int accept_exit(struct exit_record *record)
{
	return on_accept_exit(record);
}

SEC("?tracepoint/syscalls/sys_exit_accept4")
int accept4_exit(struct exit_record *record)
{
	return on_accept_exit(record);
}

/* Takes up the connections of a network namespace that are there before the tracer is. Sockets that listen come first. */
SEC("?iter/tcp")
int older_connections(struct tcp_iterator *iterator)
{
	struct sock *sk = (void *)iterator->socket;
	struct connection connection = {};
	struct net *net = 0;
	__u64 port = 0;
	__u32 netns = 0;
	__u16 number = 0;
	__u8 state = 0, one = 1;

	if (!sk)
		return 0;
	read_field(state, sk, __sk_common.skc_state);
	if (state == TCP_TIME_WAIT || state == TCP_NEW_SYN_RECV || state == TCP_SYN_RECV || state == TCP_CLOSE)
		return 0;
	read_field(net, sk, __sk_common.skc_net.net);
	read_field(netns, net, ns.inum);
	read_field(number, sk, __sk_common.skc_num);
	port = (__u64)netns << 16 | number;
	if (state == TCP_LISTEN) {
		bpf_map_update_elem(&listening, &port, &one, BPF_ANY);
		return 0;
	}
	connection.role = bpf_map_lookup_elem(&listening, &port) ? SERVER : CLIENT;
	take_bases(&connection, (void *)sk, 0);
	connection.start_ns = bpf_ktime_get_boot_ns();
	if (state != TCP_SYN_SENT)
		connection.established_ns = connection.start_ns;
	if (follow(&connection, sk, BPF_NOEXIST) && state != TCP_SYN_SENT)
		note_ends(sk);
	return 0;
}

/* Writes what the connections that live have done so far. */
SEC("?iter/bpf_map_elem")
int living_connections(struct element_iterator *iterator)
{
	struct bpf_iter_meta *meta = iterator->meta;
	struct connection *now = iterator->value, *after, connection;
	struct living living = {};
	struct sock *sk;
	__u64 id;
	__u8 state = 0;

	if (!iterator->key || !now)
		return 0;
	id = *iterator->key;
	sk = (void *)id;
	connection = *now;
	read_field(state, sk, __sk_common.skc_state);
	measure(sk, (void *)sk, &connection, state, &living.traffic, 0);
	/* A socket that was closed meanwhile may already be another. */
	after = bpf_map_lookup_elem(&connections, &id);
	if (!after || after->start_ns != connection.start_ns)
		return 0;
	/* Its end was missed: the kernel runs no program within itself. */
	if (state == TCP_CLOSE && bpf_ktime_get_boot_ns() - connection.start_ns > 1000000000) {
		forget(id);
		return 0;
	}
	if (!connection.owner_known)
		return 0;
	living.socket = id;
	living.start_ns = connection.start_ns;
	__builtin_memcpy(living.comm, connection.comm, sizeof(living.comm));
	key_of(sk, now, &living.key);
	bpf_seq_write(meta->seq, &living, sizeof(living));
	return 0;
}

/* TCP packets that the kernel drops, by reason (Linux 5.17). */
SEC("?tp_btf/kfree_skb")
int drop_reasons(__u64 *args)
{
	struct sk_buff *packet = (void *)args[0];
	__u32 reason = args[2];
	__u16 protocol = 0, network = 0;
	__u8 transport = 0;
	unsigned char *head = 0;
	__u64 *count, none = 0;

	get_field(protocol, 1, packet, protocol);
	get_field(network, 1, packet, network_header);
	get_field(head, 1, packet, head);
	/* ETH_P_IP and ETH_P_IPV6, in network order. */
	if (protocol == 0x0008)
		bpf_probe_read_kernel(&transport, 1, head + network + 9);
	else if (protocol == 0xdd86)
		bpf_probe_read_kernel(&transport, 1, head + network + 6);
	if (transport != IPPROTO_TCP)
		return 0;
	count_stat(runs);
	count = bpf_map_lookup_elem(&drops, &reason);
	if (!count) {
		bpf_map_update_elem(&drops, &reason, &none, BPF_NOEXIST);
		count = bpf_map_lookup_elem(&drops, &reason);
	}
	if (count)
		add_to(count, 1);
	else
		count_stat(reasons_full);
	return 0;
}

char _license[] SEC("license") = "Dual MIT/GPL";
