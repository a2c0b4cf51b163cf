/*
 * leak: allocates what it says, on command, and keeps it.
 *
 * Each byte on stdin is a command; when it is done, one JSON line says how many calls allocated since the start, and what each
 * function holds: bytes and allocations. At the end of stdin it exits. Nothing else of it allocates.
 */
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define OWN __attribute__((noipa))
#define MAX_KEPT 400000
#define THREADS 4
#define EACH 1000

static void *kept[MAX_KEPT];
static int kept_count;
static unsigned long long calls;

/* What a function holds. */
struct held {
	const char *name;
	long long bytes, count;
};

enum { MALLOC, CALLOC, REALLOC, ALIGNED, VIA_A, VIA_B, THREAD, SMALL, MEDIUM, LARGE, SEVENTY, TWENTY, TEN, FUNCTIONS };
static struct held held[FUNCTIONS] = {
	{ .name = "keep_malloc" }, { .name = "keep_calloc" }, { .name = "keep_realloc" }, { .name = "keep_aligned" },
	{ .name = "by_a" },	   { .name = "by_b" },	      { .name = "keep_thread" },  { .name = "keep_small" },
	{ .name = "keep_medium" }, { .name = "keep_large" },
	{ .name = "keep_seventy" }, { .name = "keep_twenty" }, { .name = "keep_ten" },
};

/* The result of an allocation that is kept: what it is in the way of the compiler, which may leave out what is not used. */
static void *keep(int function, void *address, long long bytes)
{
	if (!address)
		abort();
	kept[kept_count++] = address;
	held[function].bytes += bytes;
	held[function].count++;
	return address;
}

OWN void keep_malloc(void)
{
	for (int i = 0; i < 100; i++, calls++)
		keep(MALLOC, malloc(24), 24);
	for (int i = 0; i < 50; i++, calls++) {
		void *volatile gone = malloc(1000);

		free(gone);
	}
	free(NULL);
	void *volatile none = malloc((size_t)1 << 60);

	if (none)
		abort();
	keep(MALLOC, malloc(0), 0);
	calls++;
}

OWN void keep_calloc(void)
{
	for (int i = 0; i < 10; i++, calls++)
		keep(CALLOC, calloc(7, 100), 700);
	volatile size_t many = (size_t)1 << 40;
	void *volatile none = calloc(many, many);

	if (none)
		abort();
}

OWN void keep_realloc(void)
{
	void *address = malloc(10), *other, *in_place;

	/* Whatever lies behind it keeps it from growing where it is. */
	other = malloc(10);
	calls += 2;
	address = realloc(address, 1000);
	calls++;
	address = realloc(address, 300000);
	calls++;
	keep(REALLOC, address, 300000);
	in_place = realloc(other, 9);
	calls++;
	keep(REALLOC, in_place, 9);
	keep(REALLOC, realloc(NULL, 77), 77);
	calls++;
	keep(REALLOC, reallocarray(NULL, 11, 13), 143);
	calls++;
	/* It cannot grow so far, and stays. */
	volatile size_t many = (size_t)1 << 60;
	void *volatile none = realloc(in_place, many);

	if (none)
		abort();
	/* Some allocators free, others give the least that they have. */
	void *volatile gone = realloc(malloc(55), 0);

	calls++;
	if (gone) {
		calls++;
		free(gone);
	}
}

OWN void keep_aligned(void)
{
	void *address = NULL;

	keep(ALIGNED, aligned_alloc(64, 256), 256);
	keep(ALIGNED, memalign(128, 1000), 1000);
	if (posix_memalign(&address, 4096, 5000))
		abort();
	keep(ALIGNED, address, 5000);
	keep(ALIGNED, valloc(300), 300);
	calls += 4;
	/* Not a power of two. */
	if (!posix_memalign(&address, 24, 5000))
		abort();
}

/* The same allocation from two callers. */
OWN void *common(size_t size)
{
	void *volatile address = malloc(size);

	calls++;
	return address;
}

OWN void by_a(void)
{
	for (int i = 0; i < 3; i++)
		keep(VIA_A, common(111), 111);
}

OWN void by_b(void)
{
	for (int i = 0; i < 5; i++)
		keep(VIA_B, common(222), 222);
}

static void *of_threads[THREADS][EACH];

OWN void *keep_thread(void *slot)
{
	void **own = slot;

	for (int i = 0; i < EACH; i++)
		own[i] = malloc(32);
	/* Half of it goes where it came from, an eighth from another thread. */
	for (int i = 0; i < EACH / 2; i++)
		free(own[i]);
	return NULL;
}

