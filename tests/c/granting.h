/*
 * granting.h - grants and floors without their parties' keys: signatures hold where the test says so, and a
 * "ciphertext" is the label, the size and the key. Linked with --wrap=cose_holds and --wrap=crypto_rsa_decrypt.
 */
#ifndef EDGED_TEST_GRANTING_H
#define EDGED_TEST_GRANTING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "key.h"

#define GRANT_MAX 1024u
#define HEADER_MAX 256u

/** struct made - a grant's fields; party and agreement: the byte with which each begins, the rest is 0 */
struct made {
    uint32_t kind;
    uint32_t slot;
    uint64_t number;
    uint8_t party;
    uint8_t agreement;
    uint8_t key_bytes;
    uint8_t key; /* its bytes */
    bool another_label;
    uint8_t device[32];
};

/** struct spoken - a floor's fields; party: as above */
struct spoken {
    uint64_t time_s;
    uint32_t model;
    uint32_t agreement;
    uint8_t party;
    uint32_t count;
    struct {
        uint64_t slot;
        uint64_t number;
    } grants[KEY_SLOTS + 1];
    uint8_t start[32];
    uint8_t device[32];
};

extern bool granting_signed; /* false: no signature holds */

/* Encode into out, GRANT_MAX; its size. */
size_t granting_make(const struct made *m, uint8_t *out);

/* Likewise a floor. */
size_t granting_speak(const struct spoken *f, uint8_t *out);

/* Start a key application; its bootseed is what it draws first. */
struct key_app *granting_start(uint8_t bootseed[32]);

/* COSE_Sign1 around any payload; 0 where it does not fit. */
size_t granting_envelop(const uint8_t *payload, size_t size, uint8_t *out, size_t room);

#endif
