/*
 * layer.h - the non-linear part of the network, all of it inside. With
 * rs(z, s) = floor((z + 2^(s-1)) / 2^s):
 *
 *   INPUT     x = clamp(rs((256 in + bias[v][c]) mult[v][c], shift))
 *   mix       x'[w][k C + c] = clamp(rs(sum_v a[k][v][w] x[v][c], adj_shift))
 *   GRAPH     g = clamp0(rs((y + bias[w][o]) mult[o], shift))            order before
 *             y = rs(sum_{k,v} a[k][v][w] p[v][k C' + o], adj_shift)     order after, p the product
 *   RESIDUAL  r = clamp(rs((y + bias[o]) mult[o], shift))
 *   TEMPORAL  x = clamp0(rs((y + bias[o]) mult[o] + r res_mult, shift))
 *   POOL      f = clamp(rs((sum_{m,t,v} x + absent empty[c]) mult, shift))
 *   FC        logit = clamp(rs((y + bias[l]) mult[l], shift))
 *
 * clamp is to +-out_max, clamp0 to 0 .. out_max (the ReLU).
 * Accumulators: |y + bias| < 2^31 and |mult| < 2^31, so |.| < 2^62, plus
 * |r res_mult| < 2^46, plus the rounding 2^61: below 2^63.
 */
#ifndef EDGED_LAYER_H
#define EDGED_LAYER_H

#include "network.h"

void layer_input(const struct layer *l, uint32_t frames, uint32_t joints, const int16_t *in, int16_t *x);

/* Adjacency on `frames` frames at x: mix [t][w][k C + c]. wide: [C]. */
void layer_mix(const struct kernel *k, const struct layer *l, uint32_t frames, uint32_t joints,
               const int16_t *x, int16_t *mix, int32_t *wide);

/* The step from an unmasked tile y [position][stride] to activations `to`. */
void layer_graph(const struct kernel *k, const struct layer *l, uint32_t frames, uint32_t joints,
                 const uint32_t *y, uint32_t stride, int16_t *to, uint32_t *row, int64_t *wide64);
void layer_residual(const struct kernel *k, const struct layer *l, uint32_t positions, const uint32_t *y,
                    uint32_t stride, int16_t *to);
void layer_temporal(const struct kernel *k, const struct layer *l, uint32_t positions, const uint32_t *y,
                    uint32_t stride, const int16_t *r, int16_t *to);

void layer_pool(const struct layer *l, const struct network *n, int16_t *f);
void layer_logits(const struct layer *l, const uint32_t *y, int32_t *logits);

/* Fixed-point soft-max: logits Q16 to probabilities Q16; formula in layer.c. */
void layer_softmax(const int32_t *logits, uint32_t labels, uint32_t *probabilities, uint32_t *scratch);

#endif
