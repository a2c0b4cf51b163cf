/* Glibc's checked functions, which a library that was built for it calls and musl does not have. */
typedef __builtin_va_list va_list;

extern int vfprintf(void *file, const char *format, va_list arguments);
extern int vsnprintf(char *to, unsigned long size, const char *format, va_list arguments);

int __vfprintf_chk(void *file, int flag, const char *format, va_list arguments)
{
	return vfprintf(file, format, arguments);
}

int __fprintf_chk(void *file, int flag, const char *format, ...)
{
	va_list arguments;
	int written;

	__builtin_va_start(arguments, format);
	written = vfprintf(file, format, arguments);
	__builtin_va_end(arguments);
	return written;
}

int __vsnprintf_chk(char *to, unsigned long size, int flag, unsigned long room, const char *format, va_list arguments)
{
	return vsnprintf(to, size, format, arguments);
}
