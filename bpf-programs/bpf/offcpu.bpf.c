/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Off-CPU profiler: where threads wait, and how long, by stack.
 *
 * A thread that goes to sleep notes its stacks and the time; when it gets the CPU again, the time between is counted under them. It is
 * counted within the window of the stacks; a wait that outlasts its window, or whose walk user space has to finish, is told to user space
 * instead, which has taken from `waits` what waits at the end of each window.
 *
 * Not every wait is noted: one in so many by how often the thread and the CPU have been left lately, which stands for as many. That is chosen by chance and
 * before anything is known of the wait, so sums are right in the mean; and a thread that seldom waits is always noted, however busy others are.
 *
 * The hook runs with the run queue locked and interrupts off: a thread's note is written by one CPU at a time.
 */
#include "kernel_types.h"

/* As struct count_key of profile.h, and who has ended the wait. */
struct wait_key {
	__u32 tgid;
	__u32 tid;
	__u32 kernel_stack;
	__u32 user_stack;
	/* The name of the thread that did; WAKER_INTERRUPT; zeros: nobody knows. */
	char waker[16];
};
#define COUNTED_BY struct wait_key

#include "profile_walk.h"
#include "interrupts.h"

/* No thread's name: it is not zero behind its end. */
#define WAKER_INTERRUPT 1

/* Default; user space sizes the map. */
#define MAX_WAITS 4096

/* States of tasks (include/linux/sched.h). */
#define TASK_DEAD 0x80

/* Since 5.14, and before. */
struct task_struct___state {
	unsigned int __state;
} __attribute__((preserve_access_index));

struct task_struct___old_state {
	long state;
} __attribute__((preserve_access_index));

/* Since 5.18 the hook says in which state the thread leaves: by then the field may hold another. */
typedef void (*btf_trace_sched_switch___state)(void *, _Bool, struct task_struct *, struct task_struct *, unsigned int);

/* How often something happens. */
struct pace {
	__u64 last;
	/* Nanoseconds between two, on average of the last few. */
	__u64 gap;
};

/* The last wait of a thread. */
struct wait {
	/* Since when it waits; 0 if it does not, or is not to be counted. */
	__u64 since;
	/* When it went to sleep. */
	struct pace pace;
	/* How many waits this one stands for. */
	__u64 weight;
	struct count_key key;
	/* The window of its stacks: which swap began it. */
	__u32 epoch;
	/* Whether the user stack is for user space to finish. */
	__u32 missed;
	/* As struct wait_key has it. */
	char waker[16];
};

/* A wait that has ended, which user space counts. */
struct waited {
	struct count_key key;
	char comm[16];
	__u64 since;
	/* Times the weight. */
	__u64 nanos;
	__u32 epoch;
	__u32 missed;
	/* Its number in the initial pid namespace. */
	__u32 thread;
	__u32 pad;
	char waker[16];
};

/* By the thread's number in the initial pid namespace. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_WAITS);
	__type(key, __u32);
	__type(value, struct wait);
} waits SEC(".maps");

/* Of the waits that threads have chosen on each CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pace);
} paces SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 65536);
} ended SEC(".maps");

const struct wait_key *describe_wait_key __attribute__((unused));
const struct waited *describe_waited __attribute__((unused));

/* Set before loading. Shorter waits are not counted. */
const volatile __u64 min_nanos = 1000;
/* Nanoseconds between two noted waits of a thread, and of a CPU, that are aimed at. */
const volatile __u64 thread_nanos = 10000000;
const volatile __u64 cpu_nanos = 1000000;
/* Bytes in `ended` that wake user space before it looks by itself. */
const volatile __u64 wake_threshold = 32768;
/* Whether stacks of processes are left to the kernel. */
const volatile __u32 by_kernel = 0;

/* Set at any time: of the waits that are to be noted, one in so many is; 0: all of them. */
volatile __u32 one_in = 0;

