#include "cose.h"

#include <stdlib.h>
#include <string.h>

#include "crypto.h"

/* { 1 (alg): -8 (EdDSA) } */
static const uint8_t PROTECTED[] = {0xa1, 0x01, 0x27};

bool cose_holds(const uint8_t verifier[32], const char *structure, const char *context,
                const uint8_t *payload, size_t size_bytes, const uint8_t signature[64]) {
    const bool several = strcmp(structure, "Signature") == 0;
    const size_t capacity = size_bytes + 96; /* heads and the three short strings */
    struct cbor_writer w = {.data = malloc(capacity), .size = capacity};
    bool holds = false;

    if (w.data == NULL)
        return false;
    cbor_write_head(&w, 4, several ? 5 : 4);
    cbor_write_text(&w, structure);
    if (several)
        cbor_write_bytes(&w, PROTECTED, 0); /* of the body: empty */
    cbor_write_bytes(&w, PROTECTED, sizeof(PROTECTED));
    cbor_write_bytes(&w, (const uint8_t *)context, strlen(context));
    cbor_write_bytes(&w, payload, size_bytes);
    if (!w.failed)
        holds = crypto_ed25519_verify(verifier, w.data, w.at, signature) == 0;
    free(w.data);
    return holds;
}

bool cose_read_sign1(struct cose_sign1 *m, const uint8_t *bytes, size_t size_bytes, size_t most) {
    static const uint8_t sign1[] = {0xd2, 0x84};
    struct cbor_reader r = {.data = bytes, .size = size_bytes};
    size_t n;

    cbor_expect(&r, sign1, sizeof(sign1));
    cose_expect_headers(&r);
    m->payload = cbor_read_bytes(&r, 1, most, &m->payload_bytes);
    m->signature = cbor_read_bytes(&r, 64, 64, &n);
    return cbor_done(&r);
}

void cose_expect_headers(struct cbor_reader *r) {
    static const uint8_t headers[] = {0x43, 0xa1, 0x01, 0x27, 0xa0};

    cbor_expect(r, headers, sizeof(headers));
}
