/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Heap of one process: what is allocated and not freed yet, by stack. Who includes this says how stacks are walked: MAX_FRAMES,
 * `on_arm64`, WALK_STATE and count_by_stack().
 *
 * One object a process, so that no key has to tell processes apart. Only the outermost call of a thread counts: calloc
 * may call malloc, realloc may call malloc and free, and reallocarray may jump to realloc. A call is known by its stack
 * pointer: whatever is called in between has a lower one, or the same where it is jumped to.
 *
 * The stack is walked when the function returns. There the instruction pointer is in its caller, and the frame pointer is
 * the caller's own, so the caller is always right; at the entry, a walk by frame pointers leaves it out. So are the other registers that
 * calls preserve, and no return address further out is that of a probe.
 *
 * An allocation leaves the table before the allocator gets its address back, and enters it before the program gets it:
 * nobody else can have the address meanwhile.
 */
#pragma once
#include "add.h"
#include "helpers.h"

/* Nothing is executed below: no return address. */
#define MIN_CODE 4096

/* Defaults; user space sizes the maps before they are created. */
#define MAX_ALLOCATIONS 16384
#define MAX_STACKS 1024
#define MAX_THREADS 1024

/* Numbers of allocations have a fraction of so many bits, since a sampled one stands for several. */
#define COUNT_ONE 1024

/* Linux 6.13 and later may give a program of this kind one stack a CPU (the verifier's bpf_enable_priv_stack), though other
 * threads' can interrupt it: programs of uprobes run preemptible, and nothing checks that they do not overlap. Those that hold
 * a tail call have the thread's stack, as ever. So every program here holds one, of no program, that is never made. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} no_programs SEC(".maps");

const volatile __u32 never = 0;

#define KEEP_OWN_STACK(regs) \
	({ \
		if (never) \
			bpf_tail_call(regs, &no_programs, 0); \
	})

/* Set before loading, against chosen collisions. */
const volatile __u64 hash_seed = 0;

/* Allocations of so many bytes and more are all taken, smaller ones with a likelihood of size to this. 0: all are. */
volatile __u32 sample_bytes = 0;
/* malloc calls no other function that is probed. */
volatile __u32 malloc_is_leaf = 0;

/* What was allocated from one place. */
struct stack {
	/* Not freed yet. */
	__u64 bytes;
	__u64 count;
	/* Since the start. */
	__u64 allocated_bytes;
	__u64 allocated_count;
	__u64 frame_count;
	/* The allocator's function, then its caller and so on. */
	__u64 frames[MAX_FRAMES];
};

/* By the hash of their frames; 0 is for those that found no room. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_STACKS);
	__type(key, __u64);
	__type(value, struct stack);
} stacks SEC(".maps");

struct allocation {
	__u64 stack;
	/* What it stands for. */
	__u64 bytes;
	__u64 count;
};

/* By address. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_ALLOCATIONS);
	__type(key, __u64);
	__type(value, struct allocation);
} allocations SEC(".maps");

/* The call in which a thread is, and room for its stack. */
struct thread {
	/* Stack pointer of the call; 0 if there is none. */
	__u64 sp;
	/* arm64: where the call returns to. */
	__u64 link;
	/* The new allocation; count is 0 if it is not sampled. */
	__u64 size;
	struct allocation new;
	/* What is reallocated; count is 0 if it is not known. */
	__u64 old_address;
	struct allocation old;
	/* Where the address goes, if it is not returned. */
	__u64 out;
	/* What it has got. */
	__u64 address;
	/* Its counts stay 0. */
	struct stack stack;
	WALK_STATE
};

/* By number. Those that have not allocated for longest make room; what they allocate later is found again. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_THREADS);
	__type(key, __u32);
	__type(value, struct thread);
} threads SEC(".maps");

/* Nothing but zeros. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct thread);
} new_thread SEC(".maps");

/*
 * The process, by its number in the first namespace, as of a thread's first call. Kernels up to 6.12 at least do not ask
 * whose a return is: it comes to the programs of all processes that are traced in the same file.
 */
__u32 traced;

struct heap_stats {
	/* Outermost calls, sampled or not, and those of them that allocated nothing. */
	__u64 calls;
	__u64 empty;
	/* Calls of free. */
	__u64 frees;
	/* Calls from within the allocator. */
	__u64 nested;
	/* Allocations that found no room in the table, or whose stack found none. */
	__u64 table_full;
	__u64 no_stack;
	/* Calls whose thread found no room. */
	__u64 no_thread;
	/* Addresses that were allocated again though they had not been seen to be freed. */
	__u64 replaced;
	/* Addresses in the table: what went in less what went out, wherever that was. */
	__u64 held;
};

