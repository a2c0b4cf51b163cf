/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Which call a task is in: its number, and whether it is one of a 32-bit program. */
#pragma once
#include "registers.h"
#include "syscall_maps.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct thread_info___syscalls {
	unsigned long flags;
	/* x86 alone. */
	__u32 status;
};

struct task_struct___syscalls {
	struct thread_info___syscalls thread_info;
};

#pragma clang attribute pop

/* TS_COMPAT of arch/x86; TIF_32BIT of arch/arm64 and arch/riscv. */
#define X86_STATUS_COMPAT 2
#define ARM64_FLAG_32BIT (1UL << 22)
#define RISCV_FLAG_32BIT (1UL << 11)

/* How a program gets at the kernel's structures: DIRECT where the verifier knows their types. */
#define DIRECT 1
#define COPIED 0

/* Whether the kernel's own `long` has 32 bits. */
static __always_inline int is_narrow(void)
{
	return machine == MACHINE_ARM || machine == MACHINE_I386;
}

static __always_inline __u32 current_abi(int access)
{
	struct task_struct___syscalls *task;
	unsigned long flags = 0, wanted = machine == MACHINE_ARM64 ? ARM64_FLAG_32BIT : RISCV_FLAG_32BIT;
	__u32 status = 0;

	/* A 32-bit kernel has no others. */
	if (is_narrow())
		return NATIVE;
	if (access == DIRECT) {
		task = (void *)bpf_get_current_task_btf();
		if (machine == MACHINE_X86)
			return !!(task->thread_info.status & X86_STATUS_COMPAT);
		return !!(task->thread_info.flags & wanted);
	}
	task = (void *)bpf_get_current_task();
	if (machine == MACHINE_X86) {
		read_field(status, task, thread_info.status);
		return !!(status & X86_STATUS_COMPAT);
	}
	read_field(flags, task, thread_info.flags);
	return !!(flags & wanted);
}

/* The number that a call returns with: -1 where there is none any more. */
static __always_inline __s64 number_of(void *regs, int access)
{
	if (access == COPIED)
		return call_number(regs);
	if (machine == MACHINE_X86 || machine == MACHINE_I386)
		return ((struct pt_regs___x86 *)regs)->orig_ax;
	if (machine == MACHINE_ARM64)
		return ((struct pt_regs___arm64 *)regs)->syscallno;
	if (machine == MACHINE_ARM)
		return ((struct pt_regs___arm *)regs)->uregs[7];
	return ((struct pt_regs___riscv *)regs)->a7;
}

/* In the range of a cell's key: MAX_NUMBER stands for what cannot be a call. */
static __always_inline __u32 small_number(__s64 number)
{
	/* x32 has the numbers of x86_64 with a bit set. */
	if (machine == MACHINE_X86 || machine == MACHINE_I386)
		number &= ~0x40000000LL;
	else if (number >= ARM_PRIVATE && number < ARM_PRIVATE + 8)
		return ARM_PRIVATE_AT + (number - ARM_PRIVATE);
	return (__u64)number < ARM_PRIVATE_AT ? number : MAX_NUMBER;
}
