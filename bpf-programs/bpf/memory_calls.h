/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Address space that processes ask for and give back: mmap, munmap and brk. */
#pragma once
#include "memory_sums.h"
#include "registers.h"

/* Error numbers of system calls are the last addresses that there are. */
#define MAX_ERRNO 4095
/* A process of 32 bits on a kernel of 64: on x86, on arm64 and on riscv. */
#define TS_COMPAT 2
#define TIF_32BIT (1UL << 22)
#define TIF_32BIT_RISCV (1UL << 11)

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct mm_struct___calls {
	unsigned long brk;
};

struct task_struct___calls {
	struct mm_struct___calls *mm;
};

struct thread_info___x86 {
	__u32 status;
};

struct thread_info___flags {
	unsigned long flags;
};

struct task_struct___x86 {
	struct thread_info___x86 thread_info;
};

struct task_struct___flags {
	struct thread_info___flags thread_info;
};

#pragma clang attribute pop

/* What is kept of a call that a thread is in, by its number: of mmap and munmap the length, of brk where the heap ended. None
 * of them calls another. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_STALLED);
	__type(key, __u32);
	__type(value, __u64);
} in_call SEC(".maps");

/* Size of a page. */
const volatile __u64 page_bytes = 4096;

static __always_inline __u64 whole_pages(__u64 bytes)
{
	return (bytes + page_bytes - 1) & -page_bytes;
}

/* What a call answered: an address, or an error. */
static __always_inline int is_error(__u64 returned)
{
	return returned > (__u64)-MAX_ERRNO - 1;
}

static __always_inline int mapped(__u64 length, __u64 returned)
{
	if (!is_error(returned))
		add(MAPPED, 0, whole_pages(length));
	return 0;
}

static __always_inline int unmapped(__u64 length, __u64 returned)
{
	if (!is_error((long long)(__s32)returned))
		add(UNMAPPED, 0, whole_pages(length));
	return 0;
}

/* Where the heap of the current process ends. */
static __always_inline __u64 heap_end(void)
{
	struct task_struct___calls *task = (void *)bpf_get_current_task();
	struct mm_struct___calls *mm = 0;
	unsigned long end = 0;

	read_field(mm, task, mm);
	read_field(end, mm, brk);
	return end;
}

static __always_inline int call_begins(__u64 value)
{
	__u32 thread = bpf_get_current_pid_tgid();

	if (bpf_map_update_elem(&in_call, &thread, &value, BPF_ANY))
		COUNT(in_call_full);
	return 0;
}

/* Takes back what call_begins() kept; whether there was anything. */
static __always_inline int call_ends(__u64 *value)
{
	__u32 thread = bpf_get_current_pid_tgid();
	__u64 *found = bpf_map_lookup_elem(&in_call, &thread);

	if (!found)
		return 0;
	*value = *found;
	bpf_map_delete_elem(&in_call, &thread);
	return 1;
}

/* brk() answers where the heap ends, whether that was changed or not. */
static __always_inline int brk_ends(__u64 end)
{
	__u64 before;

	if (!call_ends(&before))
		return 0;
	before = whole_pages(before);
	end = whole_pages(end);
	if (end != before)
		add(end > before ? BRK_GROWN : BRK_SHRUNK, 0, end > before ? end - before : before - end);
	return 0;
}

SEC("?fexit/vm_mmap_pgoff")
int mmap_fexit(__u64 *args)
{
	return mapped(args[2], args[6]);
}

SEC("?fexit/__vm_munmap")
int munmap_fexit(__u64 *args)
{
	return unmapped(args[1], args[3]);
}

/* User space says where: the kernel calls it otherwise on each architecture. x86-64 has two, the second for 32-bit programs. */
#define BRK(suffix, function)                                           \
	SEC("?fentry/" function)                                        \
	int brk_fentry##suffix(__u64 *args)                             \
	{                                                               \
		return call_begins(heap_end());                         \
	}                                                               \
	SEC("?fexit/" function)                                         \
	int brk_fexit##suffix(__u64 *args)                              \
	{                                                               \
		return brk_ends(args[1]);                               \
	}

BRK(, "__x64_sys_brk")
BRK(_compat, "__ia32_sys_brk")

SEC("?kprobe/vm_mmap_pgoff")
int mmap_kprobe(void *regs)
{
	return call_begins(argument(regs, 2));
}

SEC("?kretprobe/vm_mmap_pgoff")
int mmap_kretprobe(void *regs)
{
	__u64 length;

	return call_ends(&length) ? mapped(length, returned(regs)) : 0;
}

SEC("?kprobe/__vm_munmap")
int munmap_kprobe(void *regs)
{
	return call_begins(argument(regs, 1));
}

SEC("?kretprobe/__vm_munmap")
int munmap_kretprobe(void *regs)
{
	__u64 length;

	return call_ends(&length) ? unmapped(length, returned(regs)) : 0;
}

SEC("?ksyscall/brk")
int brk_kprobe(void *regs)
{
	return call_begins(heap_end());
}

SEC("?kretsyscall/brk")
int brk_kretprobe(void *regs)
{
	return brk_ends(returned(regs));
}

/* Numbers of the calls. */
struct calls {
	int mmap;
	int munmap;
	int brk;
};

/* The calls of this machine; none for a 32-bit process of a 64-bit kernel, whose numbers are others. */
static __always_inline int find_calls(struct calls *calls)
{
	void *task = (void *)bpf_get_current_task();

	if (on_x86_64(0)) {
		__u32 status = 0;

		read_field(status, (struct task_struct___x86 *)task, thread_info.status);
		*calls = (struct calls){ .mmap = 9, .munmap = 11, .brk = 12 };
		return !(status & TS_COMPAT);
	}
	if (on_arm64(0) || on_riscv(0)) {
		unsigned long flags = 0;

		read_field(flags, (struct task_struct___flags *)task, thread_info.flags);
		*calls = (struct calls){ .mmap = 222, .munmap = 215, .brk = 214 };
		return !(flags & (on_arm64(0) ? TIF_32BIT : TIF_32BIT_RISCV));
	}
	if (on_x86(0) || on_arm(0)) {
		*calls = (struct calls){ .mmap = 192, .munmap = 91, .brk = 45 };
		return 1;
	}
	return 0;
}

SEC("?raw_tp/sys_enter")
int brk_sys_enter(__u64 *args)
{
	struct calls calls;

	if (!find_calls(&calls) || (int)args[1] != calls.brk)
		return 0;
	return call_begins(heap_end());
}

SEC("?raw_tp/sys_exit")
int calls_sys_exit(__u64 *args)
{
	void *regs = (void *)args[0];
	struct calls calls;
	int number = call_number(regs);

	if (!find_calls(&calls))
		return 0;
	if (number == calls.brk)
		return brk_ends(args[1]);
	if ((number == calls.mmap || number == calls.munmap) && !is_error(args[1]))
		add(number == calls.mmap ? MAPPED : UNMAPPED, 0, whole_pages(call_argument_1(regs)));
	return 0;
}
