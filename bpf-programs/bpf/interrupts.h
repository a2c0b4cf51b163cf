/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Whether a program runs on behalf of the current thread, or in an interrupt that has come upon it. */
#pragma once
#include "user_registers.h"

#define X86_ORIG_AX 15

/* The counter of include/linux/preempt.h would tell, but where it is differs, and not every kernel says it. Interrupts have stacks of their own; on
 * x86-64 not if they come upon a thread outside of the kernel, which has then entered it by no system call.
 *
 * Programs that call this must need less than 64 bytes of stack: for others, kernels from 6.13 on have stacks elsewhere. */
static __always_inline int is_in_interrupt(int has_registers)
{
	struct task_struct___stack *task = (void *)bpf_get_current_task();
	void *own = &own, *stack = 0;
	__u64 word = 0, entry;

	read_field(stack, task, stack);
	/* Read back, so that the verifier takes it for a number. */
	bpf_probe_read_kernel(&word, sizeof(word), &own);
	if (!stack || word - (__u64)stack >= kernel_stack_bytes)
		return 1;
	if (on_arm64 || !has_registers)
		return 0;
	entry = entry_registers(1);
	return entry && mode_of(register_at(entry, X86_MODE)) != MODE_KERNEL && register_at(entry, X86_ORIG_AX) == -1ULL;
}
