/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Arguments of USDT probes. The maps are those of libbpf's usdt.bpf.h (1.7 and later), so that loaders treat an object
 * built with either header alike. */
#pragma once
#include "helpers.h"

enum usdt_place {
	USDT_CONST,
	USDT_REG,
	USDT_DEREF,
	USDT_INDEXED,
};

struct __bpf_usdt_arg_spec {
	/* The constant, or the offset in memory. */
	__u64 value;
	__u8 place;
	__u8 : 8;
	__u16 index_reg : 12;
	__u16 index_shift : 4;
	__u16 : 16;
	/* Registers are offsets in the context. */
	__s16 reg;
	__u8 is_signed;
	/* 64 less the argument's bits. */
	__u8 shift;
};

#define USDT_MAX_ARGS 12

struct __bpf_usdt_spec {
	struct __bpf_usdt_arg_spec args[USDT_MAX_ARGS];
	__u64 cookie;
	__s16 arg_count;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 256);
	__type(key, int);
	__type(value, struct __bpf_usdt_spec);
} __bpf_usdt_specs SEC(".maps");

/* For kernels without cookies (before Linux 5.15): the probe's address says which spec is its own. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, long);
	__type(value, __u32);
} __bpf_usdt_ip_to_spec_id SEC(".maps");

/* Only the name counts: the loader looks the value up in the kernel. */
enum bpf_func_id {
	BPF_FUNC_get_attach_cookie = 174,
};

#define USDT_HAS_COOKIES __builtin_preserve_enum_value(*(enum bpf_func_id *)BPF_FUNC_get_attach_cookie, 0)

#if defined(__TARGET_ARCH_arm64)
#define USDT_IP 256
#else
#define USDT_IP 128
#endif

static __always_inline struct __bpf_usdt_spec *usdt_spec(void *ctx)
{
	__u32 id;

	if (USDT_HAS_COOKIES) {
		id = bpf_get_attach_cookie(ctx);
	} else {
		long ip = *(__u64 *)(ctx + USDT_IP);
		__u32 *found = bpf_map_lookup_elem(&__bpf_usdt_ip_to_spec_id, &ip);

		if (!found)
			return 0;
		id = *found;
	}
	return bpf_map_lookup_elem(&__bpf_usdt_specs, &id);
}

/* How many arguments the probe has; negative if it is not known. */
static __always_inline int usdt_arg_count(void *ctx)
{
	struct __bpf_usdt_spec *spec = usdt_spec(ctx);

	return spec ? spec->arg_count : -3;
}

static __always_inline __u64 usdt_cookie(void *ctx)
{
	struct __bpf_usdt_spec *spec = usdt_spec(ctx);

	return spec ? spec->cookie : 0;
}

/* Reads an argument; other than 0 if there is no such, or it cannot be read. */
static __attribute__((noinline)) int usdt_arg(void *ctx, __u64 number, __u64 *result)
{
	struct __bpf_usdt_spec *spec = usdt_spec(ctx);
	struct __bpf_usdt_arg_spec *arg;
	__u64 value = 0, index = 0;

	*result = 0;
	if (!spec || number >= USDT_MAX_ARGS)
		return -2;
	/* Lest the compiler forget the check above. */
	asm volatile("" : "+r"(number));
	if (number >= USDT_MAX_ARGS || number >= (__u64)spec->arg_count)
		return -2;
	arg = &spec->args[number];
	switch (arg->place) {
	case USDT_CONST:
		value = arg->value;
		break;
	case USDT_INDEXED:
		if (bpf_probe_read_kernel(&index, sizeof(index), ctx + arg->index_reg))
			return -14;
		index <<= arg->index_shift;
		/* fall through */
	case USDT_REG:
	case USDT_DEREF:
		if (bpf_probe_read_kernel(&value, sizeof(value), ctx + arg->reg))
			return -14;
		if (arg->place == USDT_REG)
			break;
		if (bpf_probe_read_user(&value, sizeof(value), (void *)(value + index + arg->value)))
			return -14;
		break;
	default:
		return -22;
	}
	value <<= arg->shift;
	*result = arg->is_signed ? (__u64)((__s64)value >> arg->shift) : value >> arg->shift;
	return 0;
}
