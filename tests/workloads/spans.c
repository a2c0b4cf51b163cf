/*
 * spans: a thread works for spans that it publishes as OpenTelemetry's thread context says (OTEP 4947), and knows for how long it has worked for
 * each. It begins at a line of input, begins to measure at the next one, and ends at a third, or with the input.
 *
 * The variable is in this program (VARIABLE and PROGRAM), in a library that it is linked with (either of them), or in one that it loads (its
 * argument).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#ifdef VARIABLE
__attribute__((visibility("default"))) __thread const void *volatile otel_thread_ctx_v1;

__attribute__((visibility("default"))) void publish(const void *record)
{
	otel_thread_ctx_v1 = record;
}
#else
void publish(const void *record) __attribute__((weak));
#endif

#ifdef PROGRAM
struct record {
	uint8_t trace[16];
	uint8_t span[8];
	uint8_t valid;
	uint8_t flags;
	uint16_t attributes;
} __attribute__((packed, aligned(2)));

/* Of which the second is not valid. */
static const struct record records[3] = {
	{ .trace = { 0xa1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 }, .span = { 0xb1, 1, 1, 1, 1, 1, 1, 2 }, .valid = 1 },
	{ .trace = { 0xa2 }, .span = { 0xb2 }, .valid = 2 },
	{ .trace = { 0xa3, [15] = 7 }, .span = { 0xb3, [7] = 9 }, .valid = 1, .flags = 1 },
};
static volatile uint64_t sink;
static volatile int measured, ended;
static double taken[4];

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static void work(void (*publish)(const void *), int span, double seconds)
{
	double start = now(), end;

	publish(span < 3 ? &records[span] : NULL);
	do {
		for (int i = 0; i < 20000; i++)
			sink += i;
		end = now();
	} while (end < start + seconds);
	if (measured)
		taken[span] += end - start;
}

static void *thread(void *publish)
{
	while (!ended) {
		work((void (*)(const void *))publish, 0, 0.05);
		work((void (*)(const void *))publish, 1, 0.01);
		work((void (*)(const void *))publish, 2, 0.02);
		work((void (*)(const void *))publish, 3, 0.02);
	}
	return NULL;
}

static size_t text(uint8_t *to, int field, const char *text)
{
	size_t length = strlen(text);

	to[0] = field << 3 | 2;
	to[1] = length;
	memcpy(to + 2, text, length);
	return length + 2;
}

/* OTEP 4719, with a Resource of one attribute. */
static void publish_process(void)
{
	struct {
		char signature[8];
		uint32_t version;
		uint32_t size;
		uint64_t time;
		const uint8_t *payload;
		uint8_t bytes[128];
	} *context;
	uint8_t *pair, *value;
	int memory = memfd_create("OTEL_CTX", MFD_CLOEXEC);

	if (memory < 0 || ftruncate(memory, 4096))
		abort();
	context = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
	close(memory);
	if (context == MAP_FAILED)
		abort();
	pair = context->bytes + 2;
	value = pair + text(pair, 1, "threadlocal.schema_version");
	value[0] = 2 << 3 | 2;
	value[1] = text(value + 2, 1, "tlsdesc_v1_dev");
	context->bytes[0] = 1 << 3 | 2;
	context->bytes[1] = value + 2 + value[1] - pair;
	context->size = 2 + context->bytes[1];
	context->payload = context->bytes;
	context->version = 2;
	context->time = 1;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	memcpy(context->signature, "OTEL_CTX", 8);
}

int main(int argc, char **argv)
{
	void (*publishes)(const void *) = publish;
	pthread_t worker;
	char line[16];

#ifdef VARIABLE
	(void)argv;
#else
	if (argc > 1) {
		void *library = dlopen(argv[1], RTLD_NOW);

		publishes = library ? (void (*)(const void *))dlsym(library, "publish") : NULL;
	}
#endif
	if (!publishes) {
		fprintf(stderr, "nothing publishes (%d arguments)\n", argc);
		return 1;
	}
	publish_process();
	puts("ready");
	fflush(stdout);
	if (!fgets(line, sizeof(line), stdin) || pthread_create(&worker, NULL, thread, (void *)publishes))
		return 1;
	measured = !!fgets(line, sizeof(line), stdin);
	if (measured)
		(void)!fgets(line, sizeof(line), stdin);
	ended = 1;
	pthread_join(worker, NULL);
	for (int span = 0; span < 4; span++)
		printf("%f\n", taken[span]);
	return 0;
}
#endif
