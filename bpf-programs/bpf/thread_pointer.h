/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What a thread outside of the kernel finds its own data by, on x86-64 and arm64. */
#pragma once
#include "kernel_types.h"
#include "unwind.h"

struct thread_struct___x86 {
	unsigned long fsbase;
} __attribute__((preserve_access_index));

struct task_struct___x86 {
	struct thread_struct___x86 thread;
} __attribute__((preserve_access_index));

struct user___arm64 {
	unsigned long tp_value;
} __attribute__((preserve_access_index));

struct thread_struct___arm64 {
	struct user___arm64 uw;
} __attribute__((preserve_access_index));

struct task_struct___arm64 {
	struct thread_struct___arm64 thread;
} __attribute__((preserve_access_index));

/* The kernel has it since the thread was last switched to, or set it up. */
static __always_inline __u64 thread_pointer(void)
{
	__u64 value = 0;

	if (on_arm64) {
		struct task_struct___arm64 *task = (void *)bpf_get_current_task();

		read_field(value, task, thread.uw.tp_value);
	} else {
		struct task_struct___x86 *task = (void *)bpf_get_current_task();

		read_field(value, task, thread.fsbase);
	}
	return value;
}
