/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Loopback connections, one after the other, between two processes: connect, a byte there and a byte back, close.
 *
 *     connect CONNECTIONS CALLS
 *
 * Prints microseconds a connection by the clock, by both processes' CPU time, and nanoseconds of CPU time a getppid.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void check(int ok, const char *what)
{
	if (!ok) {
		perror(what);
		exit(1);
	}
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

static double cpu_seconds(int who)
{
	struct rusage usage;

	getrusage(who, &usage);
	return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void serve(int listener, long connections)
{
	char byte;

	for (long i = 0; i < connections; i++) {
		int fd = accept(listener, NULL, NULL);

		check(fd >= 0, "accept");
		check(read(fd, &byte, 1) == 1, "read");
		check(write(fd, &byte, 1) == 1, "write");
		check(read(fd, &byte, 1) == 0, "the end");
		close(fd);
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(address);
	long connections = argc > 1 ? atol(argv[1]) : 10000, calls = argc > 2 ? atol(argv[2]) : 1000000;
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	double start, wall, cpu, call;
	char byte = 'x';
	pid_t server;

	check(listener >= 0, "socket");
	check(!bind(listener, (void *)&address, length) && !listen(listener, 128), "listen");
	check(!getsockname(listener, (void *)&address, &length), "getsockname");
	server = fork();
	check(server >= 0, "fork");
	if (!server) {
		serve(listener, connections);
		_exit(0);
	}
	start = seconds();
	cpu = cpu_seconds(RUSAGE_SELF);
	for (long i = 0; i < connections; i++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);

		check(fd >= 0, "socket");
		check(!connect(fd, (void *)&address, sizeof(address)), "connect");
		check(write(fd, &byte, 1) == 1, "write");
		check(read(fd, &byte, 1) == 1, "read");
		close(fd);
	}
	wall = (seconds() - start) / connections;
	waitpid(server, NULL, 0);
	cpu = (cpu_seconds(RUSAGE_SELF) - cpu + cpu_seconds(RUSAGE_CHILDREN)) / connections;
	call = cpu_seconds(RUSAGE_SELF);
	for (long i = 0; i < calls; i++)
		syscall(SYS_getppid);
	call = (cpu_seconds(RUSAGE_SELF) - call) / calls;
	printf("%.3f %.3f %.1f\n", wall * 1e6, cpu * 1e6, call * 1e9);
	return 0;
}
