/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Programs that count their runs. */
#pragma once
#include "helpers.h"

/* A program `name` in `section` which counts its runs in `name_runs` and returns `result`. */
#define COUNT(name, section, result)                  \
	__u64 name##_runs;                            \
	SEC(section)                                  \
	int name(void *ctx)                           \
	{                                             \
		__sync_fetch_and_add(&name##_runs, 1); \
		return result;                        \
	}

/* The digits of the programs that ran, in their order. */
#define NOTE_ORDER(name, section, digit, result)      \
	SEC(section)                                  \
	int name(void *ctx)                           \
	{                                             \
		order = order * 10 + digit;           \
		return result;                        \
	}
