/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* CPU profiler: counts stacks on a timer.
 *
 * Each sample is counted under (process, thread, kernel stack, user stack). A stack is written once a window into the
 * region of the CPU that saw it first, and found again through a hash of its addresses: unlike the kernel's stack
 * maps, nothing is dropped because two stacks share a bucket. All that a window collects exists twice: user space
 * flips `active`, and an update of one of the outer maps then waits until no program still uses the old window.
 *
 * This program does not nest on a CPU, and no other CPU writes its region or statistics, so these need no atomics.
 */
#include "kernel_types.h"

#define MAX_FRAMES 127
#define STACK_BYTES (MAX_FRAMES * 8)
#define MAX_PID_NS_LEVEL 32
#define MAX_CGROUP_DEPTH 32
#define MAX_CGROUP_SUBSYS 16

/* Defaults; user space sizes the maps to the machine before they are created. */
#define WINDOWS 2
#define REGION_BYTES 65536
#define MAX_CPUS 1
#define MAX_COUNTS 16384
#define MAX_STACKS 16384
#define MAX_PIDS 4096

struct count_key {
	__u32 tgid;
	__u32 tid;
	/* Places of the stacks, or 0 where there is none: see stack_place(). */
	__u32 kernel_stack;
	__u32 user_stack;
};

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
	__u64 pad[2];
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
		__uint(key_size, sizeof(struct count_key));
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

/* Processes to sample, by their number in the agent's pid namespace. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_PIDS);
	__type(key, __u32);
	__type(value, __u8);
} pids SEC(".maps");

/* The cgroup to sample, for cgroup v2. */
struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 4);
} cgroup SEC(".maps");

/* Clang describes in BTF only what it sees used in a map of the outer level or a global. */
const struct count_key *describe_count_key __attribute__((unused));
const struct count *describe_count __attribute__((unused));
const struct region *describe_region __attribute__((unused));
const struct fill_record *describe_fill_record __attribute__((unused));

/* Which window is being filled. */
volatile __u32 active = 0;
/* Children that found no room in `pids`. */
volatile __u64 children_lost = 0;

/* Set before loading. */
const volatile __u64 region_bytes = REGION_BYTES;
/* So that a hostile program cannot choose colliding addresses. */
const volatile __u64 hash_seed = 0;
const volatile __u8 filter_pids = 0;
const volatile __u8 filter_comm = 0;
const volatile __u8 filter_cgroup_v2 = 0;
const volatile char comm[16] = {};
/* kernfs id of a cgroup v1 directory, 0 for none, and the number of its hierarchy: ids are unique within one. */
const volatile __u64 cgroup_v1_id = 0;
const volatile __s32 cgroup_v1_hierarchy = 0;
/* Inode number of the agent's pid namespace if it is not the initial one; 0 if it is. */
const volatile __u32 pid_ns = 0;

/* A process' or thread's number in the agent's pid namespace; 0 if it cannot be seen from there. */
static __always_inline __u32 number_in_ns(struct task_struct *task)
{
	struct pid *pid = 0;
	__u32 level = 0;

	read_field(pid, task, thread_pid);
	read_field(level, pid, level);
	for (int i = 0; i < MAX_PID_NS_LEVEL; i++) {
		struct pid_namespace *ns = 0;
		__u32 inum = 0;
		int nr = 0;

		if (i > level)
			break;
		read_field(ns, pid, numbers[i].ns);
		read_field(inum, ns, ns.inum);
		if (inum == pid_ns) {
			read_field(nr, pid, numbers[i].nr);
			return nr;
		}
	}
	return 0;
}

static __always_inline __u32 task_tgid(struct task_struct *task)
{
	struct task_struct *leader = 0;
	int tgid = 0;

	if (pid_ns) {
		read_field(leader, task, group_leader);
		return number_in_ns(leader);
	}
	read_field(tgid, task, tgid);
	return tgid;
}

static __always_inline int same_comm(const char *a)
{
	for (int i = 0; i < 16; i++) {
		if (a[i] != comm[i])
			return 0;
		if (!a[i])
			break;
	}
	return 1;
}

/* The thread's own name, or its process'. */
static __always_inline int comm_wanted(const char *own)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct task_struct *leader = 0;
	char name[16] = {};

	if (same_comm(own))
		return 1;
	read_field(leader, task, group_leader);
	read_field(name, leader, comm);
	return same_comm(name);
}

static __always_inline int hierarchy_of(struct cgroup_subsys_state *css)
{
	struct cgroup *group = 0;
	struct cgroup_root *root = 0;
	int hierarchy = -1;

	read_field(group, css, cgroup);
	read_field(root, group, root);
	read_field(hierarchy, root, hierarchy_id);
	return hierarchy;
}

/* Whether the task is in the cgroup v1 directory or below it. */
static __always_inline int in_cgroup_v1(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct css_set *set = 0;

	read_field(set, task, cgroups);
	for (int i = 0; i < MAX_CGROUP_SUBSYS; i++) {
		struct cgroup_subsys_state *css = 0;

		if (i * sizeof(css) >= __builtin_preserve_field_info(set->subsys, 1 /* byte size */))
			break;
		read_field(css, set, subsys[i]);
		if (hierarchy_of(css) != cgroup_v1_hierarchy)
			continue;
		for (int depth = 0; css && depth < MAX_CGROUP_DEPTH; depth++) {
			struct cgroup *group = 0;
			struct kernfs_node *node = 0;
			__u64 id = 0;

			read_field(group, css, cgroup);
			read_field(node, group, kn);
			read_field(id, node, id);
			if (id == cgroup_v1_id)
				return 1;
			read_field(css, css, parent);
		}
	}
	return 0;
}

