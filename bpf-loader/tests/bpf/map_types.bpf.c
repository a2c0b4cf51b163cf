/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A map of each type that can be declared, named by its number in enum bpf_map_type. */
#include "helpers.h"

#define MAP(number, ...) \
	struct { \
		__uint(type, number); \
		__VA_ARGS__ \
	} type_##number SEC(".maps")

#define KEYED(key_type, value_type) __type(key, key_type); __type(value, value_type);
#define ENTRIES(n) __uint(max_entries, n);
#define FLAGS(f) __uint(map_flags, f);

struct inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
};

struct cgroup_storage_key {
	__u64 cgroup_inode_id;
	__u32 attach_type;
};

struct prefix {
	__u32 length;
	__u8 address[4];
};

struct insn_value {
	__u32 orig_off, xlated_off, jitted_off, pad;
};

MAP(1, KEYED(__u32, __u64) ENTRIES(8));
MAP(2, KEYED(__u32, __u64) ENTRIES(8));
MAP(3, KEYED(__u32, __u32) ENTRIES(8));
MAP(4, __uint(key_size, 4); __uint(value_size, 4););
MAP(5, KEYED(__u32, __u64) ENTRIES(8));
MAP(6, KEYED(__u32, __u64) ENTRIES(8));
MAP(7, __uint(key_size, 4); __uint(value_size, 8 * 32); ENTRIES(8));
MAP(8, __uint(key_size, 4); __uint(value_size, 4); ENTRIES(8));
MAP(9, KEYED(__u32, __u64) ENTRIES(8));
MAP(10, KEYED(__u32, __u64) ENTRIES(8));
MAP(11, KEYED(struct prefix, __u64) ENTRIES(8) FLAGS(BPF_F_NO_PREALLOC));
MAP(12, __uint(key_size, 4); ENTRIES(8) __array(values, struct inner););
MAP(13, __uint(key_size, 4); ENTRIES(8) __array(values, struct inner););
MAP(14, KEYED(__u32, __u64) ENTRIES(8));
MAP(15, KEYED(__u32, __u64) ENTRIES(8));
MAP(16, KEYED(__u32, __u64) ENTRIES(8));
MAP(17, KEYED(__u32, __u32) ENTRIES(8));
MAP(18, KEYED(__u32, __u64) ENTRIES(8));
MAP(19, KEYED(struct cgroup_storage_key, __u64));
MAP(20, KEYED(__u32, __u64) ENTRIES(8));
MAP(21, KEYED(struct cgroup_storage_key, __u64));
MAP(22, __type(value, __u64); ENTRIES(8));
MAP(23, __type(value, __u64); ENTRIES(8));
MAP(24, KEYED(__s32, __u64) FLAGS(BPF_F_NO_PREALLOC));
MAP(25, KEYED(__u32, __u64) ENTRIES(8));
MAP(27, ENTRIES(4096));
MAP(28, KEYED(__s32, __u64) FLAGS(BPF_F_NO_PREALLOC));
MAP(29, KEYED(__s32, __u64) FLAGS(BPF_F_NO_PREALLOC));
MAP(30, __type(value, __u64); ENTRIES(8) __uint(map_extra, 3););
MAP(31, ENTRIES(4096));
MAP(32, KEYED(__s32, __u64) FLAGS(BPF_F_NO_PREALLOC));
MAP(33, ENTRIES(4) FLAGS(BPF_F_MMAPABLE));
MAP(34, KEYED(__u32, struct insn_value) ENTRIES(8));
MAP(35, KEYED(__u32, __u64) ENTRIES(8) FLAGS(BPF_F_NO_PREALLOC));

/* As programs and user space use them, beyond the above. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 5);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u32);
} mapped SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1000);
	__type(key, __u32);
	__type(value, __u64);
} thousand SEC(".maps");