/* A program can be interrupted by another thread's on its CPU, so counting needs atomics even here. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct heap_stats);
} heap_stats SEC(".maps");

/* Registers of the context, by the number of their word. In assembly, because the verifier takes only constant offsets, and
 * the compiler would choose between two of them at run time. */
#define WORD(regs, number) \
	({ \
		__u64 word; \
		asm volatile("%0 = *(u64 *)(%1 + %2)" : "=r"(word) : "r"(regs), "i"((number) * 8)); \
		word; \
	})
/* struct pt_regs of x86, struct user_pt_regs of arm64. */
#define REGISTER(regs, x86, arm64) (on_arm64 ? WORD(regs, arm64) : WORD(regs, x86))
#define ARGUMENT_1(regs) REGISTER(regs, 14, 0)
#define ARGUMENT_2(regs) REGISTER(regs, 13, 1)
#define ARGUMENT_3(regs) REGISTER(regs, 12, 2)
#define RESULT(regs) REGISTER(regs, 10, 0)
#define INSTRUCTION(regs) REGISTER(regs, 16, 32)
#define STACK(regs) REGISTER(regs, 19, 31)

static __always_inline struct heap_stats *own_stats(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&heap_stats, &zero);
}

/* The current thread's; made if it is missing. */
static __always_inline struct thread *own_thread(struct heap_stats *stats)
{
	__u32 tid = bpf_get_current_pid_tgid(), zero = 0;
	struct thread *thread = bpf_map_lookup_elem(&threads, &tid);
	void *zeros;

	if (thread)
		return thread;
	zeros = bpf_map_lookup_elem(&new_thread, &zero);
	if (!zeros)
		return 0;
	traced = bpf_get_current_pid_tgid() >> 32;
	bpf_map_update_elem(&threads, &tid, zeros, BPF_NOEXIST);
	thread = bpf_map_lookup_elem(&threads, &tid);
	if (!thread)
		add_to(&stats->no_thread, 1);
	return thread;
}

static __always_inline struct stack *find_stack(__u64 hash)
{
	return bpf_map_lookup_elem(&stacks, &hash);
}

static __always_inline void subtract(const struct allocation *gone)
{
	struct stack *stack = find_stack(gone->stack);

	if (!stack)
		return;
	add_to(&stack->bytes, -gone->bytes);
	add_to(&stack->count, -gone->count);
}

/* Takes an address out of the table. Whether it was there; then *gone is what it stood for. */
static __always_inline int take(__u64 address, struct allocation *gone, struct heap_stats *stats)
{
	struct allocation *found = bpf_map_lookup_elem(&allocations, &address);

	if (!found)
		return 0;
	*gone = *found;
	/* Whoever deletes it subtracts it: a program that frees twice must not make the sums wrong. */
	if (bpf_map_delete_elem(&allocations, &address))
		return 0;
	add_to(&stats->held, -1);
	subtract(gone);
	return 1;
}

static __always_inline __u64 mix(__u64 hash, __u64 word)
{
	/* Mixed down before it is multiplied: a difference in the top bit alone would come out as one whatever the seed. */
	hash ^= word;
	hash ^= hash >> 32;
	hash *= 0x9e3779b97f4a7c15ULL;
	return hash ^ hash >> 29;
}

/* Puts an allocation into the table, in the place of one that was not seen to go. */
static __always_inline int put(__u64 address, const struct allocation *new, struct heap_stats *stats)
{
	struct allocation gone;

	if (bpf_map_update_elem(&allocations, &address, new, BPF_NOEXIST)) {
		if (!take(address, &gone, stats))
			goto full;
		add_to(&stats->replaced, 1);
		if (bpf_map_update_elem(&allocations, &address, new, BPF_NOEXIST))
			goto full;
	}
	add_to(&stats->held, 1);
	return 1;
full:
	add_to(&stats->table_full, 1);
	return 0;
}

/* Whether the function of the thread's call is returning just now. */
static __always_inline int is_return(void *regs, struct thread *thread)
{
	if (!thread->sp)
		return 0;
	/* x86: the return address is off the stack; a call has no such stack pointer, which is aligned otherwise. */
	if (!on_arm64)
		return STACK(regs) == thread->sp + 8;
	return STACK(regs) == thread->sp && INSTRUCTION(regs) == thread->link;
}

