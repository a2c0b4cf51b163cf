/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What profilers share: they count stacks on a timer.
 *
 * Each sample is counted under (process, thread, kernel stack, user stack). A stack is written once a window into the
 * region of the CPU that saw it first, and found again through a hash of its addresses: unlike the kernel's stack
 * maps, nothing is dropped because two stacks share a bucket. All that a window collects exists twice: user space
 * flips `active`, and an update of one of the outer maps then waits until no program still uses the old window.
 *
 * This program does not nest on a CPU, and no other CPU writes its region or statistics, so these need no atomics.
 */
#pragma once
#include "add.h"
#include "task_filter.h"

#define MAX_FRAMES 127
#define STACK_BYTES (MAX_FRAMES * 8)
/* Words of a stack: behind its frames may stand what else it is known by (spans.h). */
#define MAX_WORDS (MAX_FRAMES + 4)

/* Defaults; user space sizes the maps to the machine before they are created. */
#define WINDOWS 2
#define REGION_BYTES 65536
#define MAX_CPUS 1
#define MAX_COUNTS 16384
#define MAX_STACKS 16384

struct count_key {
	__u32 tgid;
	__u32 tid;
	/* Places of the stacks, or 0 where there is none: see stack_place(). */
	__u32 kernel_stack;
	__u32 user_stack;
};

/* Programs may count by more, that begins with this. */
#ifndef COUNTED_BY
#define COUNTED_BY struct count_key
#endif

struct count {
	__u64 samples;
	char comm[16];
};

/* Head of a region. Stacks follow: a header word (number of frames), then the frames, leaf first. */
struct region {
	/* Bytes in use, this head included. User space sets it back to sizeof(struct region). */
	__u64 used;
	/* Frames of the stack being added, read back through memory so that the verifier forgets its value. */
	volatile __u64 frames;
	/* Whether the fill record of this window was sent. */
	__u64 announced;
};

struct cpu_stats {
	/* Times that the program ran, and what became of them. */
	__u64 runs;
	__u64 idle;
	__u64 filtered;
	__u64 samples;
	/* Samples that found no room in `counts`. */
	__u64 table_full;
	/* Samples counted without a stack, because there was no room for it. */
	__u64 no_stack;
	/* What is below the least that is wanted. */
	__u64 too_short;
	__u64 pad;
};

struct fill_record {
	__u32 cpu;
	__u32 window;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, WINDOWS);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_HASH);
		__uint(max_entries, MAX_COUNTS);
		__uint(key_size, sizeof(COUNTED_BY));
		__uint(value_size, sizeof(struct count));
	});
} counts SEC(".maps");

/* Hash of a stack's addresses -> its place. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, WINDOWS);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_HASH);
		__uint(max_entries, MAX_STACKS);
		__type(key, __u64);
		__type(value, __u32);
	});
} stack_places SEC(".maps");

/* One region a CPU, mapped into user space. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, WINDOWS);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(max_entries, MAX_CPUS);
		__uint(map_flags, BPF_F_MMAPABLE);
		__type(key, __u32);
		__uint(value_size, REGION_BYTES);
	});
} regions SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_CPUS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct cpu_stats);
} stats SEC(".maps");

/* Fill records, that wake user space before a window is full. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

/* Clang describes in BTF only what it sees used in a map of the outer level or a global. */
const struct count_key *describe_count_key __attribute__((unused));
const struct count *describe_count __attribute__((unused));
const struct region *describe_region __attribute__((unused));
const struct fill_record *describe_fill_record __attribute__((unused));

/* How often windows were swapped: its last bit is the window that is being filled. */
volatile __u32 active = 0;

/* Set before loading. */
const volatile __u64 region_bytes = REGION_BYTES;
/* So that a hostile program cannot choose colliding addresses. */
const volatile __u64 hash_seed = 0;

/* Where a stack lies: the word's number in the regions of all CPUs. Never 0, since every region has a head. */
static __always_inline __u32 stack_place(__u32 cpu, __u64 offset)
{
	return (cpu * region_bytes + offset) / 8;
}

/* Whether there is room for another stack; *stack is where it goes then: a header word, and the words of the stack. */
static __always_inline int room_for_stack(struct region *region, __u64 **stack)
{
	/* A multiple of eight anyway: so that a verifier knows it, whose machine does not load across words (riscv64). */
	__u64 used = region->used & ~7ULL;

	if (used < sizeof(*region) || used > region_bytes - (MAX_WORDS + 1) * 8)
		return 0;
	*stack = (void *)region + used;
	return 1;
}

