/*
 * masked.c - the equations of masked.h, by panels of 16 rows and tiles of frames.
 */
#include "masked.h"

#include "bytes.h"
#include "ct.h"
#include "field61.h"

/* Above the words of all positions, so that no try shares a word with another. */
#define REDRAW_STEP ((uint64_t)1 << 18)
static_assert(REDRAW_STEP > 2 * (uint64_t)EVAL_POSITIONS_MAX, "redraws are apart");

static uint32_t y_stride(const struct layer *l) {
    return panels_of(l->rows) * KERNEL_LANES;
}

/* Words before person's frame t of ybar, and of xbar. */
static uint64_t y_index(const struct layer *l, uint32_t person, uint32_t t) {
    return ((uint64_t)person * l->frames_out + t) * l->inside.joints * l->rows;
}

static uint64_t x_index(const struct layer *l, uint32_t person, uint32_t t) {
    return ((uint64_t)person * l->outside.frames_in + t) * l->inside.joints * l->inside.channels;
}

/* n->panel = R2, or 0 where the placement has none. */
static int draw_r2(struct network *n, uint32_t product, uint32_t panel) {
    const struct layer *l = network_product(n, product);
    const size_t words = (size_t)l->depth * KERNEL_LANES;

    if (n->placement != EVAL_MASKED) {
        memset(n->panel, 0, words * sizeof(*n->panel));
        return 0;
    }
    if (prg_select(n->prg, PRG_R2, n->load, 0, product) != 0)
        return -1;
    return prg_words(n->prg, (uint64_t)panel * words, n->panel, words);
}

static void add_weights(struct network *n, const struct layer *l, uint32_t panel) {
    const size_t words = (size_t)l->depth * KERNEL_LANES;
    const int16_t *w = l->weights + panel * words;

    for (size_t i = 0; i < words; i++)
        n->panel[i] += word_of(w[i]);
}

int masked_weights(struct network *n, uint32_t product, uint32_t panel) {
    if (draw_r2(n, product, panel) != 0)
        return -1;
    add_weights(n, network_product(n, product), panel);
    return 0;
}

int masked_hide(struct network *n, uint32_t product, uint64_t first, const int16_t *x, uint32_t *words,
                size_t count) {
    if (prg_select(n->prg, PRG_R1, n->load, n->invocation, product) != 0 ||
        prg_words(n->prg, first, words, count) != 0)
        return -1;
    for (size_t i = 0; i < count; i++)
        words[i] += word_of(x[i]);
    return 0;
}

/* n->words = R1 of every frame that ybar's frames t_begin .. t_end read; *first: the first of them. */
static int draw_r1(struct network *n, uint32_t product, uint32_t person, uint32_t t_begin, uint32_t t_end,
                   uint32_t *first) {
    const struct layer *l = network_product(n, product);
    const struct conv *s = &l->outside;
    uint32_t begin = t_begin * s->stride, end = (t_end - 1) * s->stride + s->taps;

    begin = begin < s->pad ? 0 : begin - s->pad;
    end = end - s->pad < s->frames_in ? end - s->pad : s->frames_in;
    *first = begin;
    if (prg_select(n->prg, PRG_R1, n->load, n->invocation, product) != 0)
        return -1;
    return prg_words(n->prg, x_index(l, person, begin), n->words,
                     (size_t)(end - begin) * s->joints * s->channels);
}

/* n->words = pad of ybar's frames t_begin .. t_end. */
static int draw_pad(struct network *n, uint32_t product, uint32_t person, uint32_t t_begin,
                    uint32_t t_end) {
    const struct layer *l = network_product(n, product);

    if (prg_select(n->prg, PRG_PAD, n->load, n->invocation, product) != 0)
        return -1;
    return prg_words(n->prg, y_index(l, person, t_begin), n->words,
                     (size_t)(t_end - t_begin) * l->inside.joints * l->rows);
}

