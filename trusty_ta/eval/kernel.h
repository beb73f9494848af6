/*
 * kernel.h - the inner loops, behind the one point where a faster set is chosen.
 *
 * Layouts, so that a kernel always reads runs of contiguous channels:
 *   activations  int16  [t][v][c]
 *   ring values  uint32 [t][v][c]        (xbar, R1, ybar, U, pad)
 *   a panel      uint32 [k][16]          16 rows of a weight matrix, k = tap * channels + c
 *   a tile of y  uint32 [position][stride], stride a multiple of 16
 *
 * Every function is exact in Z mod 2^32 or in int64; none branches on, or
 * indexes by, the value of an activation, weight, mask or check element.
 */
#ifndef EDGED_KERNEL_H
#define EDGED_KERNEL_H

#include <stdbool.h>
#include <stdint.h>

#define KERNEL_LANES 16u

/** struct conv - the shape of one product over one person */
struct conv {
    uint32_t taps;
    uint32_t stride;
    uint32_t pad;
    uint32_t channels;  /* of x; K = taps * channels */
    uint32_t joints;
    uint32_t frames_in; /* x is zero outside 0 .. frames_in - 1 */
};

/** struct requant - one layer's step from accumulator to activation */
struct requant {
    uint32_t shift;
    int32_t res_mult; /* 0 without residual */
    int32_t low;      /* clamp: 0 where there is a ReLU, else -high */
    int32_t high;
};

struct kernel {
    const char *name;

    /*
     * y[(t - t_begin) * joints + v][lane] (+ or -)= sum_k panel[k][lane] * x[t*stride + tap - pad][v][c]
     * for t_begin <= t < t_end. x points at frame x_first; y at its first position.
     */
    void (*conv_i16)(const struct conv *s, const uint32_t *panel, const int16_t *x, uint32_t x_first,
                     uint32_t t_begin, uint32_t t_end, uint32_t *y, uint32_t y_stride, bool subtract);
    void (*conv_u32)(const struct conv *s, const uint32_t *panel, const uint32_t *x, uint32_t x_first,
                     uint32_t t_begin, uint32_t t_end, uint32_t *y, uint32_t y_stride, bool subtract);

    /* Freivalds (lib/field61.h has the bounds). lo/hi[i] += s_lo/s_hi * x[i] */
    void (*fold_x)(int64_t *lo, int64_t *hi, const int16_t *x, uint32_t s_lo, uint32_t s_hi, uint32_t n);
    /* a0/a1/a2[i] += t_0/t_1/t_2 * (int32)y[i] */
    void (*fold_y)(int64_t *a0, int64_t *a1, int64_t *a2, const uint32_t *y, const uint32_t t[3],
                   uint32_t n);
    /* lo/hi[lane] += sum_k w[k][lane] * z_lo/z_hi[k] */
    void (*fold_w)(int64_t lo[KERNEL_LANES], int64_t hi[KERNEL_LANES], const int16_t *w,
                   const uint32_t *z_lo, const uint32_t *z_hi, uint32_t depth);

    /* sum[i] += a * x[i] */
    void (*gather)(int32_t *sum, int32_t a, const int16_t *x, uint32_t n);
    /* out[i] = clamp(rs(sum[i], shift)) */
    void (*narrow)(int16_t *out, const int32_t *sum, uint32_t shift, int32_t high, uint32_t n);
    /* out[i] = clamp(rs((y[i] + bias[i]) * mult[i] + r[i] * res_mult, shift)); r may be out */
    void (*requant)(int16_t *out, const uint32_t *y, const int32_t *bias, const int32_t *mult,
                    const int16_t *r, const struct requant *q, uint32_t n);
};

/* The fastest set that this machine runs. */
const struct kernel *kernel_select(void);

/* All sets that this machine runs, for tests; NULL past the last. */
const struct kernel *kernel_at(uint32_t index);

#endif
