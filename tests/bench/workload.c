/*
 * workload DIRECTORY: a busy machine for profilers to watch, until it is killed. Four processes compute in some hundreds of
 * distinct stacks, one does small files in DIRECTORY (kernel stacks), and one starts twenty short programs a second.
 * Build with frame pointers and without inlining or sibling calls.
 */
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEPTH 8

volatile uint64_t sink;

static void burn_leaf(unsigned path)
{
	for (unsigned i = 0; i < 20000; i++)
		sink += i * path;
}

static void burn_left(unsigned path, unsigned depth);
static void burn_right(unsigned path, unsigned depth);

/* Each bit of the path picks the next function, so that 2^DEPTH paths lead to the leaf. */
static void burn(unsigned path, unsigned depth)
{
	if (depth == 0)
		burn_leaf(path);
	else if (path & 1)
		burn_left(path >> 1, depth - 1);
	else
		burn_right(path >> 1, depth - 1);
}

static void burn_left(unsigned path, unsigned depth)
{
	burn(path, depth);
}

static void burn_right(unsigned path, unsigned depth)
{
	burn(path, depth);
}

static void compute(void)
{
	for (unsigned path = 0;; path++)
		burn(path % (1 << DEPTH), DEPTH);
}

static void do_files(const char *directory)
{
	static char block[1 << 16];
	char name[4096], other[4096];
	struct stat status;

	for (unsigned i = 0;; i++) {
		snprintf(name, sizeof(name), "%s/%u", directory, i % 64);
		snprintf(other, sizeof(other), "%s/%u.old", directory, i % 64);
		int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);
		if (fd < 0 || write(fd, block, sizeof(block)) < 0 || pread(fd, block, sizeof(block), 0) < 0)
			exit(1);
		close(fd);
		stat(name, &status);
		rename(name, other);
		if (i % 2)
			unlink(other);
	}
}

static void start_programs(void)
{
	char *arguments[] = { "true", NULL };

	for (;;) {
		pid_t child;
		if (posix_spawnp(&child, "true", NULL, NULL, arguments, NULL) == 0)
			waitpid(child, NULL, 0);
		usleep(50000);
	}
}

int main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (int worker = 0; worker < 6; worker++) {
		if (fork() != 0)
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (worker < 4)
			compute();
		else if (worker == 4)
			do_files(argv[1]);
		else
			start_programs();
	}
	for (;;)
		pause();
}
