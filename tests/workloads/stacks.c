/*
 * stacks: spends its time in ways that are hard to walk out of without frame pointers, until it is killed: under a signal handler, in a frame
 * that is aligned, in the kernel, in the vDSO, under a callback from the C library, in its hand-written functions, deep down, in a
 * thread.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#ifdef __clang__
#define NOT_INLINED __attribute__((noinline))
#else
#define NOT_INLINED __attribute__((noipa))
#endif

static volatile uint64_t sink;

NOT_INLINED void spin(uint64_t turns)
{
	for (uint64_t i = 0; i < turns; i++)
		sink += i * i;
}

NOT_INLINED void in_handler(void)
{
	spin(300000);
	sink++;
}

static void handler(int number)
{
	in_handler();
	sink += number;
}

NOT_INLINED void interrupted(void)
{
	for (int i = 0; i < 1000; i++)
		spin(2000);
	sink++;
}

NOT_INLINED void aligned(int size)
{
	char bytes[size] __attribute__((aligned(64)));

	memset(bytes, size, sizeof(bytes));
	for (int i = 0; i < 200; i++) {
		spin(5000);
		sink += bytes[i % size];
	}
}

NOT_INLINED void in_kernel(void)
{
	char bytes[4096];
	int zeros = open("/dev/zero", O_RDONLY);

	for (int i = 0; i < 4000; i++)
		sink += read(zeros, bytes, sizeof(bytes));
	close(zeros);
}

NOT_INLINED void in_vdso(void)
{
	struct timespec now;

	for (int i = 0; i < 20000; i++) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		sink += now.tv_nsec;
	}
}

static int compare(const void *a, const void *b)
{
	spin(20);
	return *(const int *)a - *(const int *)b;
}

NOT_INLINED void sorting(void)
{
	int numbers[2000];

	for (int i = 0; i < 2000; i++)
		numbers[i] = i * 7919 % 2003;
	qsort(numbers, 2000, sizeof(int), compare);
	sink += numbers[5];
}

NOT_INLINED void copying(void)
{
	static char from[1 << 20], to[1 << 20];

	for (int i = 0; i < 30; i++) {
		memcpy(to, from, sizeof(to));
		sink += strlen(to) + memcmp(to, from, sizeof(to));
	}
}

NOT_INLINED void deep(int depth)
{
	if (depth)
		deep(depth - 1);
	else
		spin(1000000);
	sink++;
}

static void *thread(void *unused)
{
	for (;;) {
		aligned(300);
		sorting();
	}
	return unused;
}

int main(void)
{
	struct sigaction action = { .sa_handler = handler, .sa_flags = SA_RESTART };
	struct itimerval each = { { 0, 20000 }, { 0, 20000 } };
	pthread_t other;

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &each, NULL);
	if (pthread_create(&other, NULL, thread, NULL))
		return 1;
	for (;;) {
		interrupted();
		aligned(100);
		in_kernel();
		in_vdso();
		sorting();
		copying();
		deep(80);
	}
}
