/*
 * heap.c - the manifest's min_heap, enforced. The linker's --wrap sends every
 * allocation of the application here. Block headers count; libcrypto's own blocks
 * do not pass here, but BoringSSL takes its few kilobytes (cipher and digest
 * contexts, one Ed25519 check) from the same heap on Trusty: the limit leaves
 * some 100 KB above the full-size network's peak for them. In the key application they
 * are 12 KB for two RSA keys and 19 KB while the second is drawn, of 128 KB.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"

#define ALIGN_BYTES ((size_t)16)
#define BLOCK_MAGIC 0xed9ed0b1u

/** struct block - stands right before what the application gets */
struct block {
    size_t charge_bytes; /* what the block counts for */
    uint32_t lead_bytes; /* from the C library's pointer to the application's */
    uint32_t magic;
#if UINTPTR_MAX == UINT32_MAX
    uint32_t pad;
#endif
};
_Static_assert(sizeof(struct block) == 16, "keeps the alignment of malloc");

static size_t used_bytes, peak_bytes;

void *__real_malloc(size_t size_bytes);
void __real_free(void *p);
void *__wrap_malloc(size_t size_bytes);
void *__wrap_calloc(size_t count, size_t size_bytes);
void *__wrap_realloc(void *p, size_t size_bytes);
void *__wrap_aligned_alloc(size_t align_bytes, size_t size_bytes);
void __wrap_free(void *p);

size_t heap_peak_bytes(void) {
    return peak_bytes;
}

static void *allocate(size_t align_bytes, size_t size_bytes) {
    size_t limit = host_application.heap_bytes;

    if (size_bytes > limit || align_bytes > limit)
        goto full;
    /* malloc gives 16; a stricter alignment needs room to slide within. */
    size_t charge = ((size_bytes + ALIGN_BYTES - 1) & ~(ALIGN_BYTES - 1)) + sizeof(struct block);
    if (align_bytes > ALIGN_BYTES)
        charge += align_bytes;
    else
        align_bytes = ALIGN_BYTES;
    if (charge > limit - used_bytes)
        goto full;

    uint8_t *start = __real_malloc(charge);
    if (start == NULL)
        goto full;
    uint8_t *p = start + sizeof(struct block);
    p += (0 - (uintptr_t)p) & (align_bytes - 1);
    struct block *b = (struct block *)(void *)p - 1;
    *b = (struct block){
        .charge_bytes = charge,
        .lead_bytes = (uint32_t)(p - start),
        .magic = BLOCK_MAGIC,
    };
    used_bytes += charge;
    if (used_bytes > peak_bytes)
        peak_bytes = used_bytes;
    return p;

full:
    errno = ENOMEM;
    return NULL;
}

static struct block *block_of(void *p) {
    struct block *b = (struct block *)p - 1;
    if (b->magic != BLOCK_MAGIC) {
        host_log("heap: freed twice, overrun, or not allocated here", NULL);
        abort();
    }
    return b;
}

void *__wrap_malloc(size_t size_bytes) {
    return allocate(ALIGN_BYTES, size_bytes);
}

void *__wrap_calloc(size_t count, size_t size_bytes) {
    if (size_bytes != 0 && count > SIZE_MAX / size_bytes) {
        errno = ENOMEM;
        return NULL;
    }
    void *p = allocate(ALIGN_BYTES, count * size_bytes);
    if (p != NULL)
        memset(p, 0, count * size_bytes);
    return p;
}

void *__wrap_aligned_alloc(size_t align_bytes, size_t size_bytes) {
    if (align_bytes == 0 || (align_bytes & (align_bytes - 1)) != 0) {
        errno = EINVAL;
        return NULL;
    }
    return allocate(align_bytes, size_bytes);
}

/* Always moves: on hardware, too, both blocks may exist for a moment. */
void *__wrap_realloc(void *p, size_t size_bytes) {
    if (p == NULL)
        return allocate(ALIGN_BYTES, size_bytes);
    struct block *b = block_of(p);
    void *moved = allocate(ALIGN_BYTES, size_bytes);
    if (moved == NULL)
        return NULL;
    size_t room = b->charge_bytes - b->lead_bytes;
    memcpy(moved, p, room < size_bytes ? room : size_bytes);
    __wrap_free(p);
    return moved;
}

void __wrap_free(void *p) {
    if (p == NULL)
        return;
    struct block *b = block_of(p);
    used_bytes -= b->charge_bytes;
    b->magic = 0;
    __real_free((uint8_t *)p - b->lead_bytes);
}