/* y[position][stride] += pad[position][rows], pad in n->words. */
static void add_pad(struct network *n, const struct layer *l, uint32_t positions) {
    const uint32_t stride = y_stride(l);

    for (uint32_t i = 0; i < positions; i++)
        for (uint32_t r = 0; r < l->rows; r++)
            n->y[(size_t)i * stride + r] += n->words[(size_t)i * l->rows + r];
}

int masked_prepare(struct network *n, uint32_t product, uint32_t person, uint32_t t_begin,
                   uint32_t t_end) {
    const struct layer *l = network_product(n, product);
    const uint32_t stride = y_stride(l), positions = (t_end - t_begin) * l->inside.joints;
    uint32_t first;

    memset(n->y, 0, (size_t)positions * stride * sizeof(*n->y));
    if (draw_r1(n, product, person, t_begin, t_end, &first) != 0)
        return -1;
    for (uint32_t panel = 0; panel < panels_of(l->rows); panel++) {
        if (masked_weights(n, product, panel) != 0)
            return -1;
        n->kernel->conv_u32(&l->outside, n->panel, n->words, first, t_begin, t_end,
                            n->y + (size_t)panel * KERNEL_LANES, stride, false);
    }
    if (draw_pad(n, product, person, t_begin, t_end) != 0)
        return -1;
    add_pad(n, l, positions);
    for (uint32_t i = 1; i < positions; i++)
        memmove(n->y + (size_t)i * l->rows, n->y + (size_t)i * stride, l->rows * sizeof(*n->y));
    return 0;
}

int masked_reveal(struct network *n, uint32_t product, uint32_t person, uint32_t t_begin,
                  uint32_t t_end, const int16_t *x, uint32_t x_first) {
    const struct layer *l = network_product(n, product);
    const uint32_t stride = y_stride(l);
    const bool enclave = n->placement == EVAL_ENCLAVE, masked = n->placement == EVAL_MASKED;
    const bool online = !enclave && !n->prepared;
    uint32_t first = 0;

    if (online && draw_r1(n, product, person, t_begin, t_end, &first) != 0)
        return -1;
    for (uint32_t panel = 0; panel < panels_of(l->rows); panel++) {
        uint32_t *y = n->y + (size_t)panel * KERNEL_LANES;
        if (draw_r2(n, product, panel) != 0)
            return -1;
        if (masked) /* - R2 X */
            n->kernel->conv_i16(&l->inside, n->panel, x, x_first, t_begin, t_end, y, stride, true);
        if (n->prepared)
            continue; /* U was subtracted outside */
        add_weights(n, l, panel);
        if (enclave) /* W X */
            n->kernel->conv_i16(&l->inside, n->panel, x, x_first, t_begin, t_end, y, stride, false);
        else /* - U */
            n->kernel->conv_u32(&l->outside, n->panel, n->words, first, t_begin, t_end, y, stride, true);
    }
    if (n->prepared) {
        if (draw_pad(n, product, person, t_begin, t_end) != 0)
            return -1;
        add_pad(n, l, (t_end - t_begin) * l->inside.joints);
    }
    return 0;
}

void masked_check_begin(struct network *n, uint32_t product) {
    const struct layer *l = network_product(n, product);

    memset(n->xs_lo, 0, l->depth * sizeof(*n->xs_lo));
    memset(n->xs_hi, 0, l->depth * sizeof(*n->xs_hi));
    memset(n->ys, 0, l->rows * sizeof(*n->ys));
}

/* Elements first .. first + count - 1 of s, 64 bits each into n->s, uniform in F_p. */
static int draw_s(struct network *n, uint32_t product, uint64_t first, uint32_t count) {
    if (prg_select(n->prg, PRG_S, n->load, n->invocation, product) != 0 ||
        prg_words(n->prg, first * 2, n->s, (size_t)count * 2) != 0)
        return -1;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t *s = n->s + (size_t)i * 2;
        uint64_t at = (first + i) * 2;
        s[1] &= 0x1fffffff; /* 61 bits */
        /* p itself is rejected; that it came tells nothing of what replaces it. */
        while (ct_public((s[0] == UINT32_MAX) & (s[1] == 0x1fffffff))) {
            if (prg_select(n->prg, PRG_REDRAW, n->load, n->invocation, product) != 0 ||
                prg_words(n->prg, at, s, 2) != 0)
                return -1;
            s[1] &= 0x1fffffff;
            at += REDRAW_STEP;
        }
    }
    return 0;
}

