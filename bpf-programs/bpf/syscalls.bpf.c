/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* System calls: how often, with which error, how long, for each process and call.
 *
 * Everything is counted in cells: a cell is a process, a call, an error and a slot of the histogram, and a call adds to one
 * cell. Each CPU has a few cells of its own, found by a hash of their key, where a call that is like one before costs a
 * few instructions and no helper. A cell that another key needs is first added to the table of the window that all CPUs share.
 * There are two windows: user space flips `active`, waits until no program uses the old one, and takes cells and table out.
 *
 * The time at which a call began stands in `starts`, at a place found by the thread's number, in one word with the rest of the
 * number: it can be written and read without locks. Threads whose place is taken use a hash instead. Of calls that are
 * made often, only some are timed, and each stands for those since the last that was.
 *
 * The kernel does not run a program of this sort while the same one runs on the CPU, and a cell is used by `exit` programs
 * alone, of which one is attached: cells need no atomics. The tables do.
 */
#include "events.h"
#include "exponential.h"
#include "task_filter.h"

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
	/* How many calls the one that is timed stands for; COUNTED: its return is nothing to count any more. */
	volatile __u32 weight;
	/* Threads in `more_starts` that belong here. */
	volatile __u32 elsewhere;
};

#define TIME_BITS 54
#define TIME_MASK ((1ULL << TIME_BITS) - 1)
#define COUNTED 0