/* What a new allocation stands for; count is 0 if it is not sampled. Unbiased: whatever is taken with a likelihood of p
 * stands for 1 / p. */
static __always_inline void weigh(__u64 size, struct allocation *new)
{
	__u64 period = sample_bytes;
	__u64 at_least_one = size ? size : 1;

	new->stack = 0;
	new->bytes = size;
	new->count = COUNT_ONE;
	if (at_least_one >= period)
		return;
	if (bpf_get_prandom_u32() * period >= at_least_one << 32) {
		new->count = 0;
		return;
	}
	new->bytes = size ? period : 0;
	new->count = period * COUNT_ONE / at_least_one;
}

/* A function that allocates is called. 1 if nothing is to be done when it returns. */
static __always_inline int begin(void *regs, struct thread *thread, struct heap_stats *stats, __u64 size, __u64 old,
				 __u64 out, int may_be_leaf)
{
	__u64 sp = STACK(regs);

	if (thread->sp && sp <= thread->sp) {
		add_to(&stats->nested, 1);
		return 1;
	}
	add_to(&stats->calls, 1);
	weigh(size, &thread->new);
	if (may_be_leaf && !thread->new.count && malloc_is_leaf) {
		thread->sp = 0;
		return 1;
	}
	thread->sp = sp;
	if (on_arm64)
		thread->link = WORD(regs, 30);
	thread->size = size;
	thread->out = out;
	thread->stack.frames[0] = INSTRUCTION(regs);
	thread->old_address = old;
	thread->old.count = 0;
	if (old && !take(old, &thread->old, stats))
		thread->old.count = 0;
	return 0;
}

/* Counts the new allocation under the stack of the thread, which has that key, in its place or where there is room for none. */
static __always_inline void count_under(__u64 key, struct thread *thread, struct heap_stats *stats)
{
	struct stack *stack = find_stack(key);

	if (!stack) {
		bpf_map_update_elem(&stacks, &key, &thread->stack, BPF_NOEXIST);
		stack = find_stack(key);
	}
	if (!stack) {
		add_to(&stats->no_stack, 1);
		key = 0;
		stack = find_stack(key);
	}
	if (!stack)
		return;
	thread->new.stack = key;
	if (put(thread->address, &thread->new, stats)) {
		add_to(&stack->bytes, thread->new.bytes);
		add_to(&stack->count, thread->new.count);
	}
	/* Last: user space may take away what has allocated and of which nothing is left. */
	add_to(&stack->allocated_bytes, thread->new.bytes);
	add_to(&stack->allocated_count, thread->new.count);
}

/* Walks the stack that the call returns into, behind the first frame that is there, and counts the new allocation under it. */
static __always_inline void count_by_stack(void *regs, struct thread *thread, struct heap_stats *stats);

/* It returns. */
static __always_inline void end(void *regs, struct thread *thread, struct heap_stats *stats)
{
	__u64 address = RESULT(regs);
	struct stack *stack;

	thread->sp = 0;
	if (thread->out) {
		__u64 written = 0;

		if (!(__u32)address)
			bpf_probe_read_user(&written, sizeof(written), (void *)thread->out);
		address = written;
	}
	if (!address) {
		add_to(&stats->empty, 1);
		/* What could not be reallocated is still there, though its stack may have been taken away meanwhile. */
		if (!thread->old.count || !thread->size)
			return;
		stack = find_stack(thread->old.stack);
		if (!stack) {
			thread->old.stack = 0;
			stack = find_stack(0);
		}
		if (stack && put(thread->old_address, &thread->old, stats)) {
			add_to(&stack->bytes, thread->old.bytes);
			add_to(&stack->count, thread->old.count);
		}
		return;
	}
	if (!thread->new.count)
		return;
	thread->address = address;
	count_by_stack(regs, thread, stats);
}

static __always_inline __u64 product(__u64 a, __u64 b)
{
	__u64 all = a * b;

	/* The compiler must not see that this asks for the product's upper half, which the machine does not have. */
	asm volatile("" : "+r"(all));
	/* The allocator refuses a product that overflows. */
	return a && all / a != b ? ~0ULL : all;
}

