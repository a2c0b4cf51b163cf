/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What every program needs: fixed-width types, map declaration macros, and the kernel's helpers by number
 * (include/uapi/linux/bpf.h, ___BPF_FUNC_MAPPER). */
#pragma once

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef short __s16;
typedef int __s32;
typedef long long __s64;

#define SEC(name) __attribute__((section(name), used))
#define __always_inline inline __attribute__((always_inline))

/* Externs: symbols, variables and functions of the kernel, values of its configuration, and any that may be missing. */
#define __ksym __attribute__((section(".ksyms")))
#define __kconfig __attribute__((section(".kconfig")))
#define __weak __attribute__((weak))

/* Members of a map declaration in section ".maps". */
#define __uint(name, value) int (*name)[value]
#define __type(name, type) typeof(type) *name
#define __array(name, type) typeof(type) *name[]

#define BPF_ANY 0
#define BPF_NOEXIST 1
#define BPF_EXIST 2
#define BPF_F_USER_STACK (1ULL << 8)
#define BPF_F_NO_PREALLOC (1U << 0)
#define BPF_F_MMAPABLE (1U << 10)
#define BPF_RB_NO_WAKEUP 1
#define BPF_RB_FORCE_WAKEUP 2
#define BPF_RB_AVAIL_DATA 0
#define BPF_LOCAL_STORAGE_GET_F_CREATE 1

enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PROG_ARRAY = 3,
	BPF_MAP_TYPE_PERF_EVENT_ARRAY = 4,
	BPF_MAP_TYPE_PERCPU_HASH = 5,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_CGROUP_ARRAY = 8,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_LRU_PERCPU_HASH = 10,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
	BPF_MAP_TYPE_HASH_OF_MAPS = 13,
	BPF_MAP_TYPE_SK_STORAGE = 24,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_MAP_TYPE_TASK_STORAGE = 29,
};

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*const bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static long (*const bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static __u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static __u32 (*const bpf_get_prandom_u32)(void) = (void *)7;
static __u32 (*const bpf_get_smp_processor_id)(void) = (void *)8;
static long (*const bpf_tail_call)(void *ctx, void *programs, __u32 index) = (void *)12;
static __u64 (*const bpf_get_current_pid_tgid)(void) = (void *)14;
static __u64 (*const bpf_get_current_uid_gid)(void) = (void *)15;
static long (*const bpf_get_current_comm)(void *buf, __u32 size) = (void *)16;
static __u64 (*const bpf_get_current_task)(void) = (void *)35;
static long (*const bpf_current_task_under_cgroup)(void *map, __u32 index) = (void *)37;
static long (*const bpf_get_stack)(void *ctx, void *buf, __u32 size, __u64 flags) = (void *)67;
static __u64 (*const bpf_get_current_cgroup_id)(void) = (void *)80;
static long (*const bpf_probe_read_user)(void *dst, __u32 size, const void *src) = (void *)112;
static long (*const bpf_probe_read_kernel)(void *dst, __u32 size, const void *src) = (void *)113;
static long (*const bpf_probe_read_kernel_str)(void *dst, __u32 size, const void *src) = (void *)115;
static __u64 (*const bpf_ktime_get_boot_ns)(void) = (void *)125;
static long (*const bpf_ringbuf_output)(void *ringbuf, void *data, __u64 size, __u64 flags) = (void *)130;
static void *(*const bpf_ringbuf_reserve)(void *ringbuf, __u64 size, __u64 flags) = (void *)131;
static void (*const bpf_ringbuf_submit)(void *data, __u64 flags) = (void *)132;
static void (*const bpf_ringbuf_discard)(void *data, __u64 flags) = (void *)133;
static __u64 (*const bpf_ringbuf_query)(void *ringbuf, __u64 flags) = (void *)134;
static struct task_struct *(*const bpf_get_current_task_btf)(void) = (void *)158;
static long (*const bpf_seq_write)(void *seq, const void *data, __u32 len) = (void *)127;
static __u64 (*const bpf_get_attach_cookie)(void *ctx) = (void *)174;
static long (*const bpf_task_pt_regs)(struct task_struct *task) = (void *)175;

/* What CO-RE knows of a field in this kernel. */
#define field_offset(base, field) __builtin_preserve_field_info((base)->field, 0)
#define field_size(base, field) __builtin_preserve_field_info((base)->field, 1)
#define field_exists(base, field) __builtin_preserve_field_info((base)->field, 2)

/* Reads one field of a kernel structure, wherever this kernel has it. Pointers and longs have 8 bytes here, and on 32-bit kernels
 * 4, to which zeros are added. */
#define read_field(dst, base, field)                                                                    \
	do {                                                                                            \
		/* Before `dst` is written: it may be `base`. */                                        \
		const void *field_at = __builtin_preserve_access_index(&(base)->field);                 \
		if (sizeof(dst) == 8)                                                                   \
			__builtin_memset(&(dst), 0, sizeof(dst));                                       \
		bpf_probe_read_kernel(&(dst), sizeof(dst) == 8 ? field_size(base, field) : sizeof(dst), \
				      field_at);                                                        \
	} while (0)

/* Reads an element of an array of pointers, whose number is not known to the compiler. */
#define read_pointer_at(dst, array, i, pointer_size)                                                 \
	do {                                                                                         \
		(dst) = 0;                                                                           \
		bpf_probe_read_kernel(&(dst), pointer_size, (void *)(array) + (i) * (pointer_size)); \
	} while (0)

/* Whether this kernel has a type like this one, flavours aside. */
#define type_exists(type) __builtin_preserve_type_info(*(type *)0, 0 /* it exists */)

/* As read_field; where the verifier knows what the pointer points to, the field is read as it stands. `direct` is a constant. */
#define get_field(dst, direct, base, field)             \
	do {                                            \
		if (direct)                             \
			(dst) = (base)->field;          \
		else                                    \
			read_field(dst, base, field);   \
	} while (0)
