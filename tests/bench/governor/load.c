/* Load for the governor: system calls or connections on loopback, as fast as they go, for a while. Prints a line a second: how
 * many there were.
 *
 *     load calls|connections SECONDS */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void check(int result, const char *what)
{
	if (result < 0) {
		perror(what);
		exit(1);
	}
}

static struct sockaddr_in address = { .sin_family = AF_INET };

/* Takes a byte from each connection, returns it, and closes after the other side. */
static void serve(int listener)
{
	char byte;

	for (;;) {
		int fd = accept(listener, 0, 0);

		while (read(fd, &byte, 1) == 1)
			(void)!write(fd, &byte, 1);
		close(fd);
	}
}

static void one_connection(void)
{
	struct linger at_once = { 1, 0 };
	char byte = 'x';
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	check(connect(fd, (struct sockaddr *)&address, sizeof(address)), "connect");
	check(write(fd, &byte, 1), "write");
	check(read(fd, &byte, 1), "read");
	/* With a reset, so that ports do not run out. */
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	close(fd);
}

int main(int argc, char **argv)
{
	int calls = argc == 3 && !strcmp(argv[1], "calls"), seconds = argc == 3 ? atoi(argv[2]) : 0;
	double start, end;

	if (!calls) {
		socklen_t size = sizeof(address);
		int listener = socket(AF_INET, SOCK_STREAM, 0);

		address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		check(bind(listener, (struct sockaddr *)&address, sizeof(address)), "bind");
		check(listen(listener, 128), "listen");
		check(getsockname(listener, (struct sockaddr *)&address, &size), "getsockname");
		if (!fork()) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			serve(listener);
		}
	}
	start = now();
	for (int second = 1; second <= seconds; second++) {
		long count = 0;

		do {
			if (calls) {
				for (int i = 0; i < 1000; i++)
					syscall(SYS_getppid);
				count += 1000;
			} else {
				one_connection();
				count++;
			}
			end = now();
		} while (end < start + second);
		printf("%ld\n", count);
		fflush(stdout);
	}
}
