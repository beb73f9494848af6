/*
 * prg_vector.c - lib/prg.h where there is no crypto library (qemu), or where the
 * masks must be known (NumPy) or undefined (valgrind): word i of a stream is
 *
 *   pool[(base + i) mod words],  base = label 7919 + load 104729 + invocation 1299709 + product 15485863
 *
 * The pool comes from the vector file and holds runs of 2^32 - 1, so that
 * Freivalds' s meets the one value that must be drawn again.
 */
#include "prg.h"

#include "crypto.h"
#include "vector.h"

#ifdef EDGED_CT_CHECK
#include <valgrind/memcheck.h>
#endif

struct prg {
    const uint32_t *pool;
    size_t words;
    uint64_t base;
};

struct prg *prg_new(void) {
    struct prg *p = calloc(1, sizeof(*p));
    size_t size;

    CHECK(p != NULL, "prg");
    p->pool = vector_get("pool", &size);
    p->words = size / sizeof(*p->pool);
    return p;
}

void prg_free(struct prg *p) {
    free(p);
}

int prg_select(struct prg *p, enum prg_label label, uint64_t load, uint64_t invocation, uint32_t product) {
    p->base = (uint64_t)label * 7919 + load * 104729 + invocation * 1299709 + (uint64_t)product * 15485863;
    return 0;
}

int prg_words(struct prg *p, uint64_t first, uint32_t *out, size_t count) {
    for (size_t i = 0; i < count; i++)
        out[i] = p->pool[(p->base + first + i) % p->words];
#ifdef EDGED_CT_CHECK
    VALGRIND_MAKE_MEM_UNDEFINED(out, count * sizeof(*out));
#endif
    return 0;
}

/* All that the network asks of lib/crypto.h. */
void crypto_wipe(void *p, size_t size_bytes) {
    volatile uint8_t *at = p;
    while (size_bytes-- != 0)
        *at++ = 0;
}
