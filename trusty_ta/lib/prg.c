#include "prg.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "crypto.h"
#include "port.h"

struct prg {
    uint8_t key[32];
    uint8_t chosen[32]; /* what the stream's seed was derived from */
    struct crypto_stream *stream;
};

struct prg *prg_new(void) {
    struct prg *p = calloc(1, sizeof(*p));

    if (p == NULL)
        return NULL;
    p->stream = crypto_stream_new();
    if (p->stream == NULL || port_random(p->key, sizeof(p->key)) != 0) {
        prg_free(p);
        return NULL;
    }
    return p;
}

void prg_free(struct prg *p) {
    if (p == NULL)
        return;
    crypto_stream_free(p->stream);
    crypto_wipe(p, sizeof(*p));
    free(p);
}

int prg_select(struct prg *p, enum prg_label label, uint64_t load, uint64_t invocation,
               uint32_t product) {
    uint8_t what[32] = {'m', 'a', 's', 'k'}, seed[32];
    int rc;

    store_le32(what + 4, (uint32_t)label);
    store_le64(what + 8, load);
    store_le64(what + 16, invocation);
    store_le32(what + 24, product);
    if (memcmp(what, p->chosen, sizeof(what)) == 0)
        return 0;
    memset(p->chosen, 0, sizeof(p->chosen));
    rc = crypto_hmac_sha256(p->key, sizeof(p->key), what, sizeof(what), seed);
    if (rc == 0)
        rc = crypto_stream_key(p->stream, seed);
    if (rc == 0)
        memcpy(p->chosen, what, sizeof(what));
    crypto_wipe(seed, sizeof(seed));
    return rc;
}

int prg_words(struct prg *p, uint64_t first, uint32_t *out, size_t count) {
    return crypto_stream_fill(p->stream, first * 4, (uint8_t *)out, count * 4);
}