/* A thread gets the CPU. */
static __always_inline void enter(struct task_struct *next, __u32 tid, __u64 now)
{
	struct sample sample = {};
	struct wait_key key = {};
	struct waited *waited;
	struct wait *wait;
	__u64 nanos;
	int full;

	wait = bpf_map_lookup_elem(&waits, &tid);
	if (!wait || !wait->since)
		return;
	sample.cpu = bpf_get_smp_processor_id();
	sample.stat = bpf_map_lookup_elem(&stats, &sample.cpu);
	if (!sample.stat)
		return;
	nanos = now - wait->since;
	if (nanos < min_nanos) {
		sample.stat->too_short++;
		goto out;
	}
	nanos *= wait->weight;
	if (wait->epoch == active && !wait->missed) {
		sample.window = wait->epoch & 1;
		__builtin_memcpy(&key, &wait->key, sizeof(wait->key));
		__builtin_memcpy(key.waker, wait->waker, sizeof(key.waker));
		read_field(sample.first.comm, next, comm);
		if (find_window(&sample))
			count_by(&sample, &key, nanos);
		goto out;
	}
	sample.stat->samples++;
	waited = bpf_ringbuf_reserve(&ended, sizeof(*waited), 0);
	if (!waited) {
		sample.stat->table_full++;
		goto out;
	}
	waited->key = wait->key;
	read_field(waited->comm, next, comm);
	waited->since = wait->since;
	waited->nanos = nanos;
	waited->epoch = wait->epoch;
	waited->missed = wait->missed;
	waited->thread = tid;
	waited->pad = 0;
	__builtin_memcpy(waited->waker, wait->waker, sizeof(waited->waker));
	full = bpf_ringbuf_query(&ended, BPF_RB_AVAIL_DATA) >= wake_threshold;
	bpf_ringbuf_submit(waited, full ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
out:
	/* Last: from here on user space does not find it waiting. */
	wait->since = 0;
}

/* How many one stands for that happens now, where so many nanoseconds between two are aimed at; 0: it is not chosen. What comes after a
 * quiet time is, up to some twenty at once: of something rare it would be seldom one, which then stood for many. */
static __always_inline __u64 choose(struct pace *pace, __u64 now, __u64 nanos)
{
	__u64 gap = now - pace->last, weight;

	pace->last = now;
	pace->gap = gap > nanos * 8 ? nanos * 8 : pace->gap - pace->gap / 8 + gap / 8;
	weight = nanos / (pace->gap | 1);
	if (weight <= 1)
		return 1;
	return bpf_get_prandom_u32() % (__u32)weight ? 0 : weight;
}

/* How many waits one that begins is to stand for; 0: it is not noted. */
static __always_inline __u64 weigh(struct wait *wait, __u64 now)
{
	__u64 weight = choose(&wait->pace, now, thread_nanos);
	__u32 zero = 0, thinned = one_in;
	struct pace *pace;

	pace = bpf_map_lookup_elem(&paces, &zero);
	if (!weight || !pace)
		return 0;
	weight *= choose(pace, now, cpu_nanos);
	if (thinned < 2)
		return weight;
	/* Last: what it leaves out must not let the paces choose more. */
	return bpf_get_prandom_u32() % thinned ? 0 : weight * thinned;
}

/* The stacks of the current thread are known, or told. */
static __always_inline void keep_wait(struct sample *sample, struct wait *wait, int missed)
{
	if (sample->full)
		sample->stat->no_stack++;
	wait->key = sample->key;
	wait->missed = missed;
	__builtin_memset(wait->waker, 0, sizeof(wait->waker));
	wait->since = wait->pace.last;
}

/* The current thread goes to sleep. */
static __always_inline void leave(void *ctx, __u32 tid, int ends, __u64 now)
{
	struct sample sample = {};
	struct wait *wait, first = {};
	struct state *state;
	__u32 zero = 0;

	if (ends) {
		bpf_map_delete_elem(&waits, &tid);
		return;
	}
	if (!identify_sample(&sample, 1))
		return;
	wait = bpf_map_lookup_elem(&waits, &tid);
	if (!wait) {
		bpf_map_update_elem(&waits, &tid, &first, BPF_NOEXIST);
		wait = bpf_map_lookup_elem(&waits, &tid);
		if (!wait) {
			sample.stat->table_full++;
			return;
		}
	}
	wait->since = 0;
	wait->weight = weigh(wait, now);
	if (!wait->weight || !find_window(&sample))
		return;
	wait->epoch = sample.epoch;
	state = bpf_map_lookup_elem(&states, &zero);
	if (sample.region && state)
		store_stacks(ctx, &sample, state, by_kernel ? MODE_COMPAT : begin_walk_at_entry(&state->walk, 1));
	else
		sample.full = 1;
	keep_wait(&sample, wait, 0);
}

SEC("?raw_tp/sched_switch")
int offcpu_switch(__u64 *args)
{
	struct task_struct *prev = (void *)args[1], *next = (void *)args[2];
	__u64 now = bpf_ktime_get_ns();
	unsigned int state = 0;
	long old_state = 0;
	int tid = 0;

	read_field(tid, next, pid);
	/* The idle task's number is 0. */
	if (tid)
		enter(next, tid, now);
	if (type_exists(btf_trace_sched_switch___state)) {
		state = args[3];
	} else if (field_exists((struct task_struct___state *)prev, __state)) {
		read_field(state, (struct task_struct___state *)prev, __state);
	} else {
		read_field(old_state, (struct task_struct___old_state *)prev, state);
		state = old_state;
	}
	/* What could go on does not wait. */
	if (args[0] & 1 || !state)
		return 0;
	tid = bpf_get_current_pid_tgid();
	if (tid)
		leave(args, tid, state & TASK_DEAD, now);
	return 0;
}

/* Somebody wakes a thread, in its own context, or in an interrupt that has come upon it. */
SEC("?raw_tp/sched_waking")
int offcpu_waking(__u64 *args)
{
	struct task_struct *task = (void *)args[0];
	struct wait *wait;
	int tid = 0;

	read_field(tid, task, pid);
	wait = bpf_map_lookup_elem(&waits, &tid);
	/* What wakes one that is awake already has not ended its wait. */
	if (!wait || !wait->since || wait->waker[0])
		return 0;
	if (is_in_interrupt(!by_kernel))
		wait->waker[0] = WAKER_INTERRUPT;
	else
		bpf_get_current_comm(wait->waker, sizeof(wait->waker));
	return 0;
}

SEC("?raw_tp/sched_switch")
int offcpu_walk(__u64 *args)
{
	return walk_stage(args);
}

SEC("?raw_tp/sched_switch")
int offcpu_span(__u64 *args)
{
	return span_stage(args);
}

SEC("?raw_tp/sched_switch")
int offcpu_keep(__u64 *args)
{
	struct sample sample = {};
	struct state *state;
	struct wait *wait;
	__u64 *stack;
	__u32 tid = bpf_get_current_pid_tgid();

	if (!resume(&sample, &state) || !room_for_stack(sample.region, &stack))
		return 0;
	wait = bpf_map_lookup_elem(&waits, &tid);
	if (wait)
		keep_wait(&sample, wait, end_walk(&sample, state, stack, wait->pace.last));
	return 0;
}

char _license[] SEC("license") = "Dual MIT/GPL";
