#include "accelerator.h"

void accelerator_convolve(const struct conv *s, uint32_t rows, uint32_t frames_out, uint32_t persons,
                          const uint32_t *wbar, const uint32_t *xbar, const uint32_t *subtract,
                          uint32_t *ybar) {
    for (uint32_t m = 0; m < persons; m++)
        for (uint32_t t = 0; t < frames_out; t++)
            for (uint32_t v = 0; v < s->joints; v++)
                for (uint32_t r = 0; r < rows; r++) {
                    uint32_t sum = 0;
                    for (uint32_t tap = 0; tap < s->taps; tap++) {
                        const int64_t at = (int64_t)t * s->stride + tap - s->pad;
                        if (at < 0 || at >= s->frames_in)
                            continue;
                        const uint32_t *x =
                            xbar + (((size_t)m * s->frames_in + (size_t)at) * s->joints + v) * s->channels;
                        const uint32_t *w = wbar + ((size_t)r * s->taps + tap) * s->channels;
                        for (uint32_t c = 0; c < s->channels; c++)
                            sum += w[c] * x[c];
                    }
                    *ybar++ = sum - (subtract == NULL ? 0 : *subtract++);
                }
}
