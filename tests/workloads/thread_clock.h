/* The thread's CPU clock and its wait for a start signal, shared by the workloads. */
#ifndef THREAD_CLOCK_H
#define THREAD_CLOCK_H

#include <stdint.h>
#include <time.h>
#include <unistd.h>

#if !defined(__x86_64__)
#error "thread_clock.h knows the system call instruction of x86-64 only"
#endif

/*
 * CPU time of this thread in ns. The system call is made in the function that asks: libc's wrapper has no frame
 * pointer, so a stack walk from within it would miss the very function that is being charged.
 */
static inline __attribute__((always_inline)) uint64_t thread_clock(void)
{
	struct timespec now;
	long result = 228; /* clock_gettime */

	__asm__ volatile("syscall"
			 : "+a"(result)
			 : "D"((long)CLOCK_THREAD_CPUTIME_ID), "S"(&now)
			 : "rcx", "r11", "memory");
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Blocks, without CPU time, until stdin has a byte or ends. */
static inline void wait_for_stdin(void)
{
	char byte;

	while (read(STDIN_FILENO, &byte, 1) < 0) {
	}
}

#endif
