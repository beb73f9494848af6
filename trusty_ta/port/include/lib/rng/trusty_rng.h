/* lib/rng/trusty_rng.h - Trusty's random source. Written from shared/TRUSTY.md. */
#ifndef EDGED_TRUSTY_RNG_H
#define EDGED_TRUSTY_RNG_H

#include <stddef.h>
#include <stdint.h>

int trusty_rng_secure_rand(uint8_t *data, size_t size_bytes);

#endif
