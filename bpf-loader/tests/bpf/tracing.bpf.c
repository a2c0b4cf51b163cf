/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Programs that the kernel's functions and security hooks call. Tests put what the machine calls it for `syscall_dup`. */
#include "one_thread.h"

SEC("fentry/syscall_dup")
int on_fentry(void *ctx)
{
	count();
	return 0;
}

SEC("fexit/syscall_dup")
int on_fexit(void *ctx)
{
	count();
	return 0;
}

SEC("fentry.s/syscall_dup")
int on_fentry_sleepable(void *ctx)
{
	count();
	return 0;
}

/* Every function of that name, or none: which is said when attaching. */
SEC("fentry.multi/syscall_dup")
int on_many_functions(void *ctx)
{
	count();
	return 0;
}

SEC("fentry/syscall_dup")
int on_fentry_cookie(void *ctx)
{
	return count_with_cookie(ctx);
}

/* Other than 0 goes in the place of the function: EPERM. */
SEC("fmod_ret/security_file_open")
int on_fmod_ret(void *ctx)
{
	return count() ? -1 : 0;
}

SEC("lsm/file_open")
int on_lsm(__u64 *ctx)
{
	count();
	return 0;
}

SEC("lsm.s/file_open")
int on_lsm_sleepable(__u64 *ctx)
{
	count();
	return 0;
}

SEC("lsm_cgroup/socket_bind")
int on_lsm_cgroup(__u64 *ctx)
{
	count();
	return 1;
}

SEC("fexit.s/syscall_dup")
int on_fexit_sleepable(void *ctx)
{
	count();
	return 0;
}

SEC("fmod_ret.s/syscall_dup")
long on_fmod_ret_sleepable(void *ctx)
{
	return count() ? -1 : 0;
}

/* Once when the function is called, and once when it returns. */
SEC("fsession/syscall_dup")
int on_fsession(void *ctx)
{
	count();
	return 0;
}

SEC("fsession.s/syscall_dup")
int on_fsession_sleepable(void *ctx)
{
	count();
	return 0;
}

/* What test runs of programs of this kind call: it may sleep where no system call may. */
SEC("fentry/bpf_fentry_test1")
int on_test(void *ctx)
{
	return 0;
}

SEC("fentry.s/bpf_fentry_test1")
int on_test_fentry_sleepable(void *ctx)
{
	count();
	return 0;
}

SEC("fexit.s/bpf_fentry_test1")
int on_test_fexit_sleepable(void *ctx)
{
	count();
	return 0;
}

SEC("fmod_ret.s/bpf_fentry_test1")
int on_test_fmod_ret_sleepable(void *ctx)
{
	count();
	return 0;
}
