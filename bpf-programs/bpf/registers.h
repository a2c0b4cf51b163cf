/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Registers of every machine, whichever this kernel is for: a 32-bit agent too can meet a 64-bit kernel. */
#pragma once
#include "helpers.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct pt_regs___x86 {
	unsigned long di;
	unsigned long si;
	unsigned long dx;
	unsigned long cx;
	unsigned long ax;
	unsigned long orig_ax;
	unsigned long sp;
	/* Of 64-bit kernels alone. */
	unsigned long r8;
};

struct pt_regs___arm64 {
	__u64 regs[31];
	int syscallno;
};

struct pt_regs___arm {
	unsigned long uregs[18];
};

struct pt_regs___riscv {
	unsigned long sp;
	unsigned long a0;
	unsigned long a1;
	unsigned long a2;
	unsigned long a3;
	unsigned long a4;
	unsigned long a7;
};

#pragma clang attribute pop

#define on_x86(regs) field_exists((struct pt_regs___x86 *)(regs), orig_ax)
#define on_x86_64(regs) field_exists((struct pt_regs___x86 *)(regs), r8)
#define on_arm64(regs) field_exists((struct pt_regs___arm64 *)(regs), syscallno)
#define on_arm(regs) field_exists((struct pt_regs___arm *)(regs), uregs)
#define on_riscv(regs) field_exists((struct pt_regs___riscv *)(regs), a7)

/* The n-th of five fields, or of an array's elements; `n` is a constant, but not before functions are inlined. */
#define read_nth(dst, n, base, f0, f1, f2, f3, f4)  \
	do {                                        \
		if ((n) == 0)                       \
			read_field(dst, base, f0);  \
		else if ((n) == 1)                  \
			read_field(dst, base, f1);  \
		else if ((n) == 2)                  \
			read_field(dst, base, f2);  \
		else if ((n) == 3)                  \
			read_field(dst, base, f3);  \
		else                                \
			read_field(dst, base, f4);  \
	} while (0)

/* A word of the stack of a 32-bit kernel. */
static __always_inline __u64 stacked(__u64 sp, int n)
{
	__u32 word = 0;

	bpf_probe_read_kernel(&word, sizeof(word), (void *)(sp + 4 * n));
	return word;
}

/* Of the registers at the entry of one of the kernel's functions, an argument from 0 to 4; `n` is a constant. */
static __always_inline __u64 argument(void *regs, int n)
{
	struct pt_regs___x86 *x86 = regs;
	struct pt_regs___arm64 *arm64 = regs;
	struct pt_regs___arm *arm = regs;
	struct pt_regs___riscv *riscv = regs;
	__u64 value = 0, sp = 0;

	if (on_x86_64(regs)) {
		read_nth(value, n, x86, di, si, dx, cx, r8);
	} else if (on_x86(regs)) {
		/* Built with -mregparm=3: the other arguments lie above the return address. */
		read_field(sp, x86, sp);
		if (n < 3)
			read_nth(value, n, x86, ax, dx, cx, cx, cx);
		else
			value = stacked(sp, n - 2);
	} else if (on_arm64(regs)) {
		read_nth(value, n, arm64, regs[0], regs[1], regs[2], regs[3], regs[4]);
	} else if (on_arm(regs)) {
		read_field(sp, arm, uregs[13]);
		if (n < 4)
			read_nth(value, n, arm, uregs[0], uregs[1], uregs[2], uregs[3], uregs[3]);
		else
			value = stacked(sp, n - 4);
	} else if (on_riscv(regs)) {
		read_nth(value, n, riscv, a0, a1, a2, a3, a4);
	}
	return value;
}

/* Of the registers at a function's return, the pointer that it returned. */
static __always_inline __u64 returned_pointer(void *regs)
{
	__u64 value = 0;

	if (on_x86(regs))
		read_field(value, (struct pt_regs___x86 *)regs, ax);
	else if (on_arm64(regs))
		read_field(value, (struct pt_regs___arm64 *)regs, regs[0]);
	else if (on_arm(regs))
		read_field(value, (struct pt_regs___arm *)regs, uregs[0]);
	else if (on_riscv(regs))
		read_field(value, (struct pt_regs___riscv *)regs, a0);
	return value;
}

/* The number that it returned, of a long's size: addresses above all others are errors. */
static __always_inline __u64 returned(void *regs)
{
	__u64 value = returned_pointer(regs);

	if (on_arm(regs) || (on_x86(regs) && !on_x86_64(regs)))
		return (__s64)(__s32)value;
	return value;
}

/* Of a system call's registers, as it returns: its number. */
static __always_inline __s64 call_number(void *regs)
{
	unsigned long number = 0;
	int arm64 = 0;

	if (on_x86(regs)) {
		read_field(number, (struct pt_regs___x86 *)regs, orig_ax);
	} else if (on_arm64(regs)) {
		read_field(arm64, (struct pt_regs___arm64 *)regs, syscallno);
		return arm64;
	} else if (on_arm(regs)) {
		read_field(number, (struct pt_regs___arm *)regs, uregs[7]);
	} else if (on_riscv(regs)) {
		read_field(number, (struct pt_regs___riscv *)regs, a7);
	}
	return number;
}

/* Its second argument. */
static __always_inline __u64 call_argument_1(void *regs)
{
	__u64 value = 0;

	/* That of a 32-bit kernel's calls is where its functions have none. */
	if (!on_x86(regs) || on_x86_64(regs))
		return argument(regs, 1);
	read_field(value, (struct pt_regs___x86 *)regs, cx);
	return value;
}
