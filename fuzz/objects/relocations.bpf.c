/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A CO-RE relocation of each kind: fields, bit-fields, sizes, types, enumerators; some that no kernel has. */
#define SEC(name) __attribute__((section(name), used))
#define relocated __attribute__((preserve_access_index))

typedef unsigned int u32;
typedef unsigned long u64;

struct pid {
	u32 level;
} relocated;

struct task_struct {
	int pid;
	int tgid;
	u32 flag : 3;
	struct pid *thread_pid;
	char comm[16];
} relocated;

struct task_struct___other {
	u64 no_such_member;
} relocated;

struct no_such_struct {
	int member;
} relocated;

enum pid_type { PIDTYPE_PID, PIDTYPE_TGID = 7 };
enum wide { WIDE_A = 1, WIDE_B = 1UL << 40 };
typedef struct { int counter; } atomic_t;

#define field(of, what) __builtin_preserve_field_info((of), what)

volatile u64 sum;

SEC("kprobe/do_exit") int fields(struct task_struct *task)
{
	struct task_struct___other *other = (void *)task;

	sum += task->pid + task->tgid + task->comm[3] + task->flag;
	sum += field(task->flag, 0) + field(task->flag, 1) + field(task->flag, 3) + field(task->flag, 4)
		+ field(task->flag, 5);
	if (field(other->no_such_member, 2))
		sum += other->no_such_member;
	return field(task->thread_pid->level, 2);
}

SEC("raw_tp/sched_switch") int types(void *context)
{
	sum += __builtin_btf_type_id(*(struct task_struct *)0, 0) + __builtin_btf_type_id(*(struct pid *)0, 1);
	sum += __builtin_preserve_type_info(*(struct no_such_struct *)0, 0);
	sum += __builtin_preserve_type_info(*(struct task_struct *)0, 1);
	sum += __builtin_preserve_type_info(*(atomic_t *)0, 2);
	sum += __builtin_preserve_enum_value(*(enum pid_type *)PIDTYPE_TGID, 1);
	sum += __builtin_preserve_enum_value(*(enum wide *)WIDE_B, 0);
	return 0;
}

char _license[] SEC("license") = "GPL";
