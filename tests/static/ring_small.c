/*
 * OPENSSL_SMALL has ring's C code without the tables and variants that are faster, as ring itself has it where it knows no assembler of the
 * machine. On x86_64 and aarch64 Rust calls two of the variants by name: the general functions, whose results are the same, serve as these.
 */
#define JOINED(prefix, name) prefix##name
#define NAME(prefix, name) JOINED(prefix, name)

extern void NAME(RING, p256_point_mul_base)(unsigned long *point, const unsigned long *scalar);
extern void NAME(RING, x25519_scalar_mult_generic_masked)(unsigned char *out, const unsigned char *scalar, const unsigned char *point);

/* Which may take longer for some numbers than for others. */
void NAME(RING, p256_point_mul_base_vartime)(unsigned long *point, const unsigned long *scalar)
{
	NAME(RING, p256_point_mul_base)(point, scalar);
}

/* Which has x86_64's instructions for long sums. */
void NAME(RING, x25519_scalar_mult_adx)(unsigned char *out, const unsigned char *scalar, const unsigned char *point)
{
	NAME(RING, x25519_scalar_mult_generic_masked)(out, scalar, point);
}
