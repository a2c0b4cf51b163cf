/*
 * memory: does to its memory what it reads from stdin, a command a line, and answers each with a line.
 *
 *   touch N         touches N pages of fresh memory: N minor faults
 *   file PATH N     reads N pages of a file through a mapping, after dropping it from the page cache
 *   threads T N     T threads touch N pages each, and end
 *   forks T N       T processes touch N pages each, and end; answers with their minor and major faults by wait4
 *   map N           maps N bytes
 *   unmap           unmaps them
 *   brk N           moves the end of the heap by N bytes; answers with where it was and where it is
 *   second N        a second thread touches N pages, and stays
 *   exec            the second thread executes this program again, which says ready
 *   hogs N          N processes take memory, one after another, each until it is killed; answers how many were
 *   hog             takes memory until it is killed
 *   rusage          answers with its own minor and major faults by getrusage
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static long page;
static volatile char sink;

static void check(int good, const char *what)
{
	if (!good) {
		perror(what);
		exit(1);
	}
}

/* Without huge pages, each of which would be one fault. */
static char *fresh(size_t bytes)
{
	char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check(memory != MAP_FAILED, "mmap");
	/* A kernel without huge pages does not know the advice. */
	madvise(memory, bytes, MADV_NOHUGEPAGE);
	return memory;
}

static void touch(long pages)
{
	char *memory = fresh(pages * page);

	for (long i = 0; i < pages; i++)
		memory[i * page] = 1;
	munmap(memory, pages * page);
}

static void read_file(const char *path, long pages)
{
	int file = open(path, O_RDONLY);
	char *memory;

	check(file >= 0, path);
	check(fsync(file) == 0, "fsync");
	check(posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED) == 0, "fadvise");
	memory = mmap(NULL, pages * page, PROT_READ, MAP_PRIVATE, file, 0);
	check(memory != MAP_FAILED, "mmap");
	/* No page comes with another. */
	madvise(memory, pages * page, MADV_RANDOM);
	for (long i = 0; i < pages; i++)
		sink += memory[i * page];
	munmap(memory, pages * page);
	close(file);
}

static void *thread(void *pages)
{
	touch((long)pages);
	return NULL;
}

static void threads(long count, long pages)
{
	for (long i = 0; i < count; i++) {
		pthread_t id;

		check(pthread_create(&id, NULL, thread, (void *)pages) == 0, "pthread_create");
		pthread_join(id, NULL);
	}
}

static void forks(long count, long pages)
{
	long minor = 0, major = 0;

	for (long i = 0; i < count; i++) {
		struct rusage usage;
		pid_t child = fork();

		check(child >= 0, "fork");
		if (!child) {
			touch(pages);
			_exit(0);
		}
		check(wait4(child, NULL, 0, &usage) == child, "wait4");
		minor += usage.ru_minflt;
		major += usage.ru_majflt;
	}
	printf("%ld %ld\n", minor, major);
}

static sem_t touched, told;

static void *second(void *pages)
{
	touch((long)pages);
	sem_post(&touched);
	sem_wait(&told);
	execl("/proc/self/exe", "memory", NULL);
	check(0, "exec");
	return NULL;
}

static void start_second(long pages)
{
	pthread_t id;

	check(pthread_create(&id, NULL, second, (void *)pages) == 0, "pthread_create");
	sem_wait(&touched);
}

static void hog(void)
{
	for (;;)
		memset(fresh(1 << 20), 1, 1 << 20);
}

static void hogs(long count)
{
	long killed = 0;

	for (long i = 0; i < count; i++) {
		pid_t child = fork();
		int status, first;

		check(child >= 0, "fork");
		if (!child) {
			/* Before its parent. */
			first = open("/proc/self/oom_score_adj", O_WRONLY);
			check(write(first, "1000", 4) == 4, "oom_score_adj");
			hog();
		}
		check(waitpid(child, &status, 0) == child, "waitpid");
		killed += WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
	}
	printf("%ld\n", killed);
}

int main(void)
{
	static char out[4096];
	char line[4096], path[4096];
	char *mapped = NULL;
	size_t mapped_bytes = 0;
	long a, b;

	page = sysconf(_SC_PAGESIZE);
	sem_init(&touched, 0, 0);
	sem_init(&told, 0, 0);
	setvbuf(stdout, out, _IOLBF, sizeof(out));
	puts("ready");
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "touch %ld", &a) == 1) {
			touch(a);
		} else if (sscanf(line, "file %4095s %ld", path, &a) == 2) {
			read_file(path, a);
		} else if (sscanf(line, "threads %ld %ld", &a, &b) == 2) {
			threads(a, b);
		} else if (sscanf(line, "forks %ld %ld", &a, &b) == 2) {
			forks(a, b);
			continue;
		} else if (sscanf(line, "map %ld", &a) == 1) {
			mapped = fresh(a);
			mapped_bytes = a;
		} else if (!strncmp(line, "unmap", 5)) {
			check(munmap(mapped, mapped_bytes) == 0, "munmap");
		} else if (sscanf(line, "brk %ld", &a) == 1) {
			char *before = sbrk(a);

			check(before != (void *)-1, "sbrk");
			printf("%lu %lu\n", (unsigned long)before, (unsigned long)sbrk(0));
			continue;
		} else if (sscanf(line, "second %ld", &a) == 1) {
			start_second(a);
		} else if (!strncmp(line, "exec", 4)) {
			sem_post(&told);
			pause();
		} else if (sscanf(line, "hogs %ld", &a) == 1) {
			hogs(a);
			continue;
		} else if (!strncmp(line, "hog", 3)) {
			hog();
		} else if (!strncmp(line, "rusage", 6)) {
			struct rusage usage;

			getrusage(RUSAGE_SELF, &usage);
			printf("%ld %ld\n", usage.ru_minflt, usage.ru_majflt);
			continue;
		} else {
			fprintf(stderr, "what is %s", line);
			return 2;
		}
		puts("done");
	}
	return 0;
}
