/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Walks stacks of processes by tables that user space made of their call frame information.
 *
 * Code is looked up by pages of 4 KiB, whatever the machine's are: page -> rows, sorted, of which each says from which byte of
 * the page on which rule holds. A page is that of a file, which all processes share that map it, or that of a process where it has code of no
 * file, or more mappings than are kept. User space makes a page's rows when a walk has missed them: see collector's `unwind`.
 * A walk takes several programs, each some frames, that call each other: a loop over all frames is more than verifiers of
 * Linux 5.8 look at, and before 5.10 (arm64: 6.0) programs that do so may not have functions.
 */
#pragma once
#include "add.h"

#define PAGE_BITS 12
/* What a process may have of an address space: more only where it asks for it. */
#define ADDRESS_BITS 48
/* A word below this is no return address: nothing can be mapped there. */
#define MAX_WALK_FRAMES 127
#define FRAMES_PER_CALL 8

/* Mappings of files that are kept of a process: a power of two. */
#define MAX_MAPPINGS 64
/* How many pages a mapping has, in so many bits; what is behind the last mapping. */
#define MAPPING_BITS 27
#define NO_MAPPING (~0ULL >> 1)

/* Sizes are user space's: see `rows_mask`. */
#define MAX_PAGES 16384
#define MAX_PROCESSES 256
#define ROWS_BYTES 4096
#define RULES_BYTES 4096

/* How far a walk came. The names are in events/unwind.rs. */
enum walk_end {
	WALK_GOES_ON = 0,
	/* The first function of the thread. */
	WALK_WHOLE = 1,
	/* The page is not in the tables yet. */
	WALK_MISSED = 2,
	/* No rule, and what is in the frame pointer is none. */
	WALK_NO_TABLE = 3,
	/* The rule leads nowhere. */
	WALK_BAD_CFA = 4,
	/* More frames than are kept. */
	WALK_DEPTH = 5,
	/* There is no code at a return address. */
	WALK_NOT_MAPPED = 6,
	/* Missed, and no room to tell it. */
	WALK_LOST = 7,
	/* Walked by the kernel, along frame pointers. */
	WALK_BY_KERNEL = 8,
	WALK_ENDS = 16,
};

/* What a page is. */
enum page_kind {
	PAGE_ROWS = 0,
	/* Code without tables, of a JIT compiler or by one that has frame pointers. */
	PAGE_FRAME_POINTERS = 1,
	/* No code. */
	PAGE_NOT_MAPPED = 2,
};

struct page {
	/* Number of the first row. */
	__u32 first;
	__u16 rows;
	__u8 kind;
	__u8 pad;
};

/* See collector's unwind::rule. Offsets are in words. */
struct rule {
	__u8 cfa;
	__u8 saved;
	__u16 cfa_low;
	__s16 fp_offset;
	__s16 ra_offset;
};

enum rule_cfa {
	CFA_UNKNOWN = 0,
	CFA_END = 1,
	CFA_SP = 2,
	CFA_FP = 3,
	CFA_AT_FP = 4,
	CFA_PLT = 5,
	CFA_SIGNAL = 6,
	CFA_UNSUPPORTED = 7,
};

#define SAVED_FP(rule) ((rule)->saved & 0x0f)
#define FP_ON_STACK 1
#define FP_AT_FP 2
#define RETURN_IN_LINK(rule) ((rule)->saved & 0x10)
/* Its high three bits are those of `saved`, the sign too. */
#define CFA_OFFSET(rule) ((__s64)(((__u64)((rule)->saved & 0xe0) << 56) | ((__u64)(rule)->cfa_low << 45)) >> 45)

/* A walk on its way. */
struct walk {
	__u64 pc;
	__u64 sp;
	__u64 fp;
	/* The link register of arm64, while it holds the return address. */
	__u64 link;
	__u32 tgid;
	/* Frames that were found. */
	__u32 frames;
	/* Whether `pc` is where execution goes on by itself, not behind a call. */
	__u8 exact;
	__u8 has_link;
	__u8 end;
	/* Frames of CPython that stand behind the others. */
	__u8 python;
	/* Which mapping of `processes` the last frame was in. */
	__u8 mapping;
	/* Words of the span that stand behind all frames. */
	__u8 span;
	__u8 pad[2];
};

/* Code of a file. */
struct mapping {
	/* Number of its first page in the process << MAPPING_BITS | how many it has. */
	__u64 pages;
	/* The key of its first page in `pages`. */
	__u64 key;
};

struct mappings {
	/* By `pages`; NO_MAPPING behind the last. */
	struct mapping sorted[MAX_MAPPINGS];
};

