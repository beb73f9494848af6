/*
 * kernel.c - the portable kernels, plain C11. Compiled once for any machine and,
 * on x86-64, again for wider registers (KERNEL_NAME tells the copies apart);
 * kernel_select.c chooses.
 */
#include "kernel.h"

#include "bytes.h"

#ifndef KERNEL_NAME
#define KERNEL_NAME kernel_portable
#endif
#define KERNEL_TEXT_(n) #n
#define KERNEL_TEXT(n) KERNEL_TEXT_(n)

/* Positions that share one pass over a panel: 6 divides 18 joints, and 6 x 16
 * accumulators fit the registers of AVX-512 and half of them those of AVX2. */
#define BLOCK 6u

/* One row of a panel. A vector type says what the compiler need not guess: the
 * lanes are the vector. It lowers to plain words where there are no vectors. */
typedef uint32_t lanes __attribute__((vector_size(4 * KERNEL_LANES), aligned(4), may_alias));

/*
 * acc[i][lane] += sum_k panel[k][lane] * x[i * step + k], 0 <= i < rows: the
 * only place where time is spent. `rows` is a constant at each call.
 */
#define DEFINE_MAC(NAME, TYPE)                                                                   \
    static inline __attribute__((always_inline)) void NAME(                                      \
        lanes acc[BLOCK], const uint32_t *restrict panel, const TYPE *restrict x, uint32_t step, \
        uint32_t depth, const uint32_t rows) {                                                   \
        const lanes *p = (const lanes *)(const void *)panel;                                     \
        for (uint32_t k = 0; k < depth; k++) {                                                   \
            const lanes w = p[k];                                                                \
            for (uint32_t i = 0; i < rows; i++)                                                  \
                acc[i] += w * (uint32_t)(int32_t)x[i * step + k];                                \
        }                                                                                        \
    }

#define DEFINE_CONV(NAME, MAC, TYPE)                                                             \
    static inline __attribute__((always_inline)) void NAME##_block(                              \
        const struct conv *s, const uint32_t *panel, const TYPE *x, uint32_t x_first, uint32_t t, \
        uint32_t v, uint32_t *y, uint32_t y_stride, bool subtract, const uint32_t rows) {        \
        lanes acc[BLOCK] = {{0}};                                                                \
        for (uint32_t tap = 0; tap < s->taps; tap++) {                                           \
            uint32_t at = t * s->stride + tap; /* frame + pad */                                 \
            if (at < s->pad || at - s->pad >= s->frames_in)                                      \
                continue; /* zero padding: public */                                             \
            MAC(acc, panel + (size_t)tap * s->channels * KERNEL_LANES,                           \
                x + ((size_t)(at - s->pad - x_first) * s->joints + v) * s->channels, s->channels, \
                s->channels, rows);                                                              \
        }                                                                                        \
        for (uint32_t i = 0; i < rows; i++) {                                                    \
            lanes *to = (lanes *)(void *)(y + (size_t)i * y_stride);                             \
            *to = subtract ? *to - acc[i] : *to + acc[i];                                        \
        }                                                                                        \
    }                                                                                            \
    static void NAME(const struct conv *s, const uint32_t *panel, const TYPE *x,                 \
                     uint32_t x_first, uint32_t t_begin, uint32_t t_end, uint32_t *y,            \
                     uint32_t y_stride, bool subtract) {                                         \
        for (uint32_t t = t_begin; t < t_end; t++) {                                             \
            uint32_t v = 0;                                                                      \
            for (; v + BLOCK <= s->joints; v += BLOCK, y += (size_t)BLOCK * y_stride)            \
                NAME##_block(s, panel, x, x_first, t, v, y, y_stride, subtract, BLOCK);          \
            for (; v < s->joints; v++, y += y_stride)                                            \
                NAME##_block(s, panel, x, x_first, t, v, y, y_stride, subtract, 1);              \
        }                                                                                        \
    }

DEFINE_MAC(mac_i16, int16_t)
DEFINE_MAC(mac_u32, uint32_t)
DEFINE_CONV(conv_i16, mac_i16, int16_t)
DEFINE_CONV(conv_u32, mac_u32, uint32_t)

static void fold_x(int64_t *restrict lo, int64_t *restrict hi, const int16_t *restrict x, uint32_t s_lo,
                   uint32_t s_hi, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        lo[i] += (int64_t)(int32_t)s_lo * x[i];
        hi[i] += (int64_t)(int32_t)s_hi * x[i];
    }
}

static void fold_y(int64_t *restrict a0, int64_t *restrict a1, int64_t *restrict a2,
                   const uint32_t *restrict y, const uint32_t t[3], uint32_t n) {
    const int32_t t0 = as_i32(t[0]), t1 = as_i32(t[1]), t2 = as_i32(t[2]);

    for (uint32_t i = 0; i < n; i++) {
        const int32_t v = as_i32(y[i]);
        a0[i] += (int64_t)t0 * v;
        a1[i] += (int64_t)t1 * v;
        a2[i] += (int64_t)t2 * v;
    }
}

static void fold_w(int64_t lo[KERNEL_LANES], int64_t hi[KERNEL_LANES], const int16_t *restrict w,
                   const uint32_t *restrict z_lo, const uint32_t *restrict z_hi, uint32_t depth) {
    int64_t a[KERNEL_LANES] = {0}, b[KERNEL_LANES] = {0};

    for (uint32_t k = 0; k < depth; k++) {
        const int32_t zl = as_i32(z_lo[k]), zh = as_i32(z_hi[k]);
        for (uint32_t l = 0; l < KERNEL_LANES; l++) {
            a[l] += (int64_t)zl * w[k * KERNEL_LANES + l];
            b[l] += (int64_t)zh * w[k * KERNEL_LANES + l];
        }
    }
    for (uint32_t l = 0; l < KERNEL_LANES; l++) {
        lo[l] += a[l];
        hi[l] += b[l];
    }
}

static void gather(int32_t *restrict sum, int32_t a, const int16_t *restrict x, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        sum[i] += a * x[i];
}

static void narrow(int16_t *restrict out, const int32_t *restrict sum, uint32_t shift, int32_t high,
                   uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        out[i] = (int16_t)clamp_i64(round_shift(sum[i], shift), -high, high);
}

/* y + bias wraps: it stays an int32 whatever a dishonest accelerator returned
 * (the check refuses it later), and is exact for an honest one by the bound. */
static void requant(int16_t *out, const uint32_t *restrict y, const int32_t *restrict bias,
                    const int32_t *restrict mult, const int16_t *r, const struct requant *q,
                    uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        const int32_t acc = as_i32(y[i] + (uint32_t)bias[i]);
        const int64_t z = (int64_t)acc * mult[i] + (int64_t)q->res_mult * r[i];
        out[i] = (int16_t)clamp_i64(round_shift(z, q->shift), q->low, q->high);
    }
}

extern const struct kernel KERNEL_NAME;
const struct kernel KERNEL_NAME = {
    .name = KERNEL_TEXT(KERNEL_NAME),
    .conv_i16 = conv_i16,
    .conv_u32 = conv_u32,
    .fold_x = fold_x,
    .fold_y = fold_y,
    .fold_w = fold_w,
    .gather = gather,
    .narrow = narrow,
    .requant = requant,
};
