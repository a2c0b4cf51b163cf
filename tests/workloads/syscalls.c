/* syscalls SECONDS: calls getppid for SECONDS of CPU time. Prints one JSON line with the calls and the time. */
#include "thread_clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>

__attribute__((noipa)) void call_getppid(int times)
{
	for (int i = 0; i < times; i++)
		syscall(SYS_getppid);
}

int main(int argc, char **argv)
{
	double seconds = argc == 2 ? atof(argv[1]) : 0;
	uint64_t start = thread_clock(), now, calls = 0;

	if (seconds <= 0) {
		fprintf(stderr, "usage: syscalls SECONDS\n");
		return 2;
	}
	do {
		call_getppid(10000);
		calls += 10000;
		now = thread_clock();
	} while (now - start < seconds * 1e9);
	printf("{\"pid\":%d,\"getppid\":%llu,\"total_seconds\":%.6f}\n", getpid(), (unsigned long long)calls,
	       (now - start) / 1e9);
	return 0;
}
