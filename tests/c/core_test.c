/*
 * core_test.c - the core's arithmetic: each set of kernels against plain loops with
 * full-range inputs; rounding, the field and the soft-max against Python's integers
 * (tests/c/vectors.py).
 *
 *   core_test VECTORS
 */
#include <string.h>

#include "bytes.h"
#include "field61.h"
#include "layer.h"
#include "vector.h"

static uint64_t seed = 1;

/* splitmix64 */
static uint64_t random64(void) {
    uint64_t z = seed += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static uint32_t below(uint32_t n) {
    return (uint32_t)(random64() % n);
}

/* A word from the whole range, its ends more often than chance has them. */
static uint32_t word(void) {
    static const uint32_t ends[] = {0, 1, 0x7fffffff, 0x80000000, 0x80000001, 0xffffffff, 0x7fff, 0xffff8000};
    return below(4) == 0 ? ends[below(8)] : (uint32_t)random64();
}

static int16_t half(void) {
    return (int16_t)(uint16_t)word();
}

/* floor((z + 2^(s-1)) / 2^s) by division: no shift of a negative number. */
static int64_t slow_round(int64_t z, uint32_t s) {
    const int64_t d = (int64_t)1 << s, v = z + d / 2;
    return v / d - (v % d < 0);
}

static int64_t slow_clamp(int64_t v, int64_t low, int64_t high) {
    return v < low ? low : v > high ? high : v;
}

/* -------------------------------------------------- against Python's integers --- */

static void check_round(void) {
    size_t size;
    const uint64_t *v = vector_get("round", &size); /* z, s, rs(z, s) */

    for (size_t i = 0; i < size / 24; i++, v += 3) {
        CHECK(round_shift((int64_t)v[0], (uint32_t)v[1]) == (int64_t)v[2], "rs(%lld, %u)", (long long)v[0],
              (uint32_t)v[1]);
        CHECK(slow_round((int64_t)v[0], (uint32_t)v[1]) == (int64_t)v[2], "slow rs(%lld)", (long long)v[0]);
    }
    CHECK(size >= 24 * 1000, "the vectors are there");
}

static void check_field(void) {
    size_t size;
    const uint64_t *v = vector_get("field", &size); /* operation, a, b, result */

    for (size_t i = 0; i < size / 32; i++, v += 4) {
        const uint64_t got = v[0] == 0   ? f61_reduce(v[1])
                             : v[0] == 1 ? f61_from_i64((int64_t)v[1])
                             : v[0] == 2 ? f61_add(v[1], v[2])
                                         : f61_shift(v[1], (uint32_t)v[2]);
        CHECK(got == v[3], "field operation %u of %llx, %llx", (unsigned)v[0], (unsigned long long)v[1],
              (unsigned long long)v[2]);
    }
    CHECK(size >= 32 * 1000, "the vectors are there");
}

static void check_softmax(void) {
    char name[32];
    uint32_t probabilities[EVAL_LABELS_MAX], scratch[EVAL_LABELS_MAX];
    uint32_t i = 0;

    for (snprintf(name, sizeof(name), "softmax/%u/logits", i); vector_has(name);
         snprintf(name, sizeof(name), "softmax/%u/logits", ++i)) {
        size_t size;
        const int32_t *logits = vector_get(name, &size);
        snprintf(name, sizeof(name), "softmax/%u/probabilities", i);
        layer_softmax(logits, (uint32_t)(size / 4), probabilities, scratch);
        CHECK(memcmp(probabilities, vector_get(name, NULL), size) == 0, "soft-max %u", i);
    }
    CHECK(i >= 20, "the vectors are there");
}

/* ------------------------------------------------------------ the kernels --- */

#define WORDS 32768u

static uint32_t x32[WORDS], panel[WORDS], y_slow[WORDS], y_fast[WORDS];
static int16_t x16[WORDS];

static void slow_conv(const struct conv *s, bool narrow, uint32_t x_first, uint32_t t_begin, uint32_t t_end,
                      uint32_t stride, bool subtract) {
    for (uint32_t t = t_begin; t < t_end; t++)
        for (uint32_t v = 0; v < s->joints; v++)
            for (uint32_t lane = 0; lane < KERNEL_LANES; lane++) {
                uint32_t sum = 0, *y = y_slow + ((t - t_begin) * s->joints + v) * stride + lane;
                for (uint32_t tap = 0; tap < s->taps; tap++)
                    for (uint32_t c = 0; c < s->channels; c++) {
                        const int64_t at = (int64_t)t * s->stride + tap - s->pad;
                        if (at < 0 || at >= s->frames_in)
                            continue;
                        const size_t i = (((size_t)at - x_first) * s->joints + v) * s->channels + c;
                        const uint32_t x = narrow ? word_of(x16[i]) : x32[i];
                        sum += panel[(tap * s->channels + c) * KERNEL_LANES + lane] * x;
                    }
                *y = subtract ? *y - sum : *y + sum;
            }
}

static void check_conv(const struct kernel *k, bool narrow) {
    struct conv s = {.taps = 2 * below(5) + 1,
                     .stride = 1 + below(4),
                     .channels = 1 + below(20),
                     .joints = 1 + below(20),
                     .frames_in = 1 + below(30)};
    s.pad = (s.taps - 1) / 2;
    const uint32_t frames_out = (s.frames_in - 1) / s.stride + 1, stride = KERNEL_LANES * (1 + below(3));
    const uint32_t t_begin = below(frames_out);
    uint32_t t_end = t_begin + 1 + below(frames_out - t_begin);
    const uint32_t first = t_begin * s.stride < s.pad ? 0 : t_begin * s.stride - s.pad;
    const uint32_t x_first = below(2) == 0 ? first : 0; /* of a tile's own x, or of all of it */
    const bool subtract = below(2) != 0;

    while ((t_end - t_begin) * s.joints * stride > WORDS)
        t_end--;
    for (uint32_t i = 0; i < WORDS; i++) {
        x16[i] = half();
        x32[i] = word();
        panel[i] = word();
        y_slow[i] = y_fast[i] = word();
    }
    slow_conv(&s, narrow, x_first, t_begin, t_end, stride, subtract);
    if (narrow)
        k->conv_i16(&s, panel, x16, x_first, t_begin, t_end, y_fast, stride, subtract);
    else
        k->conv_u32(&s, panel, x32, x_first, t_begin, t_end, y_fast, stride, subtract);
    CHECK(memcmp(y_slow, y_fast, sizeof(y_slow)) == 0, "%s conv, taps %u stride %u channels %u joints %u", k->name,
          s.taps, s.stride, s.channels, s.joints);
}

static void check_folds(const struct kernel *k, uint32_t n) {
    int64_t slow[3][64], fast[3][64];
    const uint32_t lo = word() & 0x7fffffff, hi = word() & 0x3fffffff;
    const uint32_t t[3] = {word() & 0x1fffff, word() & 0x1fffff, word() & 0x7ffff};
    uint32_t z_lo[64], z_hi[64];

    for (uint32_t i = 0; i < 64; i++) {
        for (uint32_t limb = 0; limb < 3; limb++) /* below 2^61 in magnitude, as sums under way are */
            slow[limb][i] = fast[limb][i] = (int64_t)(random64() >> 2) - ((int64_t)1 << 61);
        z_lo[i] = word() & 0x7fffffff;
        z_hi[i] = word() & 0x3fffffff;
    }
    k->fold_x(fast[0], fast[1], x16, lo, hi, n);
    for (uint32_t i = 0; i < n; i++) {
        slow[0][i] += (int64_t)lo * x16[i];
        slow[1][i] += (int64_t)hi * x16[i];
    }
    CHECK(memcmp(slow, fast, sizeof(slow)) == 0, "%s fold_x of %u", k->name, n);
    k->fold_y(fast[0], fast[1], fast[2], x32, t, n);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t limb = 0; limb < 3; limb++)
            slow[limb][i] += (int64_t)t[limb] * (int32_t)x32[i];
    CHECK(memcmp(slow, fast, sizeof(slow)) == 0, "%s fold_y of %u", k->name, n);
    k->fold_w(fast[0], fast[1], x16, z_lo, z_hi, n);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t lane = 0; lane < KERNEL_LANES; lane++) {
            slow[0][lane] += (int64_t)z_lo[i] * x16[i * KERNEL_LANES + lane];
            slow[1][lane] += (int64_t)z_hi[i] * x16[i * KERNEL_LANES + lane];
        }
    CHECK(memcmp(slow, fast, sizeof(slow)) == 0, "%s fold_w of %u", k->name, n);
}

