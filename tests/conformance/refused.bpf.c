/* A program that every verifier refuses: it reads far behind its context. */
__attribute__((section("socket"), used)) int refused(void *context)
{
	return *(volatile int *)((char *)context + 4096);
}
