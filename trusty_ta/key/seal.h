/*
 * seal.h - what the key application gives to the normal world to keep: sealed to hardware key, application
 * and security version.
 */
#ifndef EDGED_SEAL_H
#define EDGED_SEAL_H

#include <stddef.h>
#include <stdint.h>

#include "edged_wire.h"

/** struct seal_head - how everything that is sealed begins */
struct seal_head {
    uint32_t form;
    uint32_t security_version;
    uint8_t salt[32];
};
static_assert(sizeof(struct seal_head) == 4 + 4 + 32, "seal_head");

/*
 * sealed: head_bytes, which begin with a struct seal_head that is written here and end with what the caller
 * wrote; then size_bytes and a tag. The label is of at most 32 characters, and of one form of plaintext.
 */
int seal_close(const char *label, uint32_t form, uint8_t *sealed, size_t head_bytes, const void *plain,
               size_t size_bytes);

/* OK, or STATE: another form, not sealed here, altered, or by a newer application. */
enum edged_status seal_open(const char *label, uint32_t form, const uint8_t *sealed, size_t head_bytes,
                            void *plain, size_t size_bytes);

#endif
