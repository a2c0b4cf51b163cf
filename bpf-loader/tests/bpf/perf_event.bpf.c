/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A program at the overflow of a perf event. */
#include "one_thread.h"

SEC("perf_event")
int on_overflow(void *ctx)
{
	count();
	return 0;
}
