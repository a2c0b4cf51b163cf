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
#include "exponential.h"
#include "syscall_counts.h"
#include "syscall_regs.h"
#include "syscall_starts.h"
#include "task_filter.h"

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
	if (n > MAX_WEIGHT)
		n = MAX_WEIGHT;
	if (n > 1)
		n = 1 + bpf_get_prandom_u32() % (2 * (__u32)n - 1);
	state->drawn = n;
	state->skip = n - 1;
}

static __always_inline int call_begins(__s64 id, int access)
{
	__u32 number = small_number(id), cpu = bpf_get_smp_processor_id();
	__u64 pid_tgid = bpf_get_current_pid_tgid(), now;
	__u32 abi = NATIVE, weight = 1, at_entry = 0, tgid, left;
	struct cpu_state *state;

	/* Which of the two a call is of is asked only where that makes a difference. */
	if (in_set(entry_calls, NATIVE, number) | in_set(entry_calls, COMPAT, number)) {
		abi = current_abi(access);
		at_entry = in_set(entry_calls, abi, number);
	} else if (some_only && in_set(wanted_calls, NATIVE, number) != in_set(wanted_calls, COMPAT, number)) {
		abi = current_abi(access);
	}
	/* Even if nobody wants it: its return must not be taken for another call's. */
	if (at_entry && in_set(sigreturn_calls, abi, number))
		keep_start(pid_tgid, cpu, bpf_ktime_get_boot_ns(), COUNTED);
	else if (at_entry)
		take_start(pid_tgid, &left);
	if (some_only && !in_set(wanted_calls, abi, number))
		return 0;
	if (at_entry) {
		tgid = current_tgid(pid_tgid, 1);
		if (task_wanted(tgid, 1))
			count_in_table(tgid, number | abi << ABI_SHIFT, 0, 0);
		return 0;
	}
	if (filter_in_use && !task_wanted(current_tgid(pid_tgid, 1), 1))
		goto not_timed;
	/* What passes before the next that is timed are calls that are wanted: it stands for these, and for no others. */
	state = sample_interval || one_in > 1 ? cpu_state(cpu) : 0;
	if (state && state->skip) {
		state->skip--;
		goto not_timed;
	}
	now = bpf_ktime_get_boot_ns();
	if (state) {
		weight = state->drawn ? state->drawn : 1;
		draw(state, now);
	}
	keep_start(pid_tgid, cpu, now, START_OF(number, weight));
	return 0;
not_timed:
	/* Of a call whose return was missed, for this one's not to be taken for that. */
	take_start(pid_tgid, &left);
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

/* Whether the call that began may be the one that returns. Otherwise, its own return was missed, and then another's beginning. */
static __always_inline int is_same_call(__u32 began, __u32 returns, __u32 abi)
{
	return began == returns ||
	       ((in_set(exec_calls, NATIVE, began) | in_set(exec_calls, COMPAT, began)) && in_set(exec_calls, abi, returns));
}

static __always_inline int call_returns(__s64 id, __s64 result, int access)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid(), began, now, duration, sum_ns = 0;
	__u32 tid = pid_tgid, tgid = current_tgid(pid_tgid, 1), cpu = bpf_get_smp_processor_id();
	__u32 number = small_number(id), abi = current_abi(access), call = 0, weight, place = NOT_TIMED, what;
	struct cpu_state *state = cpu_state(cpu);

	if (!state)
		return 0;
	state->runs++;
	began = take_start(tid, &call);
	weight = call & WEIGHT_MASK;
	if (began && weight == COUNTED)
		return 0;
	if (began && !is_same_call(call >> WEIGHT_BITS, number, abi)) {
		began = 0;
		weight = 0;
	}
	if (some_only && !in_set(wanted_calls, abi, number))
		return 0;
	/* Whether a process is wanted was found out where a beginning was kept. */
	if (!began && !task_wanted(tgid, 1))
		return 0;
	if (!result && in_set(fork_calls, abi, number))
		return 0;
	/* Tracepoints hand a narrow result over as if it had no sign. */
	if (abi == COMPAT || is_narrow())
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

/* As in /sys/kernel/tracing/events/raw_syscalls, the same since Linux 2.6.35. Of a narrow kernel, `ret` is the upper half of `id`. */
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
	return call_begins(is_narrow() ? (__s32)call->id : call->id, COPIED);
}

SEC("?tracepoint/raw_syscalls/sys_exit")
int returns_classic(struct classic_exit *call)
{
	if (is_narrow())
		return call_returns((__s32)call->id, call->id >> 32, COPIED);
	return call_returns(call->id, call->ret, COPIED);
}

char _license[] SEC("license") = "Dual MIT/GPL";
