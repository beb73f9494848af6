#include "grant.h"

#include <stdbool.h>
#include <string.h>

#include "bytes.h"
#include "cbor.h"
#include "cose.h"

static const char FORM[] = "edged grant 1";

#define HEADER_MAX 256u /* the longest has 225 bytes */
#define PAYLOAD_MAX (1u + 3u + HEADER_MAX + 3u + CRYPTO_RSA_BYTES)

/* Of a party or an agreement all 0 is nobody's: a point of small order, the mark of a slot put in clear. */
static void read_name(struct cbor_reader *r, uint8_t out[32]) {
    cbor_read_fixed(r, out, 32);
    if (is_zero(out, 32))
        r->failed = true;
}

static bool read_header(struct grant *g) {
    struct cbor_reader r = {.data = g->header, .size = g->header_bytes};

    cbor_expect_map(&r, 8);
    cbor_expect_text(&r, "form");
    cbor_expect_text(&r, FORM);
    cbor_expect_text(&r, "kind");
    g->kind = (uint32_t)cbor_read_uint(&r, KEY_ALERT);
    cbor_expect_text(&r, "slot");
    g->slot = (uint32_t)cbor_read_uint(&r, KEY_SLOTS - 1);
    cbor_expect_text(&r, "device");
    cbor_read_fixed(&r, g->device, sizeof(g->device));
    cbor_expect_text(&r, "key_id");
    cbor_read_fixed(&r, g->key_id, sizeof(g->key_id));
    cbor_expect_text(&r, "number");
    g->number = (uint32_t)cbor_read_uint(&r, UINT32_MAX);
    cbor_expect_text(&r, "verifier");
    read_name(&r, g->verifier);
    cbor_expect_text(&r, "agreement");
    read_name(&r, g->agreement);
    return cbor_done(&r) && g->kind != KEY_EMPTY && g->number != 0;
}

enum edged_status grant_read(struct grant *g, const uint8_t *bytes, size_t size_bytes) {
    struct cose_sign1 m;
    size_t n;

    memset(g, 0, sizeof(*g));
    if (!cose_read_sign1(&m, bytes, size_bytes, PAYLOAD_MAX))
        return EDGED_ERR_GRANT;
    struct cbor_reader p = {.data = m.payload, .size = m.payload_bytes};
    (void)cbor_read_array(&p, 2, 2);
    g->header = cbor_read_bytes(&p, 1, HEADER_MAX, &g->header_bytes);
    g->wrapped = cbor_read_bytes(&p, CRYPTO_RSA_BYTES, CRYPTO_RSA_BYTES, &n);
    if (!cbor_done(&p) || !read_header(g) || !cose_sign1_holds(&m, g->verifier, FORM))
        return EDGED_ERR_GRANT;
    return EDGED_OK;
}

enum edged_status grant_count(const struct grant *g, struct granted *draft) {
    const struct slot *s = &draft->slots[g->slot];

    if (s->kind != KEY_EMPTY && memcmp(s->verifier, g->verifier, sizeof(s->verifier)) != 0)
        return EDGED_ERR_KEY;
    const struct number *last = granted_number(draft, g->verifier, g->slot);
    if (last != NULL && g->number <= last->number)
        return EDGED_ERR_REPLAY;
    return granted_count(draft, g->verifier, g->slot, g->number) ? EDGED_OK : EDGED_ERR_FULL;
}

/* The label binds the key to every word of the header: under another one the same ciphertext does not open. */
enum edged_status grant_open(const struct grant *g, const struct identity *i, struct slot *out) {
    uint8_t label[32], key[CRYPTO_OAEP_MAX];
    size_t n = 0;
    enum edged_status status = EDGED_ERR_GRANT;

    memset(out, 0, sizeof(*out));
    if (crypto_sha256(g->header, g->header_bytes, label) == 0 &&
        crypto_rsa_decrypt(i->grant, label, sizeof(label), g->wrapped, key, &n) == 0 &&
        (n == 32 || (n == 16 && g->kind != KEY_MODEL))) {
        out->kind = g->kind;
        out->key_bytes = (uint32_t)n;
        memcpy(out->key_id, g->key_id, sizeof(out->key_id));
        memcpy(out->key, key, n);
        memcpy(out->verifier, g->verifier, sizeof(out->verifier));
        memcpy(out->agreement, g->agreement, sizeof(out->agreement));
        status = EDGED_OK;
    }
    crypto_wipe(key, sizeof(key));
    return status;
}