/* Process -> the files that it maps. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_PROCESSES);
	__type(key, __u32);
	__type(value, struct mappings);
} processes SEC(".maps");

/* What is there, by tgid << 36 | address >> 12, and for pages of files 1 << 63 | number of the file << 36 | address in the file >> 12. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_PAGES);
	__type(key, __u64);
	__type(value, struct page);
} pages SEC(".maps");

/* Offset within the page << 20 | number of a rule. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__uint(value_size, ROWS_BYTES);
} rows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__uint(value_size, RULES_BYTES);
} rules SEC(".maps");

/* Set before loading: the numbers of rows and rules, which are powers of two, less one. */
const volatile __u32 rows_mask = ROWS_BYTES / 4 - 1;
const volatile __u32 rules_mask = RULES_BYTES / sizeof(struct rule) - 1;
/* Whose processes these are: 0 x86-64, 1 arm64. */
const volatile __u32 on_arm64 = 0;

/* Where the kernel stores registers of what a signal has interrupted, counted from the stack pointer of its return: on x86-64 from
 * `ucontext` on (include/uapi/asm/sigcontext.h, `sigcontext_64`), on arm64 behind `siginfo` and the rest of `ucontext`. */
#define SIGNAL_FP (on_arm64 ? 304 + 8 + 29 * 8 : 40 + 10 * 8)
#define SIGNAL_LINK (304 + 8 + 30 * 8)
#define SIGNAL_SP (on_arm64 ? 304 + 8 + 31 * 8 : 40 + 15 * 8)
#define SIGNAL_PC (on_arm64 ? 304 + 8 + 32 * 8 : 40 + 16 * 8)

static __always_inline int read_word(__u64 *word, __u64 address)
{
	return bpf_probe_read_user(word, sizeof(*word), (const void *)address) == 0;
}

/* Without what pointer authentication puts above the address. */
static __always_inline __u64 stripped(__u64 address)
{
	return on_arm64 ? address & ((1ULL << ADDRESS_BITS) - 1) : address;
}

/* The number of the rule for a byte of the page: the last row that begins there or before. Without branches, of which verifiers would
 * look at every combination. */
static __always_inline __u32 find_rule(const __u32 *table, struct page *page, __u32 offset)
{
	__u64 wanted = (__u64)offset << 20 | 0xfffff;
	__u64 first = page->first;
	__u64 left = page->rows;

#pragma clang loop unroll(full)
	for (int i = 0; i < PAGE_BITS; i++) {
		__u64 half = left >> 1;
		__u64 row = table[(first + half) & rows_mask];
		/* 1 where the row begins there or before. */
		__u64 reaches = 1 ^ ((wanted - row) >> 63);

		first += half & -reaches;
		left -= half;
	}
	return table[first & rows_mask] & 0xfffff;
}

/* By frame pointers. Where the chain's end marks the thread's: `ends_whole`. */
static __always_inline int step_by_fp(struct walk *walk, int ends_whole)
{
	__u64 record[2];
	__u64 fp = walk->fp;

	if (!fp)
		return ends_whole ? WALK_WHOLE : WALK_NO_TABLE;
	if (fp < walk->sp || fp & 7)
		return WALK_NO_TABLE;
	if (bpf_probe_read_user(record, sizeof(record), (const void *)fp))
		return WALK_NO_TABLE;
	walk->sp = fp + 16;
	walk->fp = record[0];
	walk->pc = stripped(record[1]);
	walk->exact = 0;
	walk->has_link = 0;
	return walk->pc ? WALK_GOES_ON : WALK_WHOLE;
}

static __always_inline int step_over_signal(struct walk *walk)
{
	__u64 sp = walk->sp;

	if (!read_word(&walk->fp, sp + SIGNAL_FP) || !read_word(&walk->pc, sp + SIGNAL_PC) ||
	    !read_word(&walk->sp, sp + SIGNAL_SP))
		return WALK_BAD_CFA;
	if (on_arm64 && !read_word(&walk->link, sp + SIGNAL_LINK))
		return WALK_BAD_CFA;
	walk->has_link = on_arm64;
	walk->exact = 1;
	return WALK_GOES_ON;
}

static __always_inline int step_by_rule(struct walk *walk, const struct rule *rule)
{
	__u64 sp = walk->sp, fp = walk->fp;
	__u64 cfa = sp, pc = 0;
	int end;

	switch (rule->cfa) {
	case CFA_END:
		return WALK_WHOLE;
	case CFA_SIGNAL:
		return step_over_signal(walk);
	case CFA_SP:
		cfa = sp + CFA_OFFSET(rule) * 8;
		break;
	case CFA_FP:
		cfa = fp + CFA_OFFSET(rule) * 8;
		break;
	case CFA_AT_FP:
		if (!read_word(&cfa, fp + CFA_OFFSET(rule) * 8))
			return WALK_BAD_CFA;
		break;
	case CFA_PLT:
		cfa = sp + 8;
		if ((walk->pc & 15) >= rule->cfa_low)
			cfa += 8;
		break;
	default:
		end = step_by_fp(walk, 0);
		return end == WALK_NO_TABLE && rule->cfa == CFA_UNSUPPORTED ? WALK_BAD_CFA : end;
	}
	/* Stacks grow down. */
	if (cfa < sp || (cfa == sp && !RETURN_IN_LINK(rule)) || cfa & 7)
		return WALK_BAD_CFA;
	if (RETURN_IN_LINK(rule)) {
		/* Who calls has saved it, unless nobody has called them. */
		if (!walk->has_link)
			return WALK_WHOLE;
		pc = walk->link;
	} else if (!read_word(&pc, cfa + rule->ra_offset * 8LL)) {
		return WALK_BAD_CFA;
	}
	if (SAVED_FP(rule) == FP_ON_STACK) {
		if (!read_word(&walk->fp, cfa + rule->fp_offset * 8LL))
			return WALK_BAD_CFA;
	} else if (SAVED_FP(rule) == FP_AT_FP) {
		if (!read_word(&walk->fp, fp))
			return WALK_BAD_CFA;
	}
	walk->sp = cfa;
	walk->pc = stripped(pc);
	walk->exact = 0;
	walk->has_link = 0;
	return walk->pc ? WALK_GOES_ON : WALK_WHOLE;
}

