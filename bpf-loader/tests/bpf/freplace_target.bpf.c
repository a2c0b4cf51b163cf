/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A program with functions that others replace. They are weak for the compiler to assume nothing of them. */
#include "helpers.h"

char LICENSE[] SEC("license") = "GPL";

struct __sk_buff {
	__u32 len;
};

__attribute__((weak, noinline)) int tens(struct __sk_buff *skb)
{
	return 10;
}

__attribute__((weak, noinline)) int units(struct __sk_buff *skb)
{
	return 1;
}

SEC("tc")
int target(struct __sk_buff *skb)
{
	return tens(skb) + units(skb);
}
