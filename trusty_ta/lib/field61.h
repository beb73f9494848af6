/*
 * field61.h - the prime field of Freivalds' check, p = 2^61 - 1.
 *
 * Why this prime: it exceeds 2^32, so that no error of an int32 vanishes mod p
 * (mod 2^32 an error of 2^31 passes half the time), and a product by a power of
 * two is a rotation. Every sum is taken over limbs of the field element small
 * enough for 64-bit lazy accumulation; then no 128-bit product is needed and
 * 32-bit ARM does it with its 32 x 32 + 64 multiply-add:
 *
 *   X s   s = s_0 + 2^31 s_1            |x| <= 2^15, N <= 2^16:   2^31 2^15 2^16 = 2^62
 *   W z   z = z_0 + 2^31 z_1            |w| <= 2^15, K <= 2^14:   2^31 2^15 2^14 = 2^60
 *   Y s   s = t_0 + 2^21 t_1 + 2^42 t_2 |y| <= 2^31, tile <= 2^10: 2^21 2^31 2^10 = 2^62
 *
 * Nothing here branches on a value.
 */
#ifndef EDGED_FIELD61_H
#define EDGED_FIELD61_H

#include "bytes.h"

#define F61_P (((uint64_t)1 << 61) - 1)
#define F61_TILE_POSITIONS 1024u /* the bound of Y s above */

/* x mod p, any x. */
static inline uint64_t f61_reduce(uint64_t x) {
    uint64_t r = (x & F61_P) + (x >> 61); /* <= p + 7 */
    uint64_t d = r - F61_P;
    return select_u64((uint64_t)0 - (d >> 63), r, d);
}

/* v mod p; |v| < 2^63. */
static inline uint64_t f61_from_i64(int64_t v) {
    uint64_t negative = sign_mask64(v);
    uint64_t r = f61_reduce(((uint64_t)v ^ negative) - negative);
    return f61_reduce(select_u64(negative, F61_P - r, r));
}

/* a + b mod p; a, b < p. */
static inline uint64_t f61_add(uint64_t a, uint64_t b) {
    return f61_reduce(a + b);
}

/* a * 2^k mod p; a < p, 1 <= k <= 60: a rotation of 61 bits. */
static inline uint64_t f61_shift(uint64_t a, uint32_t k) {
    return ((a << k) & F61_P) | (a >> (61 - k));
}

#endif
