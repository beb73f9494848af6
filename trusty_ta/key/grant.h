/*
 * grant.h - a key on its way from one party to one slot of this device. edged_wire.h has its form.
 */
#ifndef EDGED_GRANT_H
#define EDGED_GRANT_H

#include <stddef.h>
#include <stdint.h>

#include "edged_wire.h"
#include "identity.h"
#include "state.h"

/** struct grant - one that was read; the pointers are into its bytes */
struct grant {
    uint32_t kind;
    uint32_t slot;
    uint32_t number;
    uint8_t device[32];
    uint8_t key_id[16];
    uint8_t verifier[32];
    uint8_t agreement[32];
    const uint8_t *header;
    size_t header_bytes;
    const uint8_t *wrapped; /* CRYPTO_RSA_BYTES */
};

/* OK once its form is right and its signature holds; else GRANT. Nothing secret is touched. */
enum edged_status grant_read(struct grant *g, const uint8_t *bytes, size_t size_bytes);

/* May it fill its slot, after what was taken? Then its number counts. KEY, REPLAY or FULL. */
enum edged_status grant_count(const struct grant *g, struct granted *draft);

/* Unwrap the key. GRANT, whatever is wrong: out is then all 0. */
enum edged_status grant_open(const struct grant *g, const struct identity *i, struct slot *out);

#endif
