/*
 * identity.h - the device's two RSA keys: ATTEST signs, GRANT receives. Outside they exist as
 * struct key_identity alone.
 */
#ifndef EDGED_IDENTITY_H
#define EDGED_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>

#include "crypto.h"
#include "edged_wire.h"

/** struct identity - all zero before the first is drawn or opened */
struct identity {
    struct crypto_rsa *attest;
    struct crypto_rsa *grant;
};

bool identity_is_open(const struct identity *i);

/* Draw both keys; sealed: a struct key_identity, at any alignment. Or ORDER, MEMORY, UNAVAILABLE. */
enum edged_status identity_draw(struct identity *i, uint8_t *sealed);

/* ORDER, MEMORY, or STATE: not sealed here, altered, or by a newer application. */
enum edged_status identity_open(struct identity *i, const uint8_t *sealed);

void identity_close(struct identity *i);

/* SHA-256 of GRANT as DER SubjectPublicKeyInfo: the device, as grants name it. One must be open. */
int identity_thumbprint(const struct identity *i, uint8_t out[32]);

#endif