static void threads(void)
{
	pthread_t ids[THREADS];

	for (int i = 0; i < THREADS; i++)
		if (pthread_create(&ids[i], NULL, keep_thread, of_threads[i]))
			abort();
	for (int i = 0; i < THREADS; i++)
		pthread_join(ids[i], NULL);
	for (int i = 0; i < THREADS; i++)
		for (int j = EACH / 2; j < EACH / 2 + EACH / 8; j++)
			free(of_threads[i][j]);
	calls += THREADS * EACH;
	held[THREAD].count += THREADS * (EACH - EACH / 2 - EACH / 8);
	held[THREAD].bytes += 32 * THREADS * (EACH - EACH / 2 - EACH / 8);
}

OWN void keep_small(void)
{
	for (int i = 0; i < 100000; i++, calls++)
		keep(SMALL, malloc(40), 40);
}

OWN void keep_medium(void)
{
	for (int i = 0; i < 20000; i++, calls++)
		keep(MEDIUM, malloc(600), 600);
}

OWN void keep_large(void)
{
	for (int i = 0; i < 20; i++, calls++)
		keep(LARGE, malloc(200000), 200000);
}

/* Several calls deep, with frames that differ. */
OWN void *below(int depth, size_t size)
{
	volatile char room[24 + 8 * (depth & 3)];
	void *address;

	room[0] = depth;
	if (depth)
		address = below(depth - 1, size);
	else
		address = malloc(size);
	return room[0] == depth ? address : NULL;
}

OWN void keep_seventy(void)
{
	for (int i = 0; i < 70; i++, calls++)
		keep(SEVENTY, below(12, 100), 100);
}

OWN void keep_twenty(void)
{
	for (int i = 0; i < 20; i++, calls++)
		keep(TWENTY, below(12, 100), 100);
}

OWN void keep_ten(void)
{
	for (int i = 0; i < 10; i++, calls++)
		keep(TEN, below(12, 100), 100);
}

/* A child frees what it inherits: its parent still has it. */
static void child(void)
{
	pid_t pid = fork();

	if (!pid) {
		while (kept_count)
			free(kept[--kept_count]);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}

static void free_all(void)
{
	while (kept_count)
		free(kept[--kept_count]);
	for (int i = 0; i < FUNCTIONS; i++)
		if (i != THREAD)
			held[i].bytes = held[i].count = 0;
}

/* How long a pair of malloc and free takes, in nanoseconds of CPU time. */
static double time_pairs(int pairs)
{
	struct timespec start, end;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
	for (int i = 0; i < pairs; i++) {
		void *volatile address = malloc(64);

		free(address);
	}
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
	calls += pairs;
	return ((end.tv_sec - start.tv_sec) * 1e9 + (end.tv_nsec - start.tv_nsec)) / pairs;
}

static void say(double nanoseconds)
{
	char line[2048];
	int length = snprintf(line, sizeof(line), "{\"pair_ns\":%.1f,\"calls\":%llu", nanoseconds, calls);

	for (int i = 0; i < FUNCTIONS; i++)
		length += snprintf(line + length, sizeof(line) - length, ",\"%s\":[%lld,%lld]", held[i].name, held[i].bytes,
				   held[i].count);
	length += snprintf(line + length, sizeof(line) - length, "}\n");
	if (write(1, line, length) != length)
		abort();
}

int main(int argc, char **argv)
{
	char command;
	double nanoseconds = 0;

	(void)argc;
	say(0);
	while (read(0, &command, 1) == 1) {
		switch (command) {
		case 'b':
			keep_malloc();
			keep_calloc();
			keep_realloc();
			keep_aligned();
			by_a();
			by_b();
			break;
		case 't':
			threads();
			break;
		case 's':
			keep_small();
			/* fall through */
		case 'm':
			keep_medium();
			keep_large();
			break;
		case 'd':
			for (int i = 0; i < 200; i++) {
				keep_seventy();
				keep_twenty();
				keep_ten();
			}
			break;
		case 'c':
			child();
			break;
		case 'f':
			free_all();
			break;
		case 'p':
			nanoseconds = time_pairs(100000);
			break;
		case 'P':
			nanoseconds = time_pairs(20000000);
			break;
		case 'x':
			execv("/proc/self/exe", argv);
			abort();
		default:
			continue;
		}
		say(nanoseconds);
	}
	return 0;
}
