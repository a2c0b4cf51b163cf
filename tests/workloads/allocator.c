/*
 * allocator: allocates by an allocator of its own, in code that it loads on command.
 *
 * Commands and answers are those of leak.c; nothing else of it allocates, but for the loading. Compiled with -DLATE it is what is loaded: a library
 * beside the program, with `.so` behind its name, that binds its own functions to itself.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define OWN __attribute__((noipa))
#define SIZE 48
#define PAGES 24

/* What is loaded. */
struct library {
	void (*keep)(void);
	/* Each is on a page of its own. */
	void *(*pages[PAGES])(void);
	/* Reallocates what does not move as long as it may not go on, and fails then. */
	void (*fail)(void *address);
	sem_t is_in, may_go_on;
};

#ifdef LATE
static char room[1 << 20];
static size_t used;
extern struct library library;

OWN void *malloc(size_t size)
{
	void *address = room + used;

	if (size > sizeof(room) - used)
		return NULL;
	used += (size + 15) & ~(size_t)15;
	return address;
}

OWN void free(void *address)
{
	(void)address;
}

OWN void *realloc(void *address, size_t size)
{
	(void)address;
	(void)size;
	sem_post(&library.is_in);
	while (sem_wait(&library.may_go_on))
		;
	return NULL;
}

OWN void keep_own(void)
{
	for (int i = 0; i < 100; i++) {
		void *volatile kept = malloc(SIZE);
		void *volatile gone = malloc(1000);

		if (!kept || !gone)
			abort();
		free(gone);
	}
}

OWN void fail(void *address)
{
	void *volatile none = realloc(address, 2 * SIZE);

	if (none)
		abort();
}

#define PAGE(n) \
	__attribute__((noipa, aligned(4096))) void *page_##n(void) \
	{ \
		void *volatile kept = malloc(SIZE); \
\
		return kept; \
	}
PAGE(0) PAGE(1) PAGE(2) PAGE(3) PAGE(4) PAGE(5) PAGE(6) PAGE(7) PAGE(8) PAGE(9) PAGE(10) PAGE(11)
PAGE(12) PAGE(13) PAGE(14) PAGE(15) PAGE(16) PAGE(17) PAGE(18) PAGE(19) PAGE(20) PAGE(21) PAGE(22) PAGE(23)

struct library library = {
	.keep = keep_own,
	.pages = { page_0,  page_1,  page_2,  page_3,  page_4,	page_5,	 page_6,  page_7,
		   page_8,  page_9,  page_10, page_11, page_12, page_13, page_14, page_15,
		   page_16, page_17, page_18, page_19, page_20, page_21, page_22, page_23 },
	.fail = fail,
};
#else
static struct library *library;
static sem_t begin, done;
static void *last;
static int by_pages, at, own;

static void load(const char *program)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s.so", program);
	void *loaded = dlopen(path, RTLD_NOW | RTLD_LOCAL);

	library = loaded ? dlsym(loaded, "library") : NULL;
	if (!library)
		abort();
}

static void keep_by(int page)
{
	last = library->pages[page % PAGES]();
	if (!last)
		abort();
	by_pages++;
}

static void *fail_on_command(void *unused)
{
	while (1) {
		while (sem_wait(&begin))
			;
		library->fail(last);
		sem_post(&done);
	}
	return unused;
}

static void say(void)
{
	char line[200];
	int length = snprintf(line, sizeof(line),
			      "{\"pair_ns\":0,\"calls\":%d,\"keep_own\":[%d,%d],\"pages\":[%d,%d]}\n", 2 * own + by_pages,
			      own * SIZE, own, by_pages * SIZE, by_pages);

	if (write(1, line, length) != length)
		abort();
}

int main(int argc, char **argv)
{
	pthread_t thread;
	char command;

	(void)argc;
	if (pthread_create(&thread, NULL, fail_on_command, NULL))
		abort();
	say();
	while (read(0, &command, 1) == 1) {
		switch (command) {
		case 'l':
			load(argv[0]);
			break;
		case 'b':
			library->keep();
			own += 100;
			break;
		/* From new code, and from the same. */
		case 'n':
			keep_by(at++);
			break;
		case 'a':
			keep_by(at - 1);
			break;
		case 'r':
			sem_post(&begin);
			while (sem_wait(&library->is_in))
				;
			break;
		case 'w':
			sem_post(&library->may_go_on);
			while (sem_wait(&done))
				;
			break;
		default:
			continue;
		}
		say();
	}
	return 0;
}
#endif
