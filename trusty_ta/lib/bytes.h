/*
 * bytes.h - explicit little-endian loads and stores, and constant-time choices.
 */
#ifndef EDGED_BYTES_H
#define EDGED_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Bulk words (Wbar, Xbar, Ybar) are copied as they lie in memory. */
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "edged runs on little-endian machines only"
#endif

static inline uint16_t load_le16(const uint8_t *p) {
    return (uint16_t)(p[0] | (p[1] << 8));
}

static inline uint32_t load_le32(const uint8_t *p) {
    return (uint32_t)p[0] | ((uint32_t)p[1] << 8) | ((uint32_t)p[2] << 16) | ((uint32_t)p[3] << 24);
}

static inline void store_le32(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
    p[2] = (uint8_t)(v >> 16);
    p[3] = (uint8_t)(v >> 24);
}

static inline uint64_t load_le64(const uint8_t *p) {
    return (uint64_t)load_le32(p) | (uint64_t)load_le32(p + 4) << 32;
}

static inline void store_le64(uint8_t *p, uint64_t v) {
    store_le32(p, (uint32_t)v);
    store_le32(p + 4, (uint32_t)(v >> 32));
}

/* In constant time. */
static inline bool is_zero(const uint8_t *p, size_t n) {
    uint8_t any = 0;
    for (size_t i = 0; i < n; i++)
        any |= p[i];
    return any == 0;
}

/* The two's complement value of a word; exact on every compiler we build with. */
static inline int32_t as_i32(uint32_t v) {
    return (int32_t)v;
}

/* A small integer as an element of Z mod 2^32. */
static inline uint32_t word_of(int32_t v) {
    return (uint32_t)v;
}

/* All ones where v is negative, else 0. */
static inline uint64_t sign_mask64(int64_t v) {
    return (uint64_t)0 - ((uint64_t)v >> 63);
}

/* a where mask is all ones, b where it is 0. */
static inline uint64_t select_u64(uint64_t mask, uint64_t a, uint64_t b) {
    return b ^ (mask & (a ^ b));
}

/* v, or the end of low .. high that it lies beyond. */
static inline int64_t clamp_i64(int64_t v, int64_t low, int64_t high) {
    v = (int64_t)select_u64(sign_mask64(v - low), (uint64_t)low, (uint64_t)v);
    return (int64_t)select_u64(sign_mask64(high - v), (uint64_t)high, (uint64_t)v);
}

/*
 * rs(z, s) = floor((z + 2^(s-1)) / 2^s), 1 <= s <= 62: round half up.
 * z + 2^(s-1) must not overflow: callers bound |z| by 2^62 + 2^47.
 * The shift is arithmetic on every compiler we build with (checked in
 * tests/c/core_test.c).
 */
static inline int64_t round_shift(int64_t z, uint32_t s) {
    return (z + ((int64_t)1 << (s - 1))) >> s;
}

#endif
