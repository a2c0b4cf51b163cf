/*
 * churn COUNT MILLISECONDS: runs COUNT processes, one after the other, each an exec of this program that spends
 * MILLISECONDS of CPU time in `short_lived` and exits. Prints one JSON line with the time that they spent there.
 */
#include "thread_clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

__attribute__((noipa)) uint64_t short_lived(uint64_t end)
{
	uint64_t now;

	do {
		for (volatile int i = 0; i < 2000; i++) {
		}
		now = thread_clock();
	} while (now < end);
	return now;
}

static int child(const char *milliseconds)
{
	uint64_t start = thread_clock();
	uint64_t spent = short_lived(start + strtoull(milliseconds, NULL, 10) * 1000000) - start;

	return write(STDOUT_FILENO, &spent, sizeof(spent)) == sizeof(spent) ? 0 : 1;
}

int main(int argc, char **argv)
{
	uint64_t total = 0;

	if (argc == 3 && !strcmp(argv[1], "child"))
		return child(argv[2]);
	if (argc != 3) {
		fprintf(stderr, "usage: churn COUNT MILLISECONDS\n");
		return 2;
	}
	long count = atol(argv[1]);
	for (long i = 0; i < count; i++) {
		uint64_t spent;
		int ends[2], status;

		if (pipe(ends))
			return perror("pipe"), 1;
		pid_t pid = fork();
		if (pid < 0)
			return perror("fork"), 1;
		if (pid == 0) {
			dup2(ends[1], STDOUT_FILENO);
			close(ends[0]);
			close(ends[1]);
			/* By its path, not /proc/self/exe, whose name would become the process's. */
			execl(argv[0], argv[0], "child", argv[2], NULL);
			perror(argv[0]);
			_exit(1);
		}
		close(ends[1]);
		if (read(ends[0], &spent, sizeof(spent)) != sizeof(spent) || waitpid(pid, &status, 0) != pid || status) {
			fprintf(stderr, "churn: a child failed\n");
			return 1;
		}
		close(ends[0]);
		total += spent;
	}
	printf("{\"pid\":%d,\"children\":%ld,\"seconds\":{\"short_lived\":%.6f}}\n", getpid(), count, total / 1e9);
	return 0;
}