struct other_start {
	__u64 boot_ns;
	__u64 weight;
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

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct thread_info___syscalls {
	unsigned long flags;
	/* x86 alone. */
	__u32 status;
};

struct task_struct___syscalls {
	struct thread_info___syscalls thread_info;
};

struct pt_regs___x86 {
	unsigned long orig_ax;
};

struct pt_regs___arm64 {
	int syscallno;
};

struct pt_regs___riscv {
	unsigned long a7;
};

#pragma clang attribute pop

/* TS_COMPAT of arch/x86; TIF_32BIT of arch/arm64 and arch/riscv. */
#define X86_STATUS_COMPAT 2
#define ARM64_FLAG_32BIT (1UL << 22)
#define RISCV_FLAG_32BIT (1UL << 11)

/* How a program gets at the kernel's structures: DIRECT where the verifier knows their types. */
#define DIRECT 1
#define COPIED 0

static __always_inline int in_set(const volatile __u64 *set, __u32 abi, __u32 number)
{
	__u32 word = (abi * (MAX_NUMBER + 1) + (number & MAX_NUMBER)) / 64;

	/* Verifiers before 5.16 forget the bounds of a number that is put on the stack: they are to be set right here. */
	asm volatile("" : "+r"(word));
	return set[word & (WORDS - 1)] >> (number & 63) & 1;
}

static __always_inline __u32 current_abi(int access)
{
	struct task_struct___syscalls *task;
	unsigned long flags = 0, wanted = machine == MACHINE_ARM64 ? ARM64_FLAG_32BIT : RISCV_FLAG_32BIT;
	__u32 status = 0;

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
	unsigned long x86 = 0, riscv = 0;
	int arm64 = 0;

	if (machine == MACHINE_X86) {
		if (access == DIRECT)
			return ((struct pt_regs___x86 *)regs)->orig_ax;
		read_field(x86, (struct pt_regs___x86 *)regs, orig_ax);
		return x86;
	}
	if (machine == MACHINE_ARM64) {
		if (access == DIRECT)
			return ((struct pt_regs___arm64 *)regs)->syscallno;
		read_field(arm64, (struct pt_regs___arm64 *)regs, syscallno);
		return arm64;
	}
	if (access == DIRECT)
		return ((struct pt_regs___riscv *)regs)->a7;
	read_field(riscv, (struct pt_regs___riscv *)regs, a7);
	return riscv;
}

/* In the range of a cell's key: MAX_NUMBER stands for what cannot be a call. */
static __always_inline __u32 small_number(__s64 number)
{
	/* x32 has the numbers of x86_64 with a bit set. */
	if (machine == MACHINE_X86)
		number &= ~0x40000000LL;
	else if (number >= ARM_PRIVATE && number < ARM_PRIVATE + 8)
		return ARM_PRIVATE_AT + (number - ARM_PRIVATE);
	return (__u64)number < ARM_PRIVATE_AT ? number : MAX_NUMBER;
}

static __always_inline struct cpu_state *cpu_state(__u32 cpu)
{
	return bpf_map_lookup_elem(&cpu_states, &cpu);
}

/* Adds to the window's table, which all CPUs share. */
static __always_inline void add_to_table(__u32 window, const struct cell_key *key, const struct cell_count *add)
{
	void *table = bpf_map_lookup_elem(&counts, &window);
	struct cell_count *count;
	struct cpu_state *state;

	if (!table)
		return;
	count = bpf_map_lookup_elem(table, key);
	if (!count) {
		if (!bpf_map_update_elem(table, key, add, BPF_NOEXIST))
			return;
		/* Another CPU was faster, or it is full. */
		count = bpf_map_lookup_elem(table, key);
		if (!count) {
			state = cpu_state(bpf_get_smp_processor_id());
			if (state)
				__sync_fetch_and_add(&state->table_full, add->calls);
			return;
		}
	}
	__sync_fetch_and_add(&count->calls, add->calls);
	__sync_fetch_and_add(&count->weight, add->weight);
	__sync_fetch_and_add(&count->sum_ns, add->sum_ns);
}

/* Counts a call in this CPU's cells. Only for the program that sees calls return. */
static __always_inline void count_return(__u32 cpu, __u32 tgid, __u32 what, __u32 weight, __u64 sum_ns)
{
	__u32 window = active & 1, at = window * cpus + cpu;
	struct cells *own = bpf_map_lookup_elem(&cells, &at);
	struct cell *cell;

	if (!own)
		return;
	cell = &own->cells[(tgid * 0x9e3779b1 ^ what * 0x85ebca6b) >> 26 & (CELLS - 1)];
	if (cell->key.tgid != tgid || cell->key.what != what) {
		if (cell->count.calls)
			add_to_table(window, &cell->key, &cell->count);
		cell->key.tgid = tgid;
		cell->key.what = what;
		cell->count.calls = 0;
		cell->count.weight = 0;
		cell->count.sum_ns = 0;
		bpf_get_current_comm(cell->count.comm, sizeof(cell->count.comm));
	}
	cell->count.calls++;
	cell->count.weight += weight;
	cell->count.sum_ns += sum_ns;
}

/* Counts a call that has only begun. */
static __always_inline void count_entry(__u32 tgid, __u32 what)
{
	struct cell_key key = { .tgid = tgid, .what = what };
	struct cell_count one = { .calls = 1 };

	bpf_get_current_comm(one.comm, sizeof(one.comm));
	add_to_table(active & 1, &key, &one);
}

/* Threads that are started one after the other have places that are far apart, for CPUs not to share cache lines. */
static __always_inline struct start *start_of(__u32 tid)
{
	__u32 at = (tid & 63) << 6 | (tid >> 6 & 63);

	return bpf_map_lookup_elem(&starts, &at);
}

static __always_inline __u64 owner_of(__u32 tid)
{
	return (__u64)(tid >> 12) << TIME_BITS;
}

static __always_inline void keep_start(__u32 tid, __u32 cpu, __u64 now, __u32 weight)
{
	struct start *start = start_of(tid);
	struct other_start other = { .boot_ns = now, .weight = weight };
	struct cpu_state *state;
	__u64 word;

	if (!start)
		return;
	word = start->word;
	if (!word || (word ^ owner_of(tid)) <= TIME_MASK) {
		start->weight = weight;
		start->word = owner_of(tid) | (now & TIME_MASK);
		return;
	}
	if (!bpf_map_update_elem(&more_starts, &tid, &other, BPF_NOEXIST)) {
		__sync_fetch_and_add(&start->elsewhere, 1);
		return;
	}
	if (bpf_map_update_elem(&more_starts, &tid, &other, BPF_ANY)) {
		state = cpu_state(cpu);
		if (state)
			__sync_fetch_and_add(&state->starts_full, 1);
	}
}

/* Takes the beginning of the thread's call. 0: there is none. */
static __always_inline __u64 take_start(__u32 tid, __u32 *weight)
{
	struct start *start = start_of(tid);
	struct other_start *other;
	__u64 word, boot_ns;

	if (!start)
		return 0;
	word = start->word;
	if (word && (word ^ owner_of(tid)) <= TIME_MASK) {
		*weight = start->weight;
		start->word = 0;
		return word;
	}
	if (!start->elsewhere)
		return 0;
	other = bpf_map_lookup_elem(&more_starts, &tid);
	if (!other)
		return 0;
	*weight = other->weight;
	boot_ns = other->boot_ns;
	bpf_map_delete_elem(&more_starts, &tid);
	__sync_fetch_and_add(&start->elsewhere, -1);
	return boot_ns;
}

/* How many calls the next that is timed stands for: as many as pass in an interval, by what passed since the last. At random, so
 * that what repeats itself is not always met at the same place. */
static __always_inline void draw(struct cpu_state *state, __u64 now)
{
	__u64 passed = now - state->sampled_ns, n = one_in;

	state->sampled_ns = now;
	if (sample_interval) {
		__u64 wanted = state->drawn * sample_interval / (passed | 1);

		if (wanted > n)
			n = wanted;
	}
	if (n > 65536)
		n = 65536;
	if (n > 1)
		n = 1 + bpf_get_prandom_u32() % (2 * (__u32)n - 1);
	state->drawn = n;
	state->skip = n - 1;
}

static __always_inline int call_begins(__s64 id, int access)
{
	__u32 number = small_number(id), cpu = bpf_get_smp_processor_id();
	__u32 abi = NATIVE, weight = 1, at_entry = 0, tgid = 0;
	struct cpu_state *state;
	__u64 pid_tgid, now;

	/* Which of the two a call is of is asked only where that makes a difference. */
	if (in_set(entry_calls, NATIVE, number) | in_set(entry_calls, COMPAT, number)) {
		abi = current_abi(access);
		at_entry = in_set(entry_calls, abi, number);
	} else if (some_only && in_set(wanted_calls, NATIVE, number) != in_set(wanted_calls, COMPAT, number)) {
		abi = current_abi(access);
	}
	/* Even if nobody wants it: its return must not be taken for another call's. */
	if (at_entry && in_set(sigreturn_calls, abi, number))
		keep_start(bpf_get_current_pid_tgid(), cpu, bpf_ktime_get_boot_ns(), COUNTED);
	if (some_only && !in_set(wanted_calls, abi, number))
		return 0;
	pid_tgid = bpf_get_current_pid_tgid();
	if (at_entry || filter_in_use) {
		tgid = current_tgid(pid_tgid, 1);
		if (!task_wanted(tgid, 1))
			return 0;
	}
	if (at_entry) {
		count_entry(tgid, number | abi << ABI_SHIFT);
		return 0;
	}
	/* What passes before the next that is timed are calls that are wanted: it stands for these, and for no others. */
	state = sample_interval || one_in > 1 ? cpu_state(cpu) : 0;
	if (state && state->skip) {
		state->skip--;
		return 0;
	}
	now = bpf_ktime_get_boot_ns();
	if (state) {
		weight = state->drawn ? state->drawn : 1;
		draw(state, now);
	}
	keep_start(pid_tgid, cpu, now, weight);
	return 0;
}

static __always_inline void tell(__u32 tgid, __u32 what, __u64 now, __u64 duration)
{
	struct slow_call *call = reserve_event(sizeof(*call));

	if (!call)
		return;
	call->head.kind = KIND_SLOW_CALL;
	call->head.tgid = tgid;
	call->head.boot_ns = now;
	call->duration_ns = duration;
	call->what = what;
	call->pad = 0;
	bpf_get_current_comm(call->comm, sizeof(call->comm));
	submit_event(call);
}

static __always_inline int call_returns(__s64 id, __s64 result, int access)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid(), began, now, duration, sum_ns = 0;
	__u32 tid = pid_tgid, tgid = current_tgid(pid_tgid, 1), cpu = bpf_get_smp_processor_id();
	__u32 number = small_number(id), abi = current_abi(access), weight = 0, place = NOT_TIMED, what;
	struct cpu_state *state = cpu_state(cpu);

