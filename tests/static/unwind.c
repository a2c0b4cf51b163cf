/* A libunwind.a for programs that abort at a panic: every walk ends at once. The standard library refers to these. */
typedef unsigned long word;

#define RETURNS(name, value) word name(void) { return value; }

/* _URC_END_OF_STACK */
RETURNS(_Unwind_Backtrace, 5)
/* _URC_FAILURE */
RETURNS(_Unwind_RaiseException, 9)
RETURNS(__aeabi_unwind_cpp_pr0, 9)
RETURNS(__aeabi_unwind_cpp_pr1, 9)
RETURNS(_Unwind_DeleteException, 0)
RETURNS(_Unwind_FindEnclosingFunction, 0)
RETURNS(_Unwind_GetCFA, 0)
RETURNS(_Unwind_GetGR, 0)
RETURNS(_Unwind_GetIP, 0)
RETURNS(_Unwind_GetLanguageSpecificData, 0)
RETURNS(_Unwind_GetRegionStart, 0)
RETURNS(_Unwind_GetTextRelBase, 0)
RETURNS(_Unwind_GetDataRelBase, 0)
RETURNS(_Unwind_SetGR, 0)
RETURNS(_Unwind_SetIP, 0)
/* _UVRSR_NOT_IMPLEMENTED */
RETURNS(_Unwind_VRS_Get, 1)
RETURNS(_Unwind_VRS_Set, 1)

word _Unwind_GetIPInfo(void *context, int *before_instruction)
{
	*before_instruction = 0;
	return 0;
}

void _Unwind_Resume(void *exception)
{
	__builtin_trap();
}
