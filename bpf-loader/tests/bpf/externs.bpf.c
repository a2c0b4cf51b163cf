/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the kernel is and has, in global variables. */
#include "helpers.h"

char LICENSE[] SEC("license") = "GPL";

struct __sk_buff {
	__u32 len;
};

extern __u32 LINUX_KERNEL_VERSION __kconfig;
extern _Bool LINUX_HAS_BPF_COOKIE __kconfig;
extern _Bool LINUX_HAS_NO_SUCH_THING __kconfig __weak;
extern __u32 CONFIG_HZ __kconfig;
extern char CONFIG_NO_SUCH_OPTION[8] __kconfig __weak;

__u64 version, cookie, no_such_thing;

SEC("tc")
int of_loader(struct __sk_buff *skb)
{
	version = LINUX_KERNEL_VERSION;
	cookie = LINUX_HAS_BPF_COOKIE;
	no_such_thing = LINUX_HAS_NO_SUCH_THING;
	return 0;
}

__u64 hz, no_such_option;

SEC("tc")
int of_configuration(struct __sk_buff *skb)
{
	hz = CONFIG_HZ;
	no_such_option = CONFIG_NO_SUCH_OPTION[0];
	return 0;
}

extern const void __x64_sys_bpf __ksym __weak, __arm64_sys_bpf __ksym __weak, __riscv_sys_bpf __ksym __weak;
extern const void no_such_symbol __ksym __weak;

__u64 sys_bpf, symbol;

SEC("tc")
int addresses(struct __sk_buff *skb)
{
	sys_bpf = (__u64)&__x64_sys_bpf | (__u64)&__arm64_sys_bpf | (__u64)&__riscv_sys_bpf;
	symbol = (__u64)&no_such_symbol;
	return 0;
}

/* Compatible is a structure of that name, not a mere declaration. */
struct rq {
	int lock;
};

extern const struct rq runqueues __ksym;
extern const struct rq no_such_variable __ksym __weak;

static const void *(*const bpf_per_cpu_ptr)(const void *percpu, __u32 cpu) = (void *)153;

__u64 has_runqueue, has_variable;

SEC("tc")
int variables(struct __sk_buff *skb)
{
	has_runqueue = bpf_per_cpu_ptr(&runqueues, 0) != 0;
	has_variable = &no_such_variable != 0;
	return 0;
}

extern void bpf_rcu_read_lock(void) __ksym;
extern void bpf_rcu_read_lock___flavour(void) __ksym __weak;
extern void bpf_rcu_read_lock___other(int argument) __ksym __weak;
extern void bpf_rcu_read_unlock(void) __ksym;
extern void bpf_no_such_function(void) __ksym __weak;

__u64 called, has_flavour, has_other, has_function;

SEC("tc")
int functions(struct __sk_buff *skb)
{
	bpf_rcu_read_lock();
	called = 1;
	bpf_rcu_read_unlock();
	has_flavour = bpf_rcu_read_lock___flavour != 0;
	has_other = bpf_rcu_read_lock___other != 0;
	if (bpf_no_such_function) {
		has_function = 1;
		bpf_no_such_function();
	}
	return 0;
}

SEC("tc")
int calls_what_is_missing(struct __sk_buff *skb)
{
	bpf_no_such_function();
	return 0;
}

struct bpf_sock_tuple {
	__u32 saddr, daddr;
	unsigned short sport, dport;
};

struct bpf_ct_opts___old {
	__s32 netns_id, error;
	__u8 l4proto, dir, reserved[2];
};

struct nf_conn {
	int timeout;
};

extern struct nf_conn *bpf_skb_ct_lookup(struct __sk_buff *skb, struct bpf_sock_tuple *tuple, __u32 tuple_size,
					 struct bpf_ct_opts___old *options, __u32 options_size) __ksym;
extern void bpf_ct_release(struct nf_conn *connection) __ksym;

__u64 lookup_error;

SEC("tc")
int functions_of_module(struct __sk_buff *skb)
{
	/* Of constants, clang would make a section without variables, which kernels before 5.12 refuse. */
	struct bpf_sock_tuple tuple = {};
	struct bpf_ct_opts___old options = {};
	struct nf_conn *connection;

	tuple.sport = 1;
	options.netns_id = -1;
	options.l4proto = 17;
	connection = bpf_skb_ct_lookup(skb, &tuple, sizeof(tuple), &options, sizeof(options));
	if (connection)
		bpf_ct_release(connection);
	else
		lookup_error = -options.error;
	return 0;
}
