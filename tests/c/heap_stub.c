/*
 * heap_stub.c - the manifest's heap limit, in a fuzzer: a larger block is refused, as
 * the port would. Linked with --wrap=malloc and --wrap=calloc, so it also serves the
 * fuzzer's own runtime, which asks for less.
 */
#include <stddef.h>
#include <stdint.h>

#include "heap_stub.h"

#define HEAP_BYTES ((size_t)11 << 20)

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);

uint32_t heap_left;

static int refused(size_t size) {
    return size > HEAP_BYTES || (heap_left != 0 && --heap_left == 0);
}

void *__wrap_malloc(size_t size) {
    return refused(size) ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size) {
    if (size != 0 && count > SIZE_MAX / size)
        return NULL;
    return refused(count * size) ? NULL : __real_calloc(count, size);
}