/* Keeps the stack that lies in the room, if this window does not have it yet. 0: it has none, and no room for it (*full is set). */
static __always_inline __u32 keep_stack(struct region *region, __u64 *stack, __u64 frames, void *places, __u32 cpu, __u64 hash,
					int *full)
{
	__u64 used = region->used & ~7ULL;
	__u32 *found;
	__u32 place;

	region->frames = frames;
	for (int i = 0; i < MAX_WORDS; i++) {
		if (i >= region->frames)
			break;
		/* Mixed down before it is multiplied: a difference in the top bit alone would come out as one whatever the seed. */
		hash ^= stack[1 + i];
		hash ^= hash >> 32;
		hash *= 0x9e3779b97f4a7c15ULL;
		hash ^= hash >> 29;
	}
	found = bpf_map_lookup_elem(places, &hash);
	if (found)
		return *found;
	place = stack_place(cpu, used);
	if (bpf_map_update_elem(places, &hash, &place, BPF_NOEXIST)) {
		/* Another CPU was faster, or the table is full. */
		found = bpf_map_lookup_elem(places, &hash);
		if (found)
			return *found;
		*full = 1;
		return 0;
	}
	stack[0] = region->frames;
	region->used = used + 8 + region->frames * 8;
	return place;
}

/* Reads a stack by the kernel's own walk and keeps it. 0: there is none, or (then *full is set) no room for it. */
static __always_inline __u32 store_stack(void *ctx, struct region *region, void *places, __u32 cpu, __u64 flags, int *full)
{
	__u64 *stack;
	long bytes;

	if (!room_for_stack(region, &stack)) {
		*full = 1;
		return 0;
	}
	bytes = bpf_get_stack(ctx, stack + 1, STACK_BYTES, flags);
	if (bytes <= 0)
		return 0;
	return keep_stack(region, stack, (__u64)bytes / 8, places, cpu, hash_seed ^ flags, full);
}

/* What a sample is of, and where it goes. */
struct sample {
	__u32 cpu;
	/* What `active` was, and which window that is. */
	__u32 epoch;
	__u32 window;
	struct count_key key;
	struct count first;
	/* Whether a stack found no room. */
	int full;
	struct cpu_stats *stat;
	struct region *region;
	void *counts;
	void *places;
};

/* The tables of a window. */
static __always_inline int find_window(struct sample *sample)
{
	void *window_regions = bpf_map_lookup_elem(&regions, &sample->window);

	sample->counts = bpf_map_lookup_elem(&counts, &sample->window);
	sample->places = bpf_map_lookup_elem(&stack_places, &sample->window);
	if (!sample->counts || !sample->places || !window_regions)
		return 0;
	sample->region = bpf_map_lookup_elem(window_regions, &sample->cpu);
	return 1;
}

/* Whose sample it is: whether there is one to take. `kernel_types` is a constant: without it, nothing here depends on where this kernel has
 * its fields, and the kernel's BTF need not even be looked at. */
static __always_inline int identify_sample(struct sample *sample, int kernel_types)
{
	__u64 pid_tgid;

	sample->cpu = bpf_get_smp_processor_id();
	sample->epoch = active;
	sample->window = sample->epoch & 1;
	sample->stat = bpf_map_lookup_elem(&stats, &sample->cpu);
	if (!sample->stat)
		return 0;
	sample->stat->runs++;
	pid_tgid = bpf_get_current_pid_tgid();
	if (!pid_tgid) {
		sample->stat->idle++;
		return 0;
	}
	sample->key.tid = current_number(pid_tgid, kernel_types);
	sample->key.tgid = current_tgid(pid_tgid, kernel_types);
	bpf_get_current_comm(sample->first.comm, sizeof(sample->first.comm));
	if (!task_wanted(sample->key.tgid, kernel_types)) {
		sample->stat->filtered++;
		return 0;
	}
	return 1;
}

/* Begins a sample: whether there is one to take. */
static __always_inline int begin_sample(struct sample *sample, int kernel_types)
{
	return identify_sample(sample, kernel_types) && find_window(sample);
}

/* Counts a sample whose stacks are known as so many, under that key. */
static __always_inline void count_by(struct sample *sample, const COUNTED_BY *key, __u64 amount)
{
	struct region *region = sample->region;
	struct count *count;

	if (sample->full)
		sample->stat->no_stack++;
	sample->stat->samples++;
	count = bpf_map_lookup_elem(sample->counts, key);
	if (!count) {
		sample->first.samples = amount;
		if (!bpf_map_update_elem(sample->counts, key, &sample->first, BPF_NOEXIST))
			goto announce;
		count = bpf_map_lookup_elem(sample->counts, key);
		if (!count) {
			sample->stat->table_full++;
			sample->full = 1;
			goto announce;
		}
	}
	add_to(&count->samples, amount);
announce:
	if (region && !region->announced && (sample->full || region->used > region_bytes / 2)) {
		struct fill_record record = { .cpu = sample->cpu, .window = sample->window };

		region->announced = 1;
		bpf_ringbuf_output(&events, &record, sizeof(record), BPF_RB_FORCE_WAKEUP);
	}
}
