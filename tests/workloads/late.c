/*
 * late: allocates in code that it loads on command.
 *
 * Commands and answers are those of leak.c. Compiled with -DLATE it is what is loaded: a library beside the program, with `.so`
 * behind its name.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define OWN __attribute__((noipa))
#define ROUNDS 100
#define EACH 200
#define SIZE 64

#ifdef LATE
/* Several calls deep. */
OWN void *below(int depth)
{
	volatile char room[24 + 8 * (depth & 3)];
	void *address;

	room[0] = depth;
	address = depth ? below(depth - 1) : malloc(SIZE);
	return room[0] == depth ? address : NULL;
}

OWN void keep_late(void **kept)
{
	for (int i = 0; i < EACH; i++) {
		kept[i] = below(12);
		if (!kept[i])
			abort();
	}
}
#else
static void *kept[ROUNDS][EACH];
static int rounds;

static void late(const char *program)
{
	static void (*keep_late)(void **);
	char path[4096];

	if (!keep_late) {
		snprintf(path, sizeof(path), "%s.so", program);
		void *library = dlopen(path, RTLD_NOW);

		keep_late = library ? (void (*)(void **))dlsym(library, "keep_late") : NULL;
		if (!keep_late)
			abort();
	}
	for (rounds = 0; rounds < ROUNDS; rounds++) {
		keep_late(kept[rounds]);
		/* Whoever looks on may read what this was: of the first, all is new to them, and few find room at once. */
		usleep(rounds < 2 ? 200000 : 1000);
	}
}

static void say(void)
{
	char line[200];
	int count = rounds * EACH;
	int length = snprintf(line, sizeof(line), "{\"pair_ns\":0,\"calls\":0,\"keep_late\":[%d,%d]}\n", count * SIZE, count);

	if (write(1, line, length) != length)
		abort();
}

int main(int argc, char **argv)
{
	char command;

	(void)argc;
	say();
	while (read(0, &command, 1) == 1) {
		if (command == 'd') {
			late(argv[0]);
		} else if (command == 'f') {
			while (rounds--)
				for (int i = 0; i < EACH; i++)
					free(kept[rounds][i]);
			rounds = 0;
		}
		say();
	}
	return 0;
}
#endif
