/*
 * accelerator.h - an honest accelerator in the plainest of loops: the formula of
 * struct eval_product, mod 2^32.
 */
#ifndef EDGED_TEST_ACCELERATOR_H
#define EDGED_TEST_ACCELERATOR_H

#include "model.h"

/*
 * ybar (persons, frames_out, joints, rows) of wbar (rows, taps, channels) and xbar
 * (persons, frames_in, joints, channels); minus `subtract` where it is not NULL.
 */
void accelerator_convolve(const struct conv *s, uint32_t rows, uint32_t frames_out, uint32_t persons,
                          const uint32_t *wbar, const uint32_t *xbar, const uint32_t *subtract,
                          uint32_t *ybar);

#endif
