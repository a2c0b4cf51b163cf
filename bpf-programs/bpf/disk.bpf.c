/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Requests to block devices: how long they wait in a queue, how long the device takes, how many there are, how many bytes, by
 * device and operation.
 *
 * A request is noted when it is issued to the driver and added to its device's sums when all of it is done; its bytes are
 * counted part by part, as drivers report them. The sums exist twice; see profile.bpf.c for how windows are swapped. Requests
 * are done on any CPU, in interrupts: sums are added up with atomics.
 */
#include "add.h"
#include "exponential.h"
#include "task_filter.h"

/* Defaults; user space sizes the maps before they are created. */
#define WINDOWS 2
#define MAX_SUMS 128
#define MAX_REQUESTS 1024
#define SCALE 2
/* What is noted to wait for longer may have been merged into another without being seen, and the note be another's. */
#define STALE_NANOS 60000000000ULL

/* Operations (enum req_op), as the kernel's own statistics group them. */
enum {
	OP_READ = 0,
	OP_WRITE = 1,
	OP_FLUSH = 2,
	OP_DISCARD = 3,
	/* From here on: commands that pass through to the driver, which are no input or output. */
	OP_PASS_THROUGH = 32,
};
#define OP_MASK 0xff

struct request_key {
	/* The request's address; where only classic tracepoints are, the device, and in bit 32 whether it has no data. */
	__u64 what;
	/* 0, or the sector. */
	__u64 sector;
};

struct request_note {
	/* When; 0 where it only waits to be, and who put it into the queue passed the filter. */
	__u64 issued;
	/* When it was put into the queue; 0 where it went to the driver at once. */
	__u64 inserted;
	__u32 device;
	__u8 operation;
	/* It went back to the queue, and will be issued again. */
	__u8 requeued;
	/* Sums found no room for what there was to add, which is counted once. */
	__u8 homeless;
	__u8 pad;
	/* Bytes that are not done yet, where the request itself cannot be asked. */
	__u64 left;
};

struct sums_key {
	/* As the kernel numbers it: major << 20 | minor. */
	__u32 device;
	__u32 operation;
};

struct disk_sums {
	__u64 slots[SLOTS(SCALE)];
	__u64 zero;
	__u64 sum_ns;
	/* The same of the time in the queue. */
	__u64 queue_slots[SLOTS(SCALE)];
	__u64 queue_zero;
	__u64 queue_sum_ns;
	__u64 bytes;
};

struct disk_counts {
	/* Requests issued that are looked at. */
	__u64 issued;
	__u64 done;
	/* Requests that found no room, */
	__u64 requests_full;
	/* or whose sums did not. */
	__u64 sums_full;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_REQUESTS);
	__type(key, struct request_key);
	__type(value, struct request_note);
} requests SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, WINDOWS);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_HASH);
		__uint(max_entries, MAX_SUMS);
		__uint(key_size, sizeof(struct sums_key));
		__uint(value_size, sizeof(struct disk_sums));
	});
} sums SEC(".maps");

/* Zeros, to begin sums with: they are larger than the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct disk_sums);
} nothing SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct disk_counts);
} counts SEC(".maps");

/* Clang describes in BTF only what it sees used in a map of the outer level or a global. */
const struct sums_key *describe_sums_key __attribute__((unused));

/* Which window is being filled. */
volatile __u32 active = 0;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct gendisk {
	int major;
	int first_minor;
};

struct request_queue {
	struct gendisk *disk;
};

struct request {
	struct request_queue *q;
	unsigned int cmd_flags;
	unsigned int __data_len;
};

/* Before 5.17. */
struct request___rq_disk {
	struct gendisk *rq_disk;
};

/* The event of issuing, inserting and merging; what it has after the sector moved more than once. */
struct trace_event_raw_block_rq {
	__u32 dev;
	__u64 sector;
	__u32 bytes;
	char rwbs[8];
};

#pragma clang attribute pop

/* Since 5.9. */
typedef void (*btf_trace_block_rq_merge)(void *, struct request *);

/* Before 5.11. */
typedef void (*btf_trace_block_rq_issue___queue)(void *, struct request_queue *, struct request *);

