/*
 * evidence.h - what the device says of itself, signed: to a certification authority once, to verifiers
 * ever after. edged_wire.h has both forms.
 */
#ifndef EDGED_EVIDENCE_H
#define EDGED_EVIDENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "edged_wire.h"
#include "identity.h"

#define UEID_BYTES 17u

/** struct application - one of the two, as evidence names it */
struct application {
    uint8_t measurement[32];
    uint32_t security_version;
    uint8_t uuid[16];
};

/** struct device - of whom evidence tells */
struct device {
    uint8_t ueid[UEID_BYTES];
    uint8_t bootseed[32];
    struct application key;
    struct application eval;
    bool eval_known; /* one has proved since start that it is */
};

/*
 * Both write at most `capacity` bytes. ORDER: no identity is open. UNAVAILABLE: the crypto library
 * failed, or no flash station gave this device a secret. MEMORY.
 */
enum edged_status evidence_request(const struct device *d, const struct identity *i,
                                   const uint8_t challenge[32], uint8_t *out, size_t capacity,
                                   size_t *size_bytes);
enum edged_status evidence_attest(const struct device *d, const struct identity *i, const uint8_t *nonce,
                                  size_t nonce_bytes, uint8_t *out, size_t capacity, size_t *size_bytes);

#endif
