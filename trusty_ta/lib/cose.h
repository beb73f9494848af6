/*
 * cose.h - Ed25519 signatures of COSE (RFC 9052): one signer (COSE_Sign1) or
 * several (COSE_Sign). The protected header is { alg: EdDSA } alone, the body's
 * own protected header empty.
 */
#ifndef EDGED_COSE_H
#define EDGED_COSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cbor.h"

/** struct cose_sign1 - one that was read; the pointers are into its bytes */
struct cose_sign1 {
    const uint8_t *payload;
    size_t payload_bytes;
    const uint8_t *signature; /* 64 bytes */
};

/* A tagged COSE_Sign1 and nothing else, its payload of 1 .. most bytes. Its signature is not judged yet. */
bool cose_read_sign1(struct cose_sign1 *m, const uint8_t *bytes, size_t size_bytes, size_t most);

/* structure: "Signature1" or "Signature"; context: the external data. False also where memory is short. */
bool cose_holds(const uint8_t verifier[32], const char *structure, const char *context,
                const uint8_t *payload, size_t size_bytes, const uint8_t signature[64]);

static inline bool cose_sign1_holds(const struct cose_sign1 *m, const uint8_t verifier[32], const char *context) {
    return cose_holds(verifier, "Signature1", context, m->payload, m->payload_bytes, m->signature);
}

/* h'A10127' and the empty unprotected header that stand before every payload or signature of ours. */
void cose_expect_headers(struct cbor_reader *r);

#endif
