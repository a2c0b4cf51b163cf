/*
 * touch PAGES PASSES: touches as many pages of fresh memory, as often, and prints the nanoseconds of CPU time of a page fault
 * in each pass.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

int main(int argc, char **argv)
{
	long pages = argc > 1 ? atol(argv[1]) : 0, passes = argc > 2 ? atol(argv[2]) : 0;
	long page = sysconf(_SC_PAGESIZE);

	if (pages <= 0 || passes <= 0) {
		fprintf(stderr, "usage: touch PAGES PASSES\n");
		return 2;
	}
	for (long pass = 0; pass < passes; pass++) {
		char *memory = mmap(NULL, pages * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		double began;

		if (memory == MAP_FAILED) {
			perror("mmap");
			return 1;
		}
		madvise(memory, pages * page, MADV_NOHUGEPAGE);
		began = now();
		for (long i = 0; i < pages; i++)
			memory[i * page] = 1;
		printf("%.1f\n", (now() - began) / pages);
		munmap(memory, pages * page);
	}
	return 0;
}
