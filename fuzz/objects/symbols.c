/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A program with local, global and weak functions, for the symbolizer. */
#ifdef INLINED
static inline int local(int value)
#else
static __attribute__((noinline)) int local(int value)
#endif
{
	return value * 3;
}

__attribute__((weak)) int _ZN4shop4hash17h0123456789abcdefE(int value)
{
	return local(value) + 1;
}

int _Z4add2ii(int a, int b)
{
	return local(a) + b;
}

void _start(void)
{
	for (;;)
		_Z4add2ii(_ZN4shop4hash17h0123456789abcdefE(1), 2);
}