/* Where a stack lies: the word's number in the regions of all CPUs. Never 0, since every region has a head. */
static __always_inline __u32 stack_place(__u32 cpu, __u64 offset)
{
	return (cpu * region_bytes + offset) / 8;
}

/* Stores the stack if this window does not have it yet. 0: there is none, or (then *full is set) no room for it. */
static __always_inline __u32 store_stack(void *ctx, struct region *region, void *places, __u32 cpu, __u64 flags, int *full)
{
	__u64 used = region->used;
	__u64 hash = hash_seed ^ flags;
	__u64 *stack;
	__u32 *found;
	__u32 place;
	long bytes;

	if (used < sizeof(*region) || used > region_bytes - STACK_BYTES - 8) {
		*full = 1;
		return 0;
	}
	stack = (void *)region + used;
	bytes = bpf_get_stack(ctx, stack + 1, STACK_BYTES, flags);
	if (bytes <= 0)
		return 0;
	region->frames = (__u64)bytes / 8;
	for (int i = 0; i < MAX_FRAMES; i++) {
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

/* `kernel_types` is a constant: without it, nothing here depends on where this kernel has its fields, and the kernel's BTF
 * need not even be looked at. */
static __always_inline int sample(void *ctx, int kernel_types)
{
	__u32 cpu = bpf_get_smp_processor_id();
	__u32 window = active;
	struct count_key key = {};
	struct count first = {}, *count;
	struct cpu_stats *stat;
	struct region *region;
	void *window_counts, *window_places, *window_regions;
	__u64 pid_tgid;
	int full = 0;

	stat = bpf_map_lookup_elem(&stats, &cpu);
	if (!stat)
		return 0;
	stat->runs++;
	pid_tgid = bpf_get_current_pid_tgid();
	if (!pid_tgid) {
		stat->idle++;
		return 0;
	}
	if (kernel_types && pid_ns) {
		struct task_struct *task = (void *)bpf_get_current_task();

		key.tid = number_in_ns(task);
		key.tgid = task_tgid(task);
	} else {
		key.tid = pid_tgid;
		key.tgid = pid_tgid >> 32;
	}
	bpf_get_current_comm(first.comm, sizeof(first.comm));
	if ((filter_pids && !bpf_map_lookup_elem(&pids, &key.tgid)) ||
	    (filter_cgroup_v2 && bpf_current_task_under_cgroup(&cgroup, 0) != 1) ||
	    (kernel_types && filter_comm && !comm_wanted(first.comm)) || (kernel_types && cgroup_v1_id && !in_cgroup_v1())) {
		stat->filtered++;
		return 0;
	}
	window_counts = bpf_map_lookup_elem(&counts, &window);
	window_places = bpf_map_lookup_elem(&stack_places, &window);
	window_regions = bpf_map_lookup_elem(&regions, &window);
	if (!window_counts || !window_places || !window_regions)
		return 0;
	region = bpf_map_lookup_elem(window_regions, &cpu);
	if (region) {
		key.kernel_stack = store_stack(ctx, region, window_places, cpu, 0, &full);
		key.user_stack = store_stack(ctx, region, window_places, cpu, BPF_F_USER_STACK, &full);
	} else {
		full = 1;
	}
	if (full)
		stat->no_stack++;
	stat->samples++;
	count = bpf_map_lookup_elem(window_counts, &key);
	if (!count) {
		first.samples = 1;
		if (!bpf_map_update_elem(window_counts, &key, &first, BPF_NOEXIST))
			goto announce;
		count = bpf_map_lookup_elem(window_counts, &key);
		if (!count) {
			stat->table_full++;
			full = 1;
			goto announce;
		}
	}
	__sync_fetch_and_add(&count->samples, 1);
announce:
	if (region && !region->announced && (full || region->used > region_bytes / 2)) {
		struct fill_record record = { .cpu = cpu, .window = window };

		region->announced = 1;
		bpf_ringbuf_output(&events, &record, sizeof(record), BPF_RB_FORCE_WAKEUP);
	}
	return 0;
}

/* Samples everything, processes by number, or a cgroup v2. */
SEC("?perf_event")
int profile(void *ctx)
{
	return sample(ctx, 0);
}

/* Samples by names or a cgroup v1 too, and from inside a pid namespace. */
SEC("?perf_event")
int profile_by_kernel_types(void *ctx)
{
	return sample(ctx, 1);
}

/* With --children: a child of a sampled process is sampled too. */
SEC("?raw_tp/sched_process_fork")
int follow_fork(__u64 *args)
{
	__u32 parent = task_tgid((void *)args[0]);
	__u32 child = task_tgid((void *)args[1]);
	__u8 one = 1;

	if (parent != child && bpf_map_lookup_elem(&pids, &parent) && bpf_map_update_elem(&pids, &child, &one, BPF_ANY))
		__sync_fetch_and_add(&children_lost, 1);
	return 0;
}

/* Numbers are used again, so a process that is gone must not leave its own behind. */
SEC("?raw_tp/sched_process_exit")
int forget_exit(__u64 *args)
{
	struct task_struct *task = (void *)args[0];
	struct signal_struct *signal = 0;
	int live = 1;
	__u32 tgid;

	read_field(signal, task, signal);
	read_field(live, signal, live.counter);
	if (live == 0) {
		tgid = task_tgid(task);
		bpf_map_delete_elem(&pids, &tgid);
	}
	return 0;
}

char _license[] SEC("license") = "Dual MIT/GPL";
