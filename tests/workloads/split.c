/*
 * split SECONDS: spends SECONDS of CPU time, 70/20/10 in three functions, and says what it spent in truth.
 *
 * Waits for a byte on stdin (or its end) before it starts, prints one JSON line when it is done, and waits for a second
 * byte before it exits, so that a profiler can be attached first and can still look at the process after.
 */
#include "thread_clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>

/*
 * One turn through the three functions. Sampled at 99 Hz (every 10.1 ms), successive samples fall 2.618 turns apart: the
 * golden ratio spreads them most evenly over the turn, so a correct profiler's error is well below that of random
 * sampling, and a wrong one shows.
 */
#define TURN_NS 3858000

static uint64_t sink;

/*
 * Works until the thread's clock reaches `end`; returns the clock. Each caller has a `salt` of its own, so that no two
 * of them are the same code and get folded into one.
 */
static inline __attribute__((always_inline)) uint64_t work_until(uint64_t end, uint64_t salt)
{
	uint64_t now;
	uint64_t x = salt;

	do {
		for (int i = 0; i < 2000; i++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
		}
		now = thread_clock();
	} while (now < end);
	sink += x;
	return now;
}

__attribute__((noipa)) uint64_t burn_seventy(uint64_t end)
{
	return work_until(end, 0x7070707070707070);
}

__attribute__((noipa)) uint64_t burn_twenty(uint64_t end)
{
	return work_until(end, 0x2020202020202020);
}

__attribute__((noipa)) uint64_t burn_ten(uint64_t end)
{
	return work_until(end, 0x1010101010101010);
}

int main(int argc, char **argv)
{
	double seconds = argc == 2 ? atof(argv[1]) : 0;
	uint64_t spent[3] = { 0 };

	if (seconds <= 0) {
		fprintf(stderr, "usage: split SECONDS\n");
		return 2;
	}
	wait_for_stdin();

	/* The ends of slices are absolute, so a late one shifts none of those that follow. */
	uint64_t start = thread_clock();
	uint64_t now = start;
	for (uint64_t turn = start; now - start < seconds * 1e9; turn += TURN_NS) {
		uint64_t before = now;

		now = burn_seventy(turn + TURN_NS * 7 / 10);
		spent[0] += now - before;
		before = now;
		now = burn_twenty(turn + TURN_NS * 9 / 10);
		spent[1] += now - before;
		before = now;
		now = burn_ten(turn + TURN_NS);
		spent[2] += now - before;
	}

	printf("{\"pid\":%d,\"tid\":%ld,\"total_seconds\":%.6f,\"seconds\":{\"burn_seventy\":%.6f,\"burn_twenty\":%.6f,"
	       "\"burn_ten\":%.6f}}\n",
	       getpid(), syscall(SYS_gettid), (now - start) / 1e9, spent[0] / 1e9, spent[1] / 1e9, spent[2] / 1e9);
	fflush(stdout);
	wait_for_stdin();
	return 0;
}
