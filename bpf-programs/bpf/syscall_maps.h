/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What programs at system calls keep, and what user space tells them. See syscalls.bpf.c. */
#pragma once
#include "events.h"

/* Defaults; user space sizes the maps to the machine before they are created. */
#define MAX_COUNTS 16384
#define WINDOWS 2
#define MAX_CPUS 1

#define CELLS 64
#define STARTS 4096
#define MORE_STARTS 4096

/* Numbers of calls: those of the machine, and those of its 32-bit programs. */
#define NATIVE 0
#define COMPAT 1
#define MAX_NUMBER 1023
/* Calls that only ARM's 32-bit programs have, from 0xf0000 on, are put here. */
#define ARM_PRIVATE 0xf0000
#define ARM_PRIVATE_AT 1008

#define MACHINE_X86 1
#define MACHINE_ARM64 2
#define MACHINE_RISCV 3
#define MACHINE_ARM 4
#define MACHINE_I386 5

struct cell_key {
	__u32 tgid;
	/* From the lowest bit: 10 bits number, 1 bit COMPAT, 9 bits place in the histogram, 12 bits error. Places are NOT_TIMED,
	 * 1 for OTLP's zero bucket, 2 for slot 0 and so on. */
	__u32 what;
};

#define NOT_TIMED 0
#define ABI_SHIFT 10
#define PLACE_SHIFT 11
#define ERROR_SHIFT 20

struct cell_count {
	/* Calls. */
	__u64 calls;
	/* Calls that those of them that were timed stand for. */
	__u64 weight;
	/* Nanoseconds of all that they stand for. */
	__u64 sum_ns;
	char comm[16];
};

struct cell {
	struct cell_key key;
	struct cell_count count;
};

struct cells {
	struct cell cells[CELLS];
};

struct start {
	/* 0: nobody's. Otherwise the upper part of the thread's number, and the time. */
	volatile __u64 word;
	/* START_OF. */
	volatile __u32 call;
	/* CLAIM for each thread that has this place or tries to get it, ELSEWHERE for each in `more_starts` that belongs here. */
	volatile __u32 threads;
};

#define CLAIM 1
#define CLAIMS 0xffff
#define ELSEWHERE (CLAIMS + 1)

#define TIME_BITS 54
#define TIME_MASK ((1ULL << TIME_BITS) - 1)

/* A call's number, and how many calls it stands for; COUNTED: its return is nothing to count any more. */
#define START_OF(number, weight) ((number) << WEIGHT_BITS | (weight))
#define WEIGHT_BITS 20
#define WEIGHT_MASK ((1U << WEIGHT_BITS) - 1)
#define MAX_WEIGHT 65536
#define COUNTED 0

struct other_start {
	__u64 boot_ns;
	/* START_OF. */
	__u32 call;
	__u32 pad;
};

struct cpu_state {
	/* Returns from system calls, whatever became of them. */
	__u64 runs;
	/* Calls that are missing, as the table was full. */
	__u64 table_full;
	/* Calls without a time, as there was no place for their beginning. */
	__u64 starts_full;
	/* Calls that should have been timed, and whose beginning was not seen. */
	__u64 no_start;
	/* When a call was last timed. */
	__u64 sampled_ns;
	/* Calls to let pass before the next is timed, and what that was set to, with the one timed. */
	__u32 skip;
	__u32 drawn;
	__u64 pad[2];
};

#define KIND_SLOW_CALL 1

/* A call that took longer than the threshold. */
struct slow_call {
	struct event head;
	__u64 duration_ns;
	/* As in the key of a cell, without a place. */
	__u32 what;
	__u32 pad;
	char comm[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, WINDOWS);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_HASH);
		__uint(max_entries, MAX_COUNTS);
		__uint(key_size, sizeof(struct cell_key));
		__uint(value_size, sizeof(struct cell_count));
	});
} counts SEC(".maps");

/* Those of the first window by CPU, then those of the second. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, WINDOWS * MAX_CPUS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct cells);
} cells SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, STARTS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct start);
} starts SEC(".maps");

/* By the thread's number. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MORE_STARTS);
	__type(key, __u32);
	__type(value, struct other_start);
} more_starts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_CPUS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct cpu_state);
} cpu_states SEC(".maps");

const struct cell_key *describe_cell_key __attribute__((unused));
const struct cell_count *describe_cell_count __attribute__((unused));
const struct slow_call *describe_slow_call __attribute__((unused));

/* Which window is being filled. */
volatile __u32 active = 0;
/* At most one call in so many is timed. */
volatile __u32 one_in = 1;

/* Set before loading. */
/* CPUs that have cells; others use the table. */
const volatile __u32 cpus = MAX_CPUS;
const volatile __u32 machine = MACHINE_X86;
const volatile __u32 scale = 2;
/* Nanoseconds between two calls that are timed on a CPU; 0: every call is. */
const volatile __u64 sample_interval = 50000;
/* Calls that are faster are counted, but not in the histogram. */
const volatile __u64 minimum_ns = 0;
/* Calls that are slower are told one by one; 0: none is. */
const volatile __u64 threshold_ns = 0;
/* Sets of calls: a bit a number, first NATIVE's. */
#define WORDS (2 * (MAX_NUMBER + 1) / 64)
/* Only these are looked at, if `some_only`. */
const volatile __u64 wanted_calls[WORDS] = {};
const volatile __u32 some_only = 0;
/* Counted when they begin, since they never return, or return with the registers of another time. */
const volatile __u64 entry_calls[WORDS] = {};
/* Of these, the ones that return. */
const volatile __u64 sigreturn_calls[WORDS] = {};
/* Calls that make a task, which then returns 0 from a call that it never made. */
const volatile __u64 fork_calls[WORDS] = {};
/* Calls that return as execve's of the program that they start, whichever they were. */
const volatile __u64 exec_calls[WORDS] = {};

static __always_inline int in_set(const volatile __u64 *set, __u32 abi, __u32 number)
{
	__u32 word = (abi * (MAX_NUMBER + 1) + (number & MAX_NUMBER)) / 64;

	/* Verifiers before 5.16 forget the bounds of a number that is put on the stack: they are to be set right here. */
	asm volatile("" : "+r"(word));
	return set[word & (WORDS - 1)] >> (number & 63) & 1;
}

static __always_inline struct cpu_state *cpu_state(__u32 cpu)
{
	return bpf_map_lookup_elem(&cpu_states, &cpu);
}
