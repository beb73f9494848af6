/*
 * stack.c - the manifest's min_stack, enforced and measured: the application runs
 * on a stack of exactly that size, painted, above a page that nobody may touch.
 *
 * Not in sanitizer builds, whose frames are several times larger: they run on the
 * process's own stack, and the peak is reported as 0 (not measured).
 */
#include "host.h"

#include <string.h>

#include <sys/mman.h>
#include <ucontext.h>

#include <uapi/err.h>

static int result;
static int (*application)(void);

#ifdef EDGED_SANITIZE

int stack_run(int (*entry)(void)) {
    application = entry;
    result = application();
    return result;
}

size_t stack_peak_bytes(void) {
    return 0;
}

#else

#define GUARD_BYTES ((size_t)65536) /* a page of every Linux that we know */
#define PAINT 0xa5

static uint8_t *stack_base;
static ucontext_t outside, inside;

static void trampoline(void) {
    result = application();
}

int stack_run(int (*entry)(void)) {
    size_t size = host_application.stack_bytes;

    application = entry;
    uint8_t *base = mmap(NULL, GUARD_BYTES + size, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED || mprotect(base + GUARD_BYTES, size, PROT_READ | PROT_WRITE) != 0)
        return ERR_NO_MEMORY;
    stack_base = base + GUARD_BYTES;
    memset(stack_base, PAINT, size);

    if (getcontext(&inside) != 0)
        return ERR_GENERIC;
    inside.uc_stack.ss_sp = stack_base;
    inside.uc_stack.ss_size = size;
    inside.uc_link = &outside;
    makecontext(&inside, trampoline, 0);
    if (swapcontext(&outside, &inside) != 0)
        return ERR_GENERIC;
    return result;
}

/* The stack grows down: what is still painted at its low end was never used. */
size_t stack_peak_bytes(void) {
    size_t clean = 0;

    if (stack_base == NULL)
        return 0;
    while (clean < host_application.stack_bytes && stack_base[clean] == PAINT)
        clean++;
    return host_application.stack_bytes - clean;
}

#endif
