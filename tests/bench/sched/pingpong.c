/*
 * pingpong ROUNDS PASSES: two processes on one CPU wake each other through pipes. Prints, for each pass, nanoseconds a switch:
 * a round has two, and two wake-ups.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

int main(int argc, char **argv)
{
	long rounds = argc > 1 ? atol(argv[1]) : 0, passes = argc > 2 ? atol(argv[2]) : 0;
	int there[2], back[2];
	cpu_set_t cpus;
	char byte = 0;

	CPU_ZERO(&cpus);
	CPU_SET(0, &cpus);
	if (rounds <= 0 || sched_setaffinity(0, sizeof(cpus), &cpus) || pipe(there) || pipe(back))
		return 2;
	if (fork() == 0) {
		close(there[1]);
		while (read(there[0], &byte, 1) == 1)
			if (write(back[1], &byte, 1) != 1)
				break;
		_exit(0);
	}
	close(there[0]);
	for (long pass = 0; pass < passes; pass++) {
		double start = now();

		for (long i = 0; i < rounds; i++)
			if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1)
				return 1;
		printf("%.1f\n", (now() - start) / rounds / 2);
	}
	close(there[1]);
	return wait(0) < 0;
}
