/*
 * product.c - the CPU accelerator: the untrusted side's wrapping convolution,
 * on the same kernels as the enclave's own (trusty_ta/eval/kernel.c), which are
 * only arithmetic. edged/offload/product.py defines the result, cpu.py loads this.
 */
#include <stdlib.h>
#include <string.h>

#include "kernel.h"

#define EXPORT __attribute__((visibility("default")))

/** struct weights - Wbar in panels of 16 rows, [panel][k][16], 0 past the last row */
struct weights {
    uint32_t rows;
    uint32_t taps;
    uint32_t channels;
    uint32_t panels[];
};

EXPORT void *accel_weights(uint32_t rows, uint32_t taps, uint32_t channels, const uint32_t *w_bar);
EXPORT void accel_weights_free(void *w);
EXPORT int accel_convolve(const void *w, const uint32_t *x_bar, uint32_t frames_in, uint32_t joints,
                          uint32_t stride, uint32_t pad, uint32_t frames_out, uint32_t t_begin,
                          uint32_t t_end, const uint32_t *subtract, uint32_t *y_bar);
EXPORT const char *accel_kernel(void);

const char *accel_kernel(void) {
    return kernel_select()->name;
}

void *accel_weights(uint32_t rows, uint32_t taps, uint32_t channels, const uint32_t *w_bar) {
    const size_t depth = (size_t)taps * channels, panels = (rows + KERNEL_LANES - 1) / KERNEL_LANES;
    struct weights *w = calloc(1, sizeof(*w) + panels * depth * KERNEL_LANES * sizeof(uint32_t));

    if (w == NULL)
        return NULL;
    w->rows = rows;
    w->taps = taps;
    w->channels = channels;
    for (size_t r = 0; r < rows; r++)
        for (size_t k = 0; k < depth; k++)
            w->panels[(r / KERNEL_LANES * depth + k) * KERNEL_LANES + r % KERNEL_LANES] =
                w_bar[r * depth + k];
    return w;
}

void accel_weights_free(void *w) {
    free(w);
}

/* Frames t_begin .. t_end of one person's ybar; 0, or -1 when memory is short. */
int accel_convolve(const void *weights, const uint32_t *x_bar, uint32_t frames_in, uint32_t joints,
                   uint32_t stride, uint32_t pad, uint32_t frames_out, uint32_t t_begin, uint32_t t_end,
                   const uint32_t *subtract, uint32_t *y_bar) {
    const struct weights *w = weights;
    const struct kernel *kernel = kernel_select();
    const struct conv shape = {.taps = w->taps,
                               .stride = stride,
                               .pad = pad,
                               .channels = w->channels,
                               .joints = joints,
                               .frames_in = frames_in};
    const size_t depth = (size_t)w->taps * w->channels;
    uint32_t *tile;

    if (t_end > frames_out || t_begin > t_end)
        return -1;
    const size_t positions = (size_t)(t_end - t_begin) * joints, first = (size_t)t_begin * joints;
    tile = malloc(positions * KERNEL_LANES * sizeof(*tile) + 1);
    if (tile == NULL)
        return -1;
    for (uint32_t row = 0; row < w->rows; row += KERNEL_LANES) {
        const uint32_t lanes = w->rows - row < KERNEL_LANES ? w->rows - row : KERNEL_LANES;
        memset(tile, 0, positions * KERNEL_LANES * sizeof(*tile));
        kernel->conv_u32(&shape, w->panels + row * depth, x_bar, 0, t_begin, t_end, tile, KERNEL_LANES,
                         false);
        for (size_t i = 0; i < positions; i++)
            for (uint32_t l = 0; l < lanes; l++) {
                const size_t at = (first + i) * w->rows + row + l;
                y_bar[at] = tile[i * KERNEL_LANES + l] - (subtract == NULL ? 0 : subtract[at]);
            }
    }
    free(tile);
    return 0;
}