/* The beginning of two events; the sectors of a request that is done are as many as were reported done. */
struct sectors_tracepoint {
	__u64 common;
	__u32 device;
	__u32 pad;
	__u64 sector;
	__u32 sectors;
};

static __always_inline struct disk_counts *own_counts(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&counts, &zero);
}

static __always_inline __u32 group_of(__u32 operation)
{
	if (operation == OP_DISCARD || operation == OP_FLUSH)
		return operation;
	/* Odd numbers write: erasing and writing zeros too. */
	return operation & 1;
}

static __always_inline struct disk_sums *sums_of(struct request_note *note, struct disk_counts *counted)
{
	struct sums_key key = { .device = note->device, .operation = note->operation };
	__u32 window = active, zero = 0;
	void *window_sums = bpf_map_lookup_elem(&sums, &window);
	struct disk_sums *found, *first;

	if (!window_sums)
		return 0;
	found = bpf_map_lookup_elem(window_sums, &key);
	if (found)
		return found;
	first = bpf_map_lookup_elem(&nothing, &zero);
	if (!first)
		return 0;
	/* Another CPU may be faster; then it is there. */
	bpf_map_update_elem(window_sums, &key, first, BPF_NOEXIST);
	found = bpf_map_lookup_elem(window_sums, &key);
	if (!found && !note->homeless) {
		note->homeless = 1;
		add_to(&counted->sums_full, 1);
	}
	return found;
}

static __always_inline void add_time(__u64 *slots, __u64 *zero, __u64 *sum_ns, __u64 took)
{
	int slot = duration_slot(took, SCALE);

	add_to(sum_ns, took);
	if (slot == ZERO_SLOT)
		add_to(zero, 1);
	else if (is_slot(slot, SCALE))
		add_to(&slots[slot], 1);
}

/* A request is put into the queue, by the task that wants it; from there, threads of the kernel may issue it. */
static __always_inline int inserted(struct request_key *key, __u32 operation)
{
	__u32 tgid = current_tgid(bpf_get_current_pid_tgid(), 1);
	struct disk_counts *counted = own_counts();
	struct request_note note = {}, *old;

	if (!counted || operation >= OP_PASS_THROUGH)
		return 0;
	old = bpf_map_lookup_elem(&requests, key);
	if (old && old->requeued)
		return 0;
	note.inserted = bpf_ktime_get_boot_ns();
	if (!task_wanted(tgid, 1))
		bpf_map_delete_elem(&requests, key);
	else if (bpf_map_update_elem(&requests, key, &note, BPF_ANY) && filter_in_use)
		/* Without a filter, it is looked at when it is issued, and counted if there is no room then either. */
		add_to(&counted->requests_full, 1);
	return 0;
}

/* `operation`: as the request has it. `surely`: a note that it was put into the queue cannot be of another before it. */
static __always_inline int issued(struct request_key *key, __u32 device, __u32 operation, __u64 bytes, int surely)
{
	__u32 tgid = current_tgid(bpf_get_current_pid_tgid(), 1);
	struct disk_counts *counted = own_counts();
	struct request_note note = {}, *old;
	struct disk_sums *found;

	if (!counted || operation >= OP_PASS_THROUGH)
		return 0;
	note.issued = bpf_ktime_get_boot_ns();
	old = bpf_map_lookup_elem(&requests, key);
	if (old && !surely && !old->issued && note.issued - old->inserted > STALE_NANOS)
		old = 0;
	if ((!old || old->issued) && !(old && old->requeued) && !task_wanted(tgid, 1))
		return 0;
	if (old && old->requeued && old->issued) {
		/* It takes as long as from when it was issued first. */
		old->requeued = 0;
		return 0;
	}
	add_to(&counted->issued, 1);
	note.device = device;
	note.operation = group_of(operation);
	note.left = bytes;
	if (old && !old->issued) {
		note.inserted = old->inserted;
		found = sums_of(&note, counted);
		if (found)
			add_time(found->queue_slots, &found->queue_zero, &found->queue_sum_ns,
				 note.issued - note.inserted);
	}
	if (bpf_map_update_elem(&requests, key, &note, BPF_ANY))
		add_to(&counted->requests_full, 1);
	return 0;
}

