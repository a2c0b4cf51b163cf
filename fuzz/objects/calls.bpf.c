/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Calls between sections and within one, a callback, data of every kind, a weak function, and an unused program. */
#define SEC(name) __attribute__((section(name), used))
#define NOINLINE __attribute__((noinline))

typedef unsigned int u32;
typedef unsigned long long u64;

static long (*loop)(u32 count, void *callback, void *context, u64 flags) = (void *)181;

const volatile u32 limit = 10;
volatile u64 counter;
volatile u32 start = 3;
static volatile u64 hidden[4];

static NOINLINE long step(u32 index, void *context)
{
	hidden[index & 3] += limit;
	*(u64 *)context += index;
	return 0;
}

NOINLINE int add(u32 value)
{
	counter += value + start;
	return counter;
}

__attribute__((weak, noinline)) int optional(u32 value)
{
	return add(value) + 1;
}

SEC("tp_btf/sched_switch") int on_switch(u64 *context)
{
	u64 sum = 0;

	loop(limit, step, &sum, 0);
	return add(sum) + optional(*context);
}

SEC("fentry/do_exit") int on_exit(u64 *context)
{
	return add(*context);
}

SEC("?xdp") int unused(void *context)
{
	return 2;
}

char _license[] SEC("license") = "Dual MIT/GPL";
