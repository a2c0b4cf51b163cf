/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Maps of several types, maps in maps and programs in a map with initial values, and pinning. */
#define SEC(name) __attribute__((section(name), used))
#define __uint(name, value) int (*name)[value]
#define __type(name, type) typeof(type) *name
#define __array(name, type) typeof(type) *name[]

typedef unsigned int u32;
typedef unsigned long long u64;

static void *(*lookup)(void *map, const void *key) = (void *)1;
static long (*tail_call)(void *context, void *map, u32 index) = (void *)12;

struct inner {
	__uint(type, 2);
	__uint(max_entries, 4);
	__type(key, u32);
	__type(value, u64);
} first SEC(".maps");

struct {
	__uint(type, 12);
	__uint(max_entries, 2);
	__uint(key_size, 4);
	__array(values, struct inner);
} outer SEC(".maps") = { .values = { [1] = (void *)&first } };

struct {
	__uint(type, 27);
	__uint(max_entries, 5000);
} events SEC(".maps");

struct {
	__uint(type, 1);
	__uint(max_entries, 100);
	__uint(map_flags, 1);
	__uint(pinning, 1);
	__uint(key_size, 8);
	__uint(value_size, 16);
} pinned SEC(".maps");

int next(void *context);

struct {
	__uint(type, 3);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__array(values, int(void *));
} jumps SEC(".maps") = { .values = { [0] = (void *)&next } };

SEC("socket") int next(void *context)
{
	u64 key = 0;

	return lookup(&pinned, &key) != 0;
}

SEC("socket") int entry(void *context)
{
	u32 key = 1;
	void *map = lookup(&outer, &key);

	if (map)
		lookup(map, &key);
	lookup(&first, &key);
	tail_call(context, &jumps, 0);
	return lookup(&events, &key) != 0;
}

char _license[] SEC("license") = "GPL";
