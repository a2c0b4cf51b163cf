/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Heap of one process, as heap.bpf.c, for stacks without frame pointers: they are walked as unwind.h says.
 *
 * The state of a walk is the thread's, since programs of uprobes run preemptible. Where a walk has missed a page, the allocation is
 * counted under a key of its own, and user space finds out which stack that is: what is counted stays right, whatever
 * becomes of the walk.
 */
#include "missed.h"

/* The allocator's function is in front of the walk. */
#define MAX_FRAMES (1 + MAX_WALK_FRAMES)
#define WALK_STATE struct walk walk;

#include "heap.h"

enum stage {
	STAGE_WALK = 0,
	STAGE_COUNT = 1,
	STAGES = 2,
};

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, STAGES);
	__uint(key_size, 4);
	__uint(value_size, 4);
} stages SEC(".maps");

/* An allocation whose walk is for user space to finish. */
struct missed_allocation {
	/* The key of its stack; 0: it is counted under another. */
	__u64 stack;
	struct missed_walk at;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 65536);
} misses SEC(".maps");

const struct missed_allocation *describe_missed_allocation __attribute__((unused));

/* How walks have ended, by enum walk_end. */
struct walk_ends {
	__u64 counts[WALK_ENDS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct walk_ends);
} walk_ends SEC(".maps");

/* Set before loading: the process, as user space numbers it, and how many stacks at once may be user space's to find out. */
const volatile __u32 process = 0;
const volatile __u64 max_missed = 0;

/* Walks that user space was told of, and those of them whose stacks it has taken away. */
volatile __u64 told = 0;
volatile __u64 taken_away = 0;

/* When user space is next told of a walk whose stack it may not keep: not as often as a process can allocate. */
volatile __u64 next_unkept = 0;
#define BETWEEN_UNKEPT 1000000

static __always_inline void count_end(__u32 end)
{
	__u32 zero = 0;
	struct walk_ends *ends = bpf_map_lookup_elem(&walk_ends, &zero);

	if (ends && end < WALK_ENDS)
		add_to(&ends->counts[end], 1);
}

static __always_inline void count_by_stack(void *regs, struct thread *thread, struct heap_stats *stats)
{
	struct walk *walk = &thread->walk;

	walk->pc = INSTRUCTION(regs);
	walk->sp = STACK(regs);
	walk->fp = REGISTER(regs, 4, 29);
	walk->link = 0;
	walk->tgid = process;
	walk->frames = 0;
	walk->exact = 0;
	walk->has_link = 0;
	walk->end = WALK_GOES_ON;
	walk->python = 0;
	walk->span = 0;
	bpf_tail_call(regs, &stages, STAGE_WALK);
	/* Nothing has been called. */
	add_to(&stats->no_stack, 1);
}

/* The current thread, in a stage; 0: it had to make room for another. */
static __always_inline struct thread *resume(struct heap_stats **stats)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct thread *thread = bpf_map_lookup_elem(&threads, &tid);

	*stats = own_stats();
	if (*stats && !thread)
		add_to(&(*stats)->no_thread, 1);
	return *stats ? thread : 0;
}

static __always_inline int walk_stage(void *regs)
{
	struct heap_stats *stats;
	struct thread *thread = resume(&stats);

	if (!thread)
		return 0;
	thread->walk.end = walk_frames(&thread->walk, thread->stack.frames + 1);
	if (thread->walk.end == WALK_GOES_ON) {
		bpf_tail_call(regs, &stages, STAGE_WALK);
		thread->walk.end = WALK_DEPTH;
	}
	bpf_tail_call(regs, &stages, STAGE_COUNT);
	return 0;
}

/* Hands a walk to user space; the key of its stack, 0 if there was no room. Where user space has as many stacks as it may, it is
 * told for the sake of the page that is missing: others would miss it for ever. */
static __always_inline __u64 tell_miss(struct thread *thread)
{
	__u64 time = bpf_ktime_get_ns(), key = 0;
	int is_kept = told - taken_away < max_missed;
	struct missed_allocation *missed;

	if (!is_kept) {
		if (time < next_unkept)
			return 0;
		next_unkept = time + BETWEEN_UNKEPT;
	}
	missed = bpf_ringbuf_reserve(&misses, sizeof(*missed), 0);
	if (!missed)
		return 0;
	/* A thread has one at a time. */
	if (is_kept)
		key = mix(mix(hash_seed, time), bpf_get_current_pid_tgid());
	missed->stack = key;
	copy_missed(&missed->at, &thread->walk, thread->stack.frames + 1, time);
	/* At once: the ring holds a few. */
	bpf_ringbuf_submit(missed, BPF_RB_FORCE_WAKEUP);
	if (is_kept)
		add_to(&told, 1);
	return key;
}

static __always_inline int count_stage(void *regs)
{
	struct heap_stats *stats;
	struct thread *thread = resume(&stats);
	__u64 *frames, key = 0;
	__u32 next;

	KEEP_OWN_STACK(regs);
	if (!thread)
		return 0;
	frames = thread->stack.frames;
	next = 1 + thread->walk.frames;
	if (thread->walk.end == WALK_MISSED) {
		key = tell_miss(thread);
		if (!key)
			thread->walk.end = WALK_LOST;
		/* What was lost goes on by frame pointers, as well as it can; what was told, in user space. */
#pragma clang loop unroll(disable)
		for (int i = 0; i < MAX_WALK_FRAMES; i++) {
			/* The compiler must not count in addresses, of which the verifier would not know how far they go. */
			asm volatile("" : "+r"(next));
			if (next >= MAX_FRAMES || thread->walk.pc < MIN_CODE || thread->walk.pc >> ADDRESS_BITS)
				break;
			frames[next] = thread->walk.pc;
			next++;
			if (key || step_by_fp(&thread->walk, 1) != WALK_GOES_ON)
				break;
		}
	}
	count_end(thread->walk.end);
	thread->stack.frame_count = next;
	if (!key) {
		key = hash_seed;
#pragma clang loop unroll(disable)
		for (int i = 0; i < MAX_FRAMES; i++) {
			if (i >= next)
				break;
			key = mix(key, frames[i]);
		}
	}
	count_under(key, thread, stats);
	return 0;
}

SEC("?uprobe.session")
int session_walk(void *regs)
{
	return walk_stage(regs);
}

SEC("?uprobe.session")
int session_count(void *regs)
{
	return count_stage(regs);
}

SEC("?uretprobe")
int leave_walk(void *regs)
{
	return walk_stage(regs);
}

SEC("?uretprobe")
int leave_count(void *regs)
{
	return count_stage(regs);
}