/* Sorts of functions that allocate: the cookies of `session`. */
enum {
	/* malloc(size) */
	SORT_MALLOC = 1,
	/* valloc(size), operator new(size) */
	SORT_SIZED,
	/* calloc(number, size) */
	SORT_ARRAY,
	/* realloc(old, size) */
	SORT_REALLOC,
	/* reallocarray(old, number, size) */
	SORT_REARRAY,
	/* aligned_alloc(alignment, size) */
	SORT_ALIGNED,
	/* posix_memalign(&address, alignment, size) */
	SORT_MEMALIGN,
	/* free(address) */
	SORT_FREE,
};

/* A function of that sort is called. 1 if nothing is to be done when it returns. */
static __always_inline int enter(void *regs, struct thread *thread, struct heap_stats *stats, __u64 sort)
{
	__u64 first = ARGUMENT_1(regs), second = ARGUMENT_2(regs), size = first, old = 0, out = 0;

	switch (sort) {
	case SORT_ARRAY:
		size = product(first, second);
		break;
	case SORT_REALLOC:
		old = first;
		size = second;
		break;
	case SORT_REARRAY:
		old = first;
		size = product(second, ARGUMENT_3(regs));
		break;
	case SORT_ALIGNED:
		size = second;
		break;
	case SORT_MEMALIGN:
		out = first;
		size = ARGUMENT_3(regs);
		break;
	}
	return begin(regs, thread, stats, size, old, out, sort == SORT_MALLOC);
}

/* free. Within realloc, what it frees has left the table already. */
static __always_inline void released(__u64 address, struct heap_stats *stats)
{
	struct allocation gone;

	if (!address)
		return;
	add_to(&stats->frees, 1);
	take(address, &gone, stats);
}

/* Entry and return of every function; its sort is the cookie. */
SEC("?uprobe.session")
int session(void *regs)
{
	__u64 sort = bpf_get_attach_cookie(regs);
	struct heap_stats *stats = own_stats();
	__u32 tid = bpf_get_current_pid_tgid();
	struct thread *thread;

	KEEP_OWN_STACK(regs);
	if (!stats)
		return 1;
	if (sort == SORT_FREE) {
		released(ARGUMENT_1(regs), stats);
		return 1;
	}
	thread = bpf_map_lookup_elem(&threads, &tid);
	if (!thread) {
		/* A call leaves the stack pointer at 8 past a multiple of 16: this returns, and its thread had to make room. */
		if (!on_arm64 && !(STACK(regs) & 8)) {
			add_to(&stats->no_thread, 1);
			return 0;
		}
		thread = own_thread(stats);
		if (!thread)
			return 1;
	}
	if (!is_return(regs, thread))
		return enter(regs, thread, stats, sort);
	end(regs, thread, stats);
	return 0;
}

/* Entry alone, of one sort. There the return is always seen. */
#define ENTER(name, sort) \
	SEC("?uprobe") \
	int name(void *regs) \
	{ \
		struct heap_stats *stats = own_stats(); \
		struct thread *thread; \
\
		KEEP_OWN_STACK(regs); \
		if (!stats) \
			return 0; \
		thread = own_thread(stats); \
		if (thread) \
			enter(regs, thread, stats, sort); \
		return 0; \
	}
ENTER(enter_malloc, SORT_MALLOC)
ENTER(enter_sized, SORT_SIZED)
ENTER(enter_array, SORT_ARRAY)
ENTER(enter_realloc, SORT_REALLOC)
ENTER(enter_rearray, SORT_REARRAY)
ENTER(enter_aligned, SORT_ALIGNED)
ENTER(enter_memalign, SORT_MEMALIGN)

SEC("?uprobe")
int enter_free(void *regs)
{
	struct heap_stats *stats = own_stats();

	KEEP_OWN_STACK(regs);
	if (stats)
		released(ARGUMENT_1(regs), stats);
	return 0;
}

/* Any of them returns. */
SEC("?uretprobe")
int leave(void *regs)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct heap_stats *stats = own_stats();
	struct thread *thread = bpf_map_lookup_elem(&threads, &tid);

	KEEP_OWN_STACK(regs);
	if (!stats)
		return 0;
	if (!thread) {
		if (bpf_get_current_pid_tgid() >> 32 == traced)
			add_to(&stats->no_thread, 1);
	} else if (is_return(regs, thread)) {
		end(regs, thread, stats);
	}
	return 0;
}

char _license[] SEC("license") = "Dual MIT/GPL";
