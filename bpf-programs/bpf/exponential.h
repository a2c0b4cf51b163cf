/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Durations counted straight into OTLP's exponential histograms, in seconds.
 *
 * Bucket i of scale s holds (2^(i / 2^s), 2^((i + 1) / 2^s)] seconds. Nanoseconds are first turned into units of 2^-30 s:
 * then buckets of scale 0 end at powers of two of these units. A slot is a bucket counted from that of one unit.
 */
#pragma once
#include "helpers.h"

/* Slots of an octave: scale 0 has 1, scale 3 has 8. */
#define MAX_SCALE 3
/* 2^14 s are four and a half hours; what takes longer is counted in the last slot. */
#define OCTAVES 44
#define SLOTS(scale) (OCTAVES << (scale))
/* What takes one unit or less is in OTLP's zero bucket: this slot. */
#define ZERO_SLOT (-1)

/* Where the parts of an octave end, for a number between 1 and 2 with 63 fractional bits: 2^(j / 8). */
static const __u64 octave_parts[8] = {
	0x8000000000000000ULL, 0x8b95c1e3ea8bd6e7ULL, 0x9837f0518db8a96fULL, 0xa5fed6a9b15138eaULL,
	0xb504f333f9de6484ULL, 0xc5672a115506daddULL, 0xd744fccad69d6af4ULL, 0xeac0c6e7dd24392fULL,
};

/* 1 if `value` is above `limit`, both below 2^63. Without a branch: the verifier follows each way of each branch to the end, and there are
 * enough here for thousands of ways. */
static __always_inline __u32 is_above(__u64 value, __u64 limit)
{
	__u64 difference = limit - value;

	/* For the compiler not to see through it. */
	asm volatile("" : "+r"(difference));
	return difference >> 63;
}

/* Number of the highest bit that is set of a number below 2^63; 0 for 0. In six steps, since BPF has no instruction for it. */
static __always_inline __u32 highest_bit(__u64 value)
{
	__u32 bit = 0;

	for (__u32 bits = 32; bits; bits >>= 1) {
		__u32 shift = is_above(value, (1ULL << bits) - 1) * bits;

		bit += shift;
		value >>= shift;
	}
	return bit;
}

/* The slot of a duration, ZERO_SLOT to SLOTS(scale) - 1. `scale` is 0 to MAX_SCALE. */
static __always_inline int duration_slot(__u64 ns, __u32 scale)
{
	/* 2^30 / 10^9 is 1 + 77324 / 2^20, to 2^-31. Durations past 2^46 ns, 19 hours, would overflow it. */
	__u64 units = ns + ((ns & ((1ULL << 46) - 1)) * 77324 >> 20);
	__u64 below;
	__u32 octave;
	int slot;

	if (ns >> 46)
		return SLOTS(scale) - 1;
	if (units <= 1)
		return ZERO_SLOT;
	/* Buckets hold their upper end and not their lower one. */
	below = units - 1;
	octave = highest_bit(below);
	slot = octave << scale;
	if (scale) {
		/* In whole numbers, units > 2^(octave + j / 8) is below >= that, rounded down. */
		__u32 step = 8 >> scale;

		for (__u32 j = step; j < 8; j += step)
			slot += is_above(below, (octave_parts[j & 7] >> (63 - octave)) - 1);
	}
	return slot < SLOTS(scale) ? slot : SLOTS(scale) - 1;
}

/* Whether a slot is one of a histogram's, right before it is used: verifiers before 5.16 forget the bounds of a number that is put on the
 * stack. */
#define is_slot(slot, scale)                             \
	({                                               \
		asm volatile("" : "+r"(slot));           \
		(slot) >= 0 && (slot) < SLOTS(scale);    \
	})
