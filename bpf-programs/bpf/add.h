/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Counters in maps. */
#pragma once

#include "helpers.h"

/* Set on 32-bit ARM. There the kernel runs 64-bit atomic additions by instructions that fault where the address is no multiple of
 * eight, as those of values in its hash tables are not, and dies (kernel/bpf/core.c, arch/arm/include/asm/atomic.h). What two CPUs add in the
 * same instant may then count once. */
const volatile __u32 plain_adds = 0;

/* Adds to what other CPUs add to as well. */
#define add_to(counter, amount)                                      \
	do {                                                         \
		if (plain_adds)                                      \
			*(counter) += (amount);                      \
		else                                                 \
			__sync_fetch_and_add((counter), (amount));   \
	} while (0)
