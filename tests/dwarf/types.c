// What debug information and BTF say about types, every kind of them. Structures with names that begin with `plain` have
// the same layout on every machine.

#define KEEP __attribute__((used))

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int s32;

enum plain_state { PLAIN_OFF, PLAIN_ON = 5, PLAIN_MANY = 0x80000000 };
enum plain_signed { PLAIN_MINUS = -3, PLAIN_PLUS = 3 };
enum plain_wide { PLAIN_HUGE = 0x123456789abcdefULL, PLAIN_ONE = 1 };
enum __attribute__((packed)) plain_narrow { PLAIN_SMALL = 200 };

struct plain_point {
	s32 x, y;
};

struct plain_bits {
	u32 a : 3, b : 29;
	u8 c;
	u64 d : 40 __attribute__((aligned(8)));
	s32 e : 5;
	enum plain_state f : 4;
	_Bool g : 1;
};

struct plain {
	struct plain_point corners[4];
	u16 table[2][3];
	union {
		u32 word;
		u8 bytes[4];
	};
	struct {
		float f;
		double d __attribute__((aligned(8)));
	} numbers;
	enum plain_state state;
	enum plain_signed sign;
	enum plain_wide wide __attribute__((aligned(8)));
	enum plain_narrow narrow;
	volatile u32 busy;
	const s32 fixed;
	struct plain_bits bits __attribute__((aligned(8)));
	u8 rest[];
};

struct nowhere;
struct list {
	struct list *next, **previous;
};

typedef int (*callback)(const struct plain *, struct nowhere *, ...);

struct pointers {
	struct list list;
	struct nowhere *nowhere;
	const char *restrict text;
	callback call;
	void *(*allocate)(unsigned long size);
	union plain_choice *choice;
	enum plain_state *state;
	struct {
		struct pointers *owner;
		long count;
	} inner[2];
};

union plain_choice {
	u64 number;
	struct plain_point point;
};

KEEP struct plain plain;
KEEP struct pointers pointers;
KEEP union plain_choice choice;
