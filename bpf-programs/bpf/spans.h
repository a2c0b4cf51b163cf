/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Reads which span a thread works for, where its process publishes that: OpenTelemetry's thread context (OTEP 4947).
 *
 * A variable of each thread points to a record. Where the variable is user space tells: see collector's `spans`. What is found stands behind
 * the frames of the stack, so that each span has stacks of its own.
 */
#pragma once
#include "thread_pointer.h"
#include "unwind.h"

#define MAX_SPAN_PROCESSES 256
/* The trace, the span, and a word that is no address, nor a frame of CPython. */
#define SPAN_WORDS 4
#define SPAN_MARK (1ULL << 62)

/* Where the threads of a process have the variable. */
struct span_place {
	/* From the thread pointer on, or in its module's data. */
	__u64 offset;
	/* 0: it is at the thread pointer. Else the module's number, in a table of which each thread has one. */
	__u32 module;
	/* Bytes of an entry. */
	__u32 entry;
	/* From the thread pointer to where the table's address is; from the table to where its number of entries is. */
	__s32 table;
	__s32 entries;
};

/* The beginning of a record. */
struct span_record {
	__u64 trace[2];
	__u64 span;
	__u8 valid;
	__u8 flags;
	__u16 attributes;
	__u32 pad;
};
#define SPAN_RECORD_BYTES 28

/* By process. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SPAN_PROCESSES);
	__type(key, __u32);
	__type(value, struct span_place);
} span_places SEC(".maps");

/* The address of the current thread's variable; 0: it has none yet. */
static __always_inline __u64 span_variable(const struct span_place *place)
{
	__u64 pointer = thread_pointer();
	__u64 table, entries, data;

	if (!pointer)
		return 0;
	if (!place->module)
		return pointer + place->offset;
	if (!read_word(&table, pointer + (__s64)place->table) || !read_word(&entries, table + (__s64)place->entries) ||
	    entries < place->module || !read_word(&data, table + (__u64)place->module * place->entry))
		return 0;
	/* -1: the thread has never used the module's. */
	return data && data != ~0ULL ? data + place->offset : 0;
}

/* Puts the span behind the frames, for which `stack` has room. */
static __always_inline void add_span(struct walk *walk, __u64 *stack)
{
	const struct span_place *place = bpf_map_lookup_elem(&span_places, &walk->tgid);
	__u32 n = walk->frames + walk->python;
	struct span_record record = {};
	__u64 variable, at;

	if (!place || n > MAX_WALK_FRAMES)
		return;
	variable = span_variable(place);
	if (!variable || !read_word(&at, variable) || !at ||
	    bpf_probe_read_user(&record, SPAN_RECORD_BYTES, (const void *)at))
		return;
	if (record.valid != 1 || !record.span || !(record.trace[0] | record.trace[1]))
		return;
	stack[n] = record.trace[0];
	stack[n + 1] = record.trace[1];
	stack[n + 2] = record.span;
	stack[n + 3] = SPAN_MARK;
	walk->span = SPAN_WORDS;
}