/* Whether a page is in the mapping of that number, and its key then. */
static __always_inline int key_in_mapping(const struct mappings *mappings, __u32 n, __u64 page, __u64 *key)
{
	const struct mapping *mapping;
	__u64 distance;

	/* That it is small the compiler knows; the verifier has to be told. */
	asm volatile("" : "+r"(n));
	mapping = &mappings->sorted[n & (MAX_MAPPINGS - 1)];
	distance = page - (mapping->pages >> MAPPING_BITS);
	*key = mapping->key + distance;
	return distance < (mapping->pages & ((1ULL << MAPPING_BITS) - 1));
}

/* The key of the page of an address in `pages`. */
static __always_inline __u64 page_key(struct walk *walk, const struct mappings *mappings, __u64 at)
{
	__u64 page = at >> PAGE_BITS;
	__u64 wanted = page << MAPPING_BITS | ((1ULL << MAPPING_BITS) - 1);
	__u64 key;
	__u32 n = 0;

	if (mappings) {
		/* Callers are mostly in the same file. */
		if (key_in_mapping(mappings, walk->mapping, page, &key))
			return key;
		/* The last that begins there or before; without branches, as find_rule(). */
#pragma clang loop unroll(full)
		for (__u32 half = MAX_MAPPINGS / 2; half; half >>= 1) {
			__u32 middle = n + half;
			__u64 begins;

			asm volatile("" : "+r"(middle));
			begins = mappings->sorted[middle & (MAX_MAPPINGS - 1)].pages;
			n += half & -(__u32)(1 ^ ((wanted - begins) >> 63));
		}
		walk->mapping = n;
		if (key_in_mapping(mappings, n, page, &key))
			return key;
	}
	return (__u64)walk->tgid << (ADDRESS_BITS - PAGE_BITS) | page;
}

/* Writes a frame down and goes to its caller. `stack` has room for all frames. */
static __always_inline int step(struct walk *walk, __u64 *stack, const __u32 *row_table, const struct rule *rule_table,
				const struct mappings *mappings)
{
	__u64 at = walk->pc - !walk->exact;
	__u64 key = page_key(walk, mappings, at);
	__u32 frames = walk->frames;
	struct page *page;

	page = bpf_map_lookup_elem(&pages, &key);
	if (at >> ADDRESS_BITS || (page && page->kind == PAGE_NOT_MAPPED)) {
		/* Where it is executed, at least. */
		if (!frames) {
			stack[0] = walk->pc;
			walk->frames = 1;
		}
		return WALK_NOT_MAPPED;
	}
	if (!page)
		return WALK_MISSED;
	if (frames >= MAX_WALK_FRAMES)
		return WALK_DEPTH;
	/* Readers take one off all but the first, which are behind calls. */
	stack[frames] = walk->pc + (walk->exact && frames);
	walk->frames = frames + 1;
	if (page->kind == PAGE_FRAME_POINTERS)
		return step_by_fp(walk, 1);
	return step_by_rule(walk, &rule_table[find_rule(row_table, page, at & ((1 << PAGE_BITS) - 1)) & rules_mask]);
}

/* Some frames of a walk; why it ended, or that it goes on. */
static __always_inline int walk_frames(struct walk *walk, __u64 *stack)
{
	__u32 zero = 0;
	const __u32 *row_table = bpf_map_lookup_elem(&rows, &zero);
	const struct rule *rule_table = bpf_map_lookup_elem(&rules, &zero);
	const struct mappings *mappings = bpf_map_lookup_elem(&processes, &walk->tgid);
	int end = WALK_GOES_ON;

	if (!row_table || !rule_table)
		return WALK_NO_TABLE;
#pragma clang loop unroll(disable)
	for (int i = 0; i < FRAMES_PER_CALL; i++) {
		end = step(walk, stack, row_table, rule_table, mappings);
		if (end != WALK_GOES_ON)
			break;
	}
	return end;
}