/* So many bytes of a request are done; `last`: all of it. */
static __always_inline void done(struct request_key *key, struct request_note *note, __u64 bytes, int last)
{
	struct disk_counts *counted = own_counts();
	struct disk_sums *found;
	__u64 took;

	if (!counted)
		return;
	found = sums_of(note, counted);
	if (found)
		add_to(&found->bytes, bytes);
	if (!last)
		return;
	took = bpf_ktime_get_boot_ns() - note->issued;
	bpf_map_delete_elem(&requests, key);
	add_to(&counted->done, 1);
	if (found)
		add_time(found->slots, &found->zero, &found->sum_ns, took);
}

/* A request that waited was merged into another, or was done without having been issued: the device is gone. */
static __always_inline int forgotten(struct request_key *key)
{
	struct request_note *note = bpf_map_lookup_elem(&requests, key);

	if (note && !note->issued)
		bpf_map_delete_elem(&requests, key);
	return 0;
}

static __always_inline __u32 number_of(struct gendisk *disk, int direct)
{
	int major = 0, minor = 0;

	get_field(major, direct, disk, major);
	get_field(minor, direct, disk, first_minor);
	return (__u32)major << 20 | minor;
}

static __always_inline __u32 device_of(struct request *request, int direct)
{
	struct request_queue *queue = 0;
	struct gendisk *disk = 0;

	if (field_exists((struct request___rq_disk *)request, rq_disk)) {
		/* Commands that pass through may have none. */
		get_field(disk, direct, (struct request___rq_disk *)request, rq_disk);
	} else {
		get_field(queue, direct, request, q);
		get_field(disk, direct, queue, disk);
	}
	return disk ? number_of(disk, direct) : 0;
}

static __always_inline int issued_request(struct request *request, int direct)
{
	struct request_key key = { .what = (__u64)request };
	__u32 flags = 0;

	get_field(flags, direct, request, cmd_flags);
	return issued(&key, device_of(request, direct), flags & OP_MASK, 0, type_exists(btf_trace_block_rq_merge));
}

static __always_inline int inserted_request(struct request *request)
{
	struct request_key key = { .what = (__u64)request };
	__u32 flags = 0;

	read_field(flags, request, cmd_flags);
	return inserted(&key, flags & OP_MASK);
}

static __always_inline int done_request(struct request *request, __u32 bytes, int direct)
{
	struct request_key key = { .what = (__u64)request };
	struct request_note *note = bpf_map_lookup_elem(&requests, &key);
	__u32 left = 0;

	if (!note || !note->issued)
		return forgotten(&key);
	/* The hook comes before the bytes are taken off what is left. */
	get_field(left, direct, request, __data_len);
	done(&key, note, bytes, bytes >= left);
	return 0;
}

static __always_inline int merged_request(struct request *request)
{
	struct request_key key = { .what = (__u64)request };

	return forgotten(&key);
}

static __always_inline int requeued_request(struct request *request)
{
	struct request_key key = { .what = (__u64)request };
	struct request_note *note = bpf_map_lookup_elem(&requests, &key);

	if (note)
		note->requeued = 1;
	return 0;
}

/* The request among the arguments of issuing, requeuing and merging. */
#define request_of(args) \
	((struct request *)(type_exists(btf_trace_block_rq_issue___queue) ? (args)[1] : (args)[0]))

SEC("?tp_btf/block_rq_issue")
int issue_btf(__u64 *args)
{
	/* Two paths, as the verifier is to know what the pointer points to. */
	if (type_exists(btf_trace_block_rq_issue___queue))
		return issued_request((void *)args[1], 1);
	return issued_request((void *)args[0], 1);
}

SEC("?tp_btf/block_rq_insert")
int insert_btf(__u64 *args)
{
	return inserted_request(request_of(args));
}

SEC("?tp_btf/block_rq_requeue")
int requeue_btf(__u64 *args)
{
	return requeued_request(request_of(args));
}