int masked_check_fold(struct network *n, uint32_t product, uint32_t person, uint32_t t_begin,
                      uint32_t t_end, const int16_t *x, uint32_t x_first) {
    const struct layer *l = network_product(n, product);
    const struct conv *c = &l->inside;
    const uint32_t stride = y_stride(l), positions = (t_end - t_begin) * c->joints;

    if (draw_s(n, product, ((uint64_t)person * l->frames_out + t_begin) * c->joints, positions) != 0)
        return -1;
    memset(n->ys_0, 0, l->rows * sizeof(*n->ys_0));
    memset(n->ys_1, 0, l->rows * sizeof(*n->ys_1));
    memset(n->ys_2, 0, l->rows * sizeof(*n->ys_2));
    for (uint32_t i = 0; i < positions; i++) {
        const uint64_t s = (uint64_t)n->s[2 * i + 1] << 32 | n->s[2 * i];
        const uint32_t s_lo = (uint32_t)s & 0x7fffffff, s_hi = (uint32_t)(s >> 31);
        const uint32_t limbs[3] = {(uint32_t)s & 0x1fffff, (uint32_t)(s >> 21) & 0x1fffff,
                                   (uint32_t)(s >> 42)};
        const uint32_t t = t_begin + i / c->joints, v = i % c->joints;

        n->kernel->fold_y(n->ys_0, n->ys_1, n->ys_2, n->y + (size_t)i * stride, limbs, l->rows);
        for (uint32_t tap = 0; tap < c->taps; tap++) {
            const uint32_t at = t * c->stride + tap;
            if (at < c->pad || at - c->pad >= c->frames_in)
                continue;
            n->kernel->fold_x(n->xs_lo + (size_t)tap * c->channels, n->xs_hi + (size_t)tap * c->channels,
                              x + ((size_t)(at - c->pad - x_first) * c->joints + v) * c->channels, s_lo,
                              s_hi, c->channels);
        }
    }
    for (uint32_t r = 0; r < l->rows; r++)
        n->ys[r] = f61_add(n->ys[r], f61_add(f61_from_i64(n->ys_0[r]),
                                             f61_add(f61_shift(f61_from_i64(n->ys_1[r]), 21),
                                                     f61_shift(f61_from_i64(n->ys_2[r]), 42))));
    return 0;
}

void masked_check_end(struct network *n, uint32_t product) {
    const struct layer *l = network_product(n, product);

    for (uint32_t k = 0; k < l->depth; k++) { /* z = X s */
        const uint64_t z = f61_add(f61_from_i64(n->xs_lo[k]), f61_shift(f61_from_i64(n->xs_hi[k]), 31));
        n->z_lo[k] = (uint32_t)z & 0x7fffffff;
        n->z_hi[k] = (uint32_t)(z >> 31);
    }
    for (uint32_t panel = 0; panel < panels_of(l->rows); panel++) { /* W z */
        int64_t lo[KERNEL_LANES] = {0}, hi[KERNEL_LANES] = {0};
        n->kernel->fold_w(lo, hi, l->weights + (size_t)panel * l->depth * KERNEL_LANES, n->z_lo, n->z_hi,
                          l->depth);
        for (uint32_t lane = 0; lane < KERNEL_LANES; lane++) {
            const uint32_t r = panel * KERNEL_LANES + lane;
            const uint64_t wz = f61_add(f61_from_i64(lo[lane]), f61_shift(f61_from_i64(hi[lane]), 31));
            if (r < l->rows)
                n->refused |= wz ^ n->ys[r];
        }
    }
}
