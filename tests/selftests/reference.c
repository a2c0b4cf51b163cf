/*
 * reference OBJECT: loads an object with libbpf, first whole, then each program alone, and prints a line for each result:
 *   object ERRNO
 *   map NAME TYPE
 *   program NAME SECTION ERRNO
 * A program is loaded with the maps that the object declares, as `ebpf-otlp load --per-program` does. Nothing is pinned.
 */
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static int quiet(enum libbpf_print_level level, const char *format, va_list args)
{
	return level == LIBBPF_WARN ? vfprintf(stderr, format, args) : 0;
}

static struct bpf_object *open_unpinned(const char *path)
{
	struct bpf_object *object = bpf_object__open_file(path, NULL);
	struct bpf_map *map;

	if (object)
		bpf_object__for_each_map(map, object)
			bpf_map__set_pin_path(map, NULL);
	return object;
}

static int load_one(const char *path, const char *name)
{
	struct bpf_object *object = open_unpinned(path);
	struct bpf_program *program;
	int error;

	if (!object)
		return errno;
	bpf_object__for_each_program(program, object)
		bpf_program__set_autoload(program, !strcmp(bpf_program__name(program), name));
	error = -bpf_object__load(object);
	bpf_object__close(object);
	return error;
}

int main(int argc, char **argv)
{
	struct bpf_object *object;
	struct bpf_program *program;
	struct bpf_map *map;

	if (argc != 2)
		return 2;
	libbpf_set_print(quiet);
	object = open_unpinned(argv[1]);
	if (!object) {
		printf("object %d\n", errno);
		return 0;
	}
	printf("object %d\n", -bpf_object__load(object));
	bpf_object__for_each_map(map, object)
		printf("map %s %s\n", bpf_map__name(map), libbpf_bpf_map_type_str(bpf_map__type(map)));
	bpf_object__for_each_program(program, object)
		printf("program %s %s %d\n", bpf_program__name(program), bpf_program__section_name(program),
		       load_one(argv[1], bpf_program__name(program)));
	bpf_object__close(object);
	return 0;
}
