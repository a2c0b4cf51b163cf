/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The registers that a thread has outside of the kernel, on x86-64 and arm64. */
#pragma once
#include "kernel_types.h"
#include "unwind.h"

/* Registers of an event are `bpf_user_pt_regs_t`, which begins as the kernel's own `pt_regs` does (asm/ptrace.h of both). In words: */
#define X86_FP 4
#define X86_PC 16
#define X86_MODE 17 /* cs */
#define X86_SP 19
#define X86_WORDS 21
#define ARM64_FP 29
#define ARM64_LINK 30
#define ARM64_SP 31
#define ARM64_PC 32
#define ARM64_MODE 33 /* pstate */

enum user_mode {
	MODE_KERNEL,
	MODE_USER,
	/* Of a 32-bit program. */
	MODE_COMPAT,
};

/* Set before loading. Whether the kernel has bpf_task_pt_regs() and the types that it takes (Linux 5.15). */
const volatile __u32 has_task_pt_regs = 0;
/* Bytes of a kernel stack, on whose end the registers lie. */
const volatile __u64 kernel_stack_bytes = 16384;

struct task_struct___stack {
	void *stack;
} __attribute__((preserve_access_index));

/* arm64's, for its size, which differs between versions. */
struct pt_regs {
} __attribute__((preserve_access_index));

static __always_inline enum user_mode mode_of(__u64 word)
{
	if (on_arm64) {
		/* PSR_MODE32_BIT, PSR_MODE_MASK. */
		if (word & 0x10)
			return MODE_COMPAT;
		return word & 0xf ? MODE_KERNEL : MODE_USER;
	}
	/* __USER32_CS; else by the privilege level. */
	if ((word & 0xffff) == 0x23)
		return MODE_COMPAT;
	return (word & 3) == 3 ? MODE_USER : MODE_KERNEL;
}

/* Where the registers are that a thread entered the kernel with; 0: nobody knows. */
static __always_inline __u64 entry_registers(int kernel_types)
{
	if (has_task_pt_regs)
		return bpf_task_pt_regs(bpf_get_current_task_btf());
	if (kernel_types) {
		struct task_struct___stack *task = (void *)bpf_get_current_task();
		void *stack = 0;

		read_field(stack, task, stack);
		if (stack)
			return (__u64)stack + kernel_stack_bytes -
			       (on_arm64 ? __builtin_preserve_type_info(*(struct pt_regs *)0, 1 /* its size */) :
					   X86_WORDS * 8);
	}
	return 0;
}

/* A word of an event's registers: at a constant distance, which is all that verifiers allow, and which compilers would choose between
 * first and then add. */
#define event_register(event, word)                                                               \
	({                                                                                        \
		__u64 value;                                                                      \
		asm volatile("%0 = *(u64 *)(%1 + %2)" : "=r"(value) : "r"(event), "i"((word) * 8)); \
		value;                                                                            \
	})

static __always_inline __u64 register_at(__u64 registers, int word)
{
	__u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (const void *)(registers + word * 8));
	return value;
}

static __always_inline void new_walk(struct walk *walk)
{
	walk->frames = 0;
	walk->python = 0;
	walk->span = 0;
	walk->exact = 1;
	walk->has_link = on_arm64;
	walk->link = 0;
}

/* Begins a walk where the current thread has entered the kernel. MODE_KERNEL: it is a thread of the kernel's own; MODE_COMPAT: as it says,
 * or nobody knows its registers. */
static __always_inline enum user_mode begin_walk_at_entry(struct walk *walk, int kernel_types)
{
	__u64 entry = entry_registers(kernel_types);

	new_walk(walk);
	if (!entry)
		return MODE_COMPAT;
	walk->pc = register_at(entry, on_arm64 ? ARM64_PC : X86_PC);
	walk->sp = register_at(entry, on_arm64 ? ARM64_SP : X86_SP);
	walk->fp = register_at(entry, on_arm64 ? ARM64_FP : X86_FP);
	if (on_arm64)
		walk->link = stripped(register_at(entry, ARM64_LINK));
	/* Nothing was read, or it is a thread that has never been outside of the kernel. */
	if (!walk->pc || !walk->sp)
		return MODE_KERNEL;
	return mode_of(register_at(entry, on_arm64 ? ARM64_MODE : X86_MODE));
}

/* Begins a walk where the thread of an event is outside of the kernel; as above. */
static __always_inline enum user_mode begin_walk(struct walk *walk, const void *event, int kernel_types)
{
	enum user_mode mode;

	new_walk(walk);
	if (on_arm64) {
		mode = mode_of(event_register(event, ARM64_MODE));
		walk->pc = event_register(event, ARM64_PC);
		walk->sp = event_register(event, ARM64_SP);
		walk->fp = event_register(event, ARM64_FP);
		walk->link = stripped(event_register(event, ARM64_LINK));
	} else {
		mode = mode_of(event_register(event, X86_MODE));
		walk->pc = event_register(event, X86_PC);
		walk->sp = event_register(event, X86_SP);
		walk->fp = event_register(event, X86_FP);
	}
	return mode == MODE_KERNEL ? begin_walk_at_entry(walk, kernel_types) : mode;
}
