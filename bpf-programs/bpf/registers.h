/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Registers of x86-64 and of arm64, whichever this kernel has. */
#pragma once
#include "helpers.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct pt_regs___x86 {
	unsigned long si;
	unsigned long dx;
	unsigned long ax;
	unsigned long orig_ax;
	unsigned long di;
};

struct pt_regs___arm64 {
	__u64 regs[31];
	int syscallno;
};

#pragma clang attribute pop

/* Of the registers at a function's entry, argument 0, 1 or 2; `n` is a constant. */
static __always_inline __u64 argument(void *regs, int n)
{
	__u64 value = 0;

	if (__builtin_preserve_field_info(((struct pt_regs___x86 *)regs)->si, 2 /* exists */)) {
		if (n == 0)
			read_field(value, (struct pt_regs___x86 *)regs, di);
		else if (n == 1)
			read_field(value, (struct pt_regs___x86 *)regs, si);
		else
			read_field(value, (struct pt_regs___x86 *)regs, dx);
	} else if (__builtin_preserve_field_info(((struct pt_regs___arm64 *)regs)->regs, 2)) {
		if (n == 0)
			read_field(value, (struct pt_regs___arm64 *)regs, regs[0]);
		else if (n == 1)
			read_field(value, (struct pt_regs___arm64 *)regs, regs[1]);
		else
			read_field(value, (struct pt_regs___arm64 *)regs, regs[2]);
	}
	return value;
}

static __always_inline __u64 returned(void *regs)
{
	__u64 value = 0;

	if (__builtin_preserve_field_info(((struct pt_regs___x86 *)regs)->ax, 2))
		read_field(value, (struct pt_regs___x86 *)regs, ax);
	else if (__builtin_preserve_field_info(((struct pt_regs___arm64 *)regs)->regs, 2))
		read_field(value, (struct pt_regs___arm64 *)regs, regs[0]);
	return value;
}