static void check_narrowing(const struct kernel *k, uint32_t n) {
    struct requant q = {.shift = 1 + below(62), .res_mult = (int32_t)word(), .high = 1 + (int32_t)below(32767)};
    const int32_t a = (int32_t)below(65536) - 32768; /* |a x| < 2^31, proven at load */
    int32_t sum[64], slow_sum[64], bias[64], mult[64];
    int16_t fast[64], slow[64], r[64];

    q.low = below(2) == 0 ? 0 : -q.high;
    q.res_mult += q.res_mult == INT32_MIN; /* refused at load */
    for (uint32_t i = 0; i < n; i++) {
        slow_sum[i] = sum[i] = (int32_t)word();
        bias[i] = (int32_t)word();
        mult[i] = (int32_t)word();
        mult[i] += mult[i] == INT32_MIN;
        r[i] = half();
    }
    k->narrow(fast, sum, q.shift, q.high, n);
    for (uint32_t i = 0; i < n; i++)
        slow[i] = (int16_t)slow_clamp(slow_round(sum[i], q.shift), -q.high, q.high);
    CHECK(memcmp(slow, fast, n * 2) == 0, "%s narrow by %u to %d", k->name, q.shift, q.high);

    for (uint32_t pass = 0; pass < 2; pass++) { /* the residual apart, then where the result goes */
        if (pass == 1)
            memcpy(fast, r, sizeof(r));
        k->requant(fast, x32, bias, mult, pass == 0 ? r : fast, &q, n);
        for (uint32_t i = 0; i < n; i++) {
            const int32_t acc = (int32_t)(x32[i] + (uint32_t)bias[i]);
            const int64_t z = (int64_t)acc * mult[i] + (int64_t)q.res_mult * r[i];
            slow[i] = (int16_t)slow_clamp(slow_round(z, q.shift), q.low, q.high);
        }
        CHECK(memcmp(slow, fast, n * 2) == 0, "%s requant by %u to %d", k->name, q.shift, q.high);
    }
    for (uint32_t i = 0; i < n; i++)
        slow_sum[i] = sum[i] /= 2;
    k->gather(sum, a / 2, x16, n);
    for (uint32_t i = 0; i < n; i++)
        slow_sum[i] += a / 2 * x16[i];
    CHECK(memcmp(slow_sum, sum, n * 4) == 0, "%s gather", k->name);
}

int main(int argc, char **argv) {
    CHECK(argc == 2, "usage: core_test VECTORS");
    vector_open(argv[1]);
    check_round();
    check_field();
    check_softmax();
    for (uint32_t set = 0; kernel_at(set) != NULL; set++) {
        const struct kernel *k = kernel_at(set);
        for (uint32_t round = 0; round < 60; round++) {
            check_conv(k, true);
            check_conv(k, false);
            for (uint32_t n = 1; n <= 64; n++) {
                check_folds(k, n);
                check_narrowing(k, n);
            }
        }
        printf("%s\n", k->name);
    }
    return 0;
}
