/*
 * What each compiler makes of the same program: maps by BTF, variables of each kind of section, a function in .text and one
 * of the section, CO-RE relocations, and a program without any of it. No headers, so that every compiler takes it.
 */
#define SECTION(name) __attribute__((section(name), used))
#define __uint(name, value) int (*name)[value]
#define __type(name, type) typeof(type) *name
#define noinline __attribute__((noinline))

typedef unsigned int u32;
typedef unsigned long long u64;

static void *(*const map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*const probe_read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static u64 (*const get_current_task)(void) = (void *)35;

struct value {
	u64 count;
	u32 flags : 3;
};

struct {
	__uint(type, 1);
	__uint(max_entries, 64);
	__type(key, u32);
	__type(value, struct value);
} counts SECTION(".maps");

struct {
	__uint(type, 2);
	__uint(max_entries, 4);
	__uint(key_size, 4);
	__uint(value_size, 8);
} plain SECTION(".maps");

const volatile u32 only_pid = 7;
u64 seen = 1;
u64 missed;
static volatile u32 hidden_here = 3;

struct task_struct {
	int pid;
	int tgid;
} __attribute__((preserve_access_index));

struct nowhere___flavour {
	int member;
} __attribute__((preserve_access_index));

noinline u64 add(u64 a, u64 b)
{
	return a + b * hidden_here;
}

static noinline u64 pid_of(struct task_struct *task)
{
	int pid = 0;

	probe_read_kernel(&pid, sizeof(pid), &task->pid);
	return pid;
}

SECTION("raw_tp/sys_enter") int count(void *context)
{
	struct task_struct *task = (void *)get_current_task();
	u32 key = pid_of(task);
	struct value *value;

	if (only_pid && key != only_pid) {
		missed = add(missed, 1);
		return 0;
	}
	value = map_lookup_elem(&counts, &key);
	if (value)
		value->count = add(value->count, __builtin_preserve_field_info(task->tgid, 0));
	else
		seen += __builtin_preserve_field_info(((struct nowhere___flavour *)task)->member, 2);
	return 0;
}

SECTION("raw_tp/sys_exit") int look(void *context)
{
	u32 key = 0;

	return map_lookup_elem(&plain, &key) != 0;
}

SECTION("?socket") int nothing(void *context)
{
	return 0;
}

char _license[] SECTION("license") = "GPL";
