/*
 * keylink.h - the evaluation application's session with the key application.
 */
#ifndef EDGED_KEYLINK_H
#define EDGED_KEYLINK_H

#include <stdbool.h>
#include <stdint.h>

#include "edged_wire.h"

/** struct keylink - one session; all zero before the first */
struct keylink {
    uint32_t open;
    uint32_t seq;
    uint64_t counter;
    uint8_t key[32];
};

/*
 * Ask for a derived key; opens or reopens the session as needed. EDGED_OK, EDGED_ERR_KEY
 * (slot empty or of another kind), EDGED_ERR_LOCKED (it may be an old one), EDGED_ERR_UNAVAILABLE.
 */
enum edged_status keylink_derive(struct keylink *k, uint32_t slot, enum key_purpose purpose,
                                 const uint8_t salt[32], const uint8_t *context, uint32_t context_bytes,
                                 struct key_material *out);

/* May the key be used under the agreement of this digest: was it granted for it, or put for any? */
bool keylink_fits(const struct key_material *m, const uint8_t agreement[32]);

#endif