	if (!state)
		return 0;
	state->runs++;
	began = take_start(tid, &weight);
	if (began && weight == COUNTED)
		return 0;
	if (some_only && !in_set(wanted_calls, abi, number))
		return 0;
	/* Whether a process is wanted was found out where a beginning was kept. */
	if (!began && !task_wanted(tgid, 1))
		return 0;
	if (!result && in_set(fork_calls, abi, number))
		return 0;
	if (abi == COMPAT)
		result = (__s32)result;
	what = number | abi << ABI_SHIFT;
	/* 512 to 516 mean that the kernel starts the call again, or makes it EINTR on the way out. */
	if (result < 0 && result >= -4095 && !(result <= -512 && result >= -516))
		what |= (__u32)-result << ERROR_SHIFT;
	if (began) {
		now = bpf_ktime_get_boot_ns();
		duration = (now - began) & TIME_MASK;
		if (threshold_ns && duration >= threshold_ns)
			tell(tgid, what, now, duration);
		if (duration >= minimum_ns) {
			place = duration_slot(duration, scale) + 2;
			sum_ns = duration * weight;
		} else {
			weight = 0;
		}
	} else if (!sample_interval && one_in <= 1) {
		state->no_start++;
	}
	count_return(cpu, tgid, what | place << PLACE_SHIFT, weight, sum_ns);
	return 0;
}

SEC("?tp_btf/sys_enter")
int begins_btf(__u64 *args)
{
	return call_begins(args[1], DIRECT);
}

SEC("?tp_btf/sys_exit")
int returns_btf(__u64 *args)
{
	return call_returns(number_of((void *)args[0], DIRECT), args[1], DIRECT);
}

SEC("?raw_tp/sys_enter")
int begins_raw(__u64 *args)
{
	return call_begins(args[1], COPIED);
}

SEC("?raw_tp/sys_exit")
int returns_raw(__u64 *args)
{
	return call_returns(number_of((void *)args[0], COPIED), args[1], COPIED);
}

/* As in /sys/kernel/tracing/events/raw_syscalls, the same since Linux 2.6.35. */
struct classic_enter {
	__u64 common;
	__s64 id;
	__u64 args[6];
};

struct classic_exit {
	__u64 common;
	__s64 id;
	__s64 ret;
};

SEC("?tracepoint/raw_syscalls/sys_enter")
int begins_classic(struct classic_enter *call)
{
	return call_begins(call->id, COPIED);
}

SEC("?tracepoint/raw_syscalls/sys_exit")
int returns_classic(struct classic_exit *call)
{
	return call_returns(call->id, call->ret, COPIED);
}

char _license[] SEC("license") = "Dual MIT/GPL";
