/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Reads the functions that CPython is in from its own structures, at the moment of the sample.
 *
 * User space tells which processes run it, and where its structures have what: see collector's `python`. One program finds the thread's
 * state, one reads frames; both call themselves, as unwind.h says why. A frame is a word behind the native frames of the stack.
 */
#pragma once
#include "thread_pointer.h"
#include "unwind.h"

#define MAX_PYTHONS 256
/* States of threads that are looked at by a program, and how many programs look: for one that is not among them there are no frames. */
#define THREADS_PER_CALL 64
#define MAX_THREAD_CALLS 4
#define PYTHON_FRAMES_PER_CALL 16
/* Of both: the kernel allows 33 calls, of which a walk takes 17. */
#define MAX_PYTHON_CALLS 13
/* Room that native frames leave at least to Python's: where each has native ones of its own, these are two. */
#define LEAST_PYTHON_FRAMES 42
/* How far behind its `struct pthread` a thread's pointer may be: on x86-64 it is the same. */
#define MAX_PTHREAD 4096

/* A word: a mark that no address has, whether the interpreter's own function was entered for this frame, the number of the instruction,
 * and the address of the code object, in units of 8 bytes. */
#define PYTHON_FRAME (1ULL << 63)
#define PYTHON_ENTRY (1ULL << 62)
#define PYTHON_INSTRUCTION_SHIFT 45
#define PYTHON_NO_INSTRUCTION 0x1ffffULL

/* How a version keeps its frames. */
enum python_flags {
	/* Objects on the heap, one for each call of the interpreter's function (before 3.11). */
	PYTHON_FRAME_OBJECTS = 1,
	/* The number of an instruction is in bytes (before 3.10). */
	PYTHON_IN_BYTES = 2,
	/* What the thread has points to what has the frame (3.11, 3.12). */
	PYTHON_CFRAME = 4,
	/* A frame tells itself whether it was entered (3.11), not one before it. */
	PYTHON_ENTRY_FLAG = 8,
};

/* A process that runs CPython, and the offsets of its version. */
struct python {
	/* Address of `_PyRuntime`. */
	__u64 runtime;
	__u32 flags;
	/* In the runtime: the first interpreter. In an interpreter: the next one, its first thread. */
	__u32 first_interpreter;
	__u32 next_interpreter;
	__u32 first_thread;
	/* In a thread's state. */
	__u32 next_thread;
	__u32 thread_id;
	__u32 thread_frame;
	__u32 cframe_frame;
	/* In a frame. */
	__u32 previous;
	__u32 code;
	__u32 instruction;
	/* One byte: who has the frame, or with PYTHON_ENTRY_FLAG whether it was entered. */
	__u32 owner;
	/* In a code object: its instructions. */
	__u32 instructions;
	__u32 pad;
};

/* From this owner on (FRAME_OWNED_BY_CSTACK, FRAME_OWNED_BY_INTERPRETER), a frame is none of a function, but of where the interpreter's own
 * was entered. */
#define PYTHON_OWNED_BY_INTERPRETER 3

struct python_walk {
	__u64 interpreter;
	__u64 thread;
	__u64 frame;
	__u32 calls;
	__u32 pad;
};

/* By process. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_PYTHONS);
	__type(key, __u32);
	__type(value, struct python);
} pythons SEC(".maps");

/* Looks at some of the process' threads; whether to go on: 0 once there is a frame, or that there is none is known. */
static __always_inline int find_python_thread(struct python_walk *walk, const struct python *python)
{
	__u64 pointer = thread_pointer();

	if (!walk->calls) {
		if (!read_word(&walk->interpreter, python->runtime + python->first_interpreter) || !walk->interpreter ||
		    !read_word(&walk->thread, walk->interpreter + python->first_thread))
			return 0;
	}
#pragma clang loop unroll(disable)
	for (int i = 0; i < THREADS_PER_CALL; i++) {
		__u64 thread = walk->thread;
		__u64 id, frame;

		if (!thread) {
			if (!read_word(&walk->interpreter, walk->interpreter + python->next_interpreter) || !walk->interpreter ||
			    !read_word(&walk->thread, walk->interpreter + python->first_thread))
				return 0;
			continue;
		}
		if (!read_word(&id, thread + python->thread_id))
			return 0;
		if (pointer - id < MAX_PTHREAD) {
			if (!read_word(&frame, thread + python->thread_frame))
				return 0;
			if (python->flags & PYTHON_CFRAME && !read_word(&frame, frame + python->cframe_frame))
				return 0;
			walk->frame = frame;
			return 0;
		}
		if (!read_word(&walk->thread, thread + python->next_thread))
			return 0;
	}
	walk->calls++;
	return walk->calls < MAX_THREAD_CALLS;
}

/* The word of a frame, but for whether it was entered. */
static __always_inline __u64 python_word(const struct python *python, __u64 code, __u64 instruction)
{
	__u64 number;

	if (python->flags & PYTHON_FRAME_OBJECTS)
		number = (__u32)instruction >> (python->flags & PYTHON_IN_BYTES ? 1 : 0);
	else
		number = (instruction - (code & ~7ULL) - python->instructions) >> 1;
	if (number > PYTHON_NO_INSTRUCTION)
		number = PYTHON_NO_INSTRUCTION;
	return PYTHON_FRAME | number << PYTHON_INSTRUCTION_SHIFT | (code & ((1ULL << ADDRESS_BITS) - 1)) >> 3;
}

/* Writes some frames down; whether there may be more. */
static __always_inline int read_python_frames(struct walk *walk, struct python_walk *at, const struct python *python, __u64 *stack)
{
	/* A chain without an end must leave calls for what counts the sample. */
	if (at->calls++ >= MAX_PYTHON_CALLS)
		return 0;
#pragma clang loop unroll(disable)
	for (int i = 0; i < PYTHON_FRAMES_PER_CALL; i++) {
		__u64 frame = at->frame;
		__u64 code = 0, instruction = 0, word;
		__u32 n = walk->frames + walk->python;
		__u8 owner = 0;

		if (!frame)
			return 0;
		if (!(python->flags & PYTHON_FRAME_OBJECTS) &&
		    bpf_probe_read_user(&owner, sizeof(owner), (const void *)(frame + python->owner)))
			return 0;
		if (!(python->flags & (PYTHON_FRAME_OBJECTS | PYTHON_ENTRY_FLAG)) && owner >= PYTHON_OWNED_BY_INTERPRETER) {
			/* The function before it was called from C. */
			n--;
			if (walk->python && n < MAX_WALK_FRAMES)
				stack[n] |= PYTHON_ENTRY;
		} else {
			if (n >= MAX_WALK_FRAMES) {
				if (walk->end == WALK_WHOLE)
					walk->end = WALK_DEPTH;
				return 0;
			}
			if (!read_word(&code, frame + python->code) || !read_word(&instruction, frame + python->instruction))
				return 0;
			word = python_word(python, code, instruction);
			if (python->flags & PYTHON_FRAME_OBJECTS || (python->flags & PYTHON_ENTRY_FLAG && owner))
				word |= PYTHON_ENTRY;
			stack[n] = word;
			walk->python++;
		}
		if (!read_word(&at->frame, frame + python->previous))
			return 0;
	}
	return 1;
}