SEC("?tp_btf/block_rq_merge")
int merge_btf(__u64 *args)
{
	return merged_request(request_of(args));
}

SEC("?tp_btf/block_rq_complete")
int complete_btf(__u64 *args)
{
	return done_request((void *)args[0], args[2], 1);
}

SEC("?raw_tp/block_rq_issue")
int issue_raw(__u64 *args)
{
	return issued_request(request_of(args), 0);
}

SEC("?raw_tp/block_rq_insert")
int insert_raw(__u64 *args)
{
	return inserted_request(request_of(args));
}

SEC("?raw_tp/block_rq_requeue")
int requeue_raw(__u64 *args)
{
	return requeued_request(request_of(args));
}

SEC("?raw_tp/block_rq_merge")
int merge_raw(__u64 *args)
{
	return merged_request(request_of(args));
}

SEC("?raw_tp/block_rq_complete")
int complete_raw(__u64 *args)
{
	return done_request((void *)args[0], args[2], 0);
}

/* Classic tracepoints do not say which request it is: it is known by where it lies. One without data lies nowhere. */
static __always_inline struct request_key place_of(__u32 device, __u64 sector, int has_data)
{
	struct request_key key = { .what = device, .sector = sector };

	if (!has_data) {
		key.what |= 1ULL << 32;
		key.sector = 0;
	}
	return key;
}

static __always_inline __u32 operation_of(struct trace_event_raw_block_rq *args)
{
	char letter = args->rwbs[0];

	/* A flush that comes before other things is written first. */
	if (letter == 'F' && (args->rwbs[1] == 'W' || args->rwbs[1] == 'F'))
		letter = args->rwbs[1];
	if (letter == 'R')
		return OP_READ;
	if (letter == 'W')
		return OP_WRITE;
	if (letter == 'F')
		return OP_FLUSH;
	/* Erasing securely is written DE. */
	if (letter == 'D')
		return args->rwbs[1] == 'E' ? OP_WRITE : OP_DISCARD;
	return OP_PASS_THROUGH;
}

SEC("?tracepoint/block/block_rq_insert")
int insert_classic(struct trace_event_raw_block_rq *args)
{
	struct request_key key = place_of(args->dev, args->sector, args->bytes != 0);

	return inserted(&key, operation_of(args));
}

SEC("?tracepoint/block/block_rq_issue")
int issue_classic(struct trace_event_raw_block_rq *args)
{
	struct request_key key = place_of(args->dev, args->sector, args->bytes != 0);

	return issued(&key, args->dev, operation_of(args), args->bytes, 0);
}

SEC("?tracepoint/block/block_rq_merge")
int merge_classic(struct trace_event_raw_block_rq *args)
{
	struct request_key key = place_of(args->dev, args->sector, args->bytes != 0);

	return forgotten(&key);
}

SEC("?tracepoint/block/block_rq_requeue")
int requeue_classic(struct sectors_tracepoint *args)
{
	struct request_key key = place_of(args->device, args->sector, args->sectors != 0);
	struct request_note *note = bpf_map_lookup_elem(&requests, &key);

	if (note)
		note->requeued = 1;
	return 0;
}

SEC("?tracepoint/block/block_rq_complete")
int complete_classic(struct sectors_tracepoint *args)
{
	struct request_key key = place_of(args->device, args->sector, args->sectors != 0);
	struct request_note *note = bpf_map_lookup_elem(&requests, &key);
	__u64 bytes = (__u64)args->sectors << 9;
	struct disk_counts *counted = own_counts();
	struct request_note rest;

	if (!note || !counted)
		return 0;
	if (!note->issued)
		return forgotten(&key);
	rest = *note;
	if (bytes >= rest.left) {
		done(&key, &rest, bytes, 1);
		return 0;
	}
	done(&key, &rest, bytes, 0);
	/* What is left of it lies further on. */
	rest.left -= bytes;
	bpf_map_delete_elem(&requests, &key);
	key.sector += args->sectors;
	if (bpf_map_update_elem(&requests, &key, &rest, BPF_ANY))
		add_to(&counted->requests_full, 1);
	return 0;
}

char _license[] SEC("license") = "Dual MIT/GPL";
