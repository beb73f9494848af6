/*
 * masked.h - the protocol: one linear layer computed by an accelerator that
 * learns neither weights nor activations, and believed only after a check.
 *
 * Ring Z mod 2^32. W (rows, K) weights, X (K, N) activations, both integers in
 * the enclave, with max|X| sum_k |W[row][k]| < 2^31 for every row (proven at
 * load, tensors.c). Masks are uniform words of prg.h, each used once:
 *
 *   once per load         Wbar = W + R2                                (1)
 *   once per invocation   Xbar = X + R1      (zero padding stays zero)  (2)
 *                         U    = Wbar R1                               (3)
 *   accelerator           Ybar = Wbar Xbar
 *   enclave               Y    = Ybar - U - R2 X  = W X                (4)
 *
 * since Wbar Xbar = Wbar R1 + W X + R2 X. As |W X| < 2^31, Y read as int32 is
 * exact. U does not depend on X: handed out ahead as U + pad, the accelerator
 * returns Ybar - (U + pad), and
 *
 *                         Y    = (Ybar - U - pad) + pad - R2 X         (5)
 *
 * Freivalds, over F_p with p = 2^61 - 1 (lib/field61.h), on the unmasked
 * integers, s uniform in F_p^N and never shown to anyone:
 *
 *                         accept iff  Y s == W (X s)   (mod p)          (6)
 *
 * If Y != W X, some row of D = Y - W X is non-zero, and its entries, below 2^33
 * in magnitude, are not all 0 mod p; then D s = 0 for one s in p: soundness
 * error 2^-61. s is drawn on the position axis and is independent of W and X,
 * so accept or refuse tells nothing else.
 *
 * Placement inputs: R2 = 0 (weights in clear outside). Placement enclave: Y = W X
 * here, nothing leaves, nothing to check.
 */
#ifndef EDGED_MASKED_H
#define EDGED_MASKED_H

#include "network.h"

/* (1) Panel `panel` of product's Wbar, [depth][16], into n->panel. 0, or -1. */
int masked_weights(struct network *n, uint32_t product, uint32_t panel);

/* (2) words[i] = x[i] + R1[first + i]; words may be n->words. 0, or -1. */
int masked_hide(struct network *n, uint32_t product, uint64_t first, const int16_t *x, uint32_t *words,
                size_t count);

/*
 * (3) for frames t_begin .. t_end of person `person`, plus the pad: n->y = U + pad,
 * rows packed without gaps. 0, or -1.
 */
int masked_prepare(struct network *n, uint32_t product, uint32_t person, uint32_t t_begin,
                   uint32_t t_end);

/*
 * (4) or (5) on the tile in n->y; x is product's input, its first frame is
 * x_first of person `person`. Placement enclave: adds W x. 0, or -1.
 */
int masked_reveal(struct network *n, uint32_t product, uint32_t person, uint32_t t_begin,
                  uint32_t t_end, const int16_t *x, uint32_t x_first);

/* (6): start a product, add a revealed tile, and at its end add the verdict to n->refused. */
void masked_check_begin(struct network *n, uint32_t product);
int masked_check_fold(struct network *n, uint32_t product, uint32_t person, uint32_t t_begin,
                      uint32_t t_end, const int16_t *x, uint32_t x_first);
void masked_check_end(struct network *n, uint32_t product);

#endif
