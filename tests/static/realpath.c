/* The kernel tells what a path leads to. Musl's own function follows it part by part, to do without /proc: 1 KB more. */
extern int open(const char *path, int flags, ...);
extern long readlink(const char *path, char *to, unsigned long size);
extern int close(int file);
extern char *strcpy(char *to, const char *from);
extern char *strdup(const char *text);

char *realpath(const char *path, char *to)
{
	char link[] = "/proc/self/fd/..........", found[4096];
	char *end = link + sizeof "/proc/self/fd/" - 1;
	/* O_PATH | O_CLOEXEC */
	int file = open(path, 012000000), power = 1;
	long size;

	if (file < 0)
		return 0;
	while (file / power >= 10)
		power *= 10;
	for (; power; power /= 10)
		*end++ = '0' + file / power % 10;
	*end = 0;
	size = readlink(link, found, sizeof found - 1);
	close(file);
	if (size < 0)
		return 0;
	found[size] = 0;
	return to ? strcpy(to, found) : strdup(found);
}
