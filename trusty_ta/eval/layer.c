#include "layer.h"

#include "bytes.h"

void layer_input(const struct layer *l, uint32_t frames, uint32_t joints, const int16_t *in, int16_t *x) {
    const int64_t high = (int64_t)l->out_max;

    for (uint32_t t = 0; t < frames; t++)
        for (uint32_t i = 0; i < joints * 3; i++, in++, x++) {
            const int64_t z = ((int64_t)*in * 256 + l->bias[i]) * l->mult[i];
            *x = (int16_t)clamp_i64(round_shift(z, l->shift), -high, high);
        }
}

void layer_mix(const struct kernel *k, const struct layer *l, uint32_t frames, uint32_t joints,
               const int16_t *x, int16_t *mix, int32_t *wide) {
    const uint32_t c = l->cin, blocks = l->depth / c;

    for (uint32_t t = 0; t < frames; t++, x += (size_t)joints * c, mix += (size_t)joints * l->depth) {
        uint32_t e = 0; /* entries are sorted by (k, w): each pair is one run, maybe empty */
        for (uint32_t part = 0; part < blocks; part++)
            for (uint32_t w = 0; w < joints; w++) {
                memset(wide, 0, c * sizeof(*wide));
                for (; e < l->nnz && l->adjacency[e].k == part && l->adjacency[e].w == w; e++)
                    k->gather(wide, l->adjacency[e].a, x + (size_t)l->adjacency[e].v * c, c);
                k->narrow(mix + (size_t)w * l->depth + (size_t)part * c, wide, l->adj_shift,
                          (int32_t)l->adj_max, c);
            }
    }
}

/* y[w] = rs(sum_{k,v} a[k][v][w] p[v][k C' + o], adj_shift), |sum| < 2^62 for any p. */
static void mix_after(const struct layer *l, uint32_t w, const uint32_t *p, uint32_t stride,
                      uint32_t *row, int64_t *wide64) {
    memset(wide64, 0, l->cout * sizeof(*wide64));
    for (uint32_t e = 0; e < l->nnz; e++) {
        const struct adjacency *a = &l->adjacency[e];
        const uint32_t *from = p + (size_t)a->v * stride + (size_t)a->k * l->cout;
        if (a->w != w) /* which joints are connected is a stated leak; how strongly is not */
            continue;
        for (uint32_t o = 0; o < l->cout; o++)
            wide64[o] += (int64_t)a->a * as_i32(from[o]);
    }
    for (uint32_t o = 0; o < l->cout; o++)
        row[o] = (uint32_t)(uint64_t)round_shift(wide64[o], l->adj_shift);
}

void layer_graph(const struct kernel *k, const struct layer *l, uint32_t frames, uint32_t joints,
                 const uint32_t *y, uint32_t stride, int16_t *to, uint32_t *row, int64_t *wide64) {
    const struct requant q = {.shift = l->shift, .low = 0, .high = (int32_t)l->out_max};

    for (uint32_t t = 0; t < frames; t++, y += (size_t)joints * stride)
        for (uint32_t w = 0; w < joints; w++, to += l->cout) {
            const uint32_t *from = y + (size_t)w * stride;
            if (l->order == ORDER_AFTER) {
                mix_after(l, w, y, stride, row, wide64);
                from = row;
            }
            k->requant(to, from, l->bias + (size_t)w * l->cout, l->mult, to, &q, l->cout);
        }
}

void layer_residual(const struct kernel *k, const struct layer *l, uint32_t positions, const uint32_t *y,
                    uint32_t stride, int16_t *to) {
    const struct requant q = {
        .shift = l->shift, .low = -(int32_t)l->out_max, .high = (int32_t)l->out_max};

    for (uint32_t i = 0; i < positions; i++, y += stride, to += l->cout)
        k->requant(to, y, l->bias, l->mult, to, &q, l->cout);
}

void layer_temporal(const struct kernel *k, const struct layer *l, uint32_t positions, const uint32_t *y,
                    uint32_t stride, const int16_t *r, int16_t *to) {
    const struct requant q = {
        .shift = l->shift, .res_mult = l->extra[0], .low = 0, .high = (int32_t)l->out_max};

    for (uint32_t i = 0; i < positions; i++, y += stride, r += l->cout, to += l->cout)
        k->requant(to, y, l->bias, l->mult, r, &q, l->cout);
}

void layer_pool(const struct layer *l, const struct network *n, int16_t *f) {
    const int64_t high = (int64_t)l->out_max;
    const size_t positions = (size_t)l->frames_in * n->model->joints;
    const int32_t absent = (int32_t)(n->model->persons - n->persons);

    for (uint32_t c = 0; c < l->cin; c++) {
        int32_t sum = absent * l->extra[c]; /* |.| <= M T V in_max < 2^31 */
        for (uint32_t m = 0; m < n->persons; m++)
            for (size_t i = 0; i < positions; i++)
                sum += n->x[m * n->x_person + i * l->cin + c];
        f[c] = (int16_t)clamp_i64(round_shift((int64_t)sum * l->mult[0], l->shift), -high, high);
    }
}

void layer_logits(const struct layer *l, const uint32_t *y, int32_t *logits) {
    for (uint32_t i = 0; i < l->cout; i++) {
        const int64_t z = (int64_t)as_i32(y[i] + (uint32_t)l->bias[i]) * l->mult[i];
        logits[i] = (int32_t)clamp_i64(round_shift(z, l->shift), -LOGIT_MAX, LOGIT_MAX);
    }
}

/*
 * e_i = 2^-u_i, u_i = (max - logit_i) log2(e) in Q16, capped; e_i in Q30:
 *   u = n + f:  e = P(f) >> n,  P in Q30 of degree 5, fitted to 2^-f on 0 <= f < 1
 *   (error below 2^-22, monotone; one step of the Q16 result is 2^-16)
 * p_i = floor(2^16 e_i / sum_j e_j), by long division: the divide instructions
 * of small cores take a time that depends on their operands.
 */
void layer_softmax(const int32_t *logits, uint32_t labels, uint32_t *probabilities, uint32_t *scratch) {
    static const int64_t fitted[6] = {1073741824, 744257239, 257890134, 59371525, 9880762, 1013087};
    const int64_t cap = (int64_t)32 << 16;
    int64_t most = INT64_MIN;
    uint64_t sum = 0;

    for (uint32_t i = 0; i < labels; i++)
        most = i == 0 ? logits[0]
                      : (int64_t)select_u64(sign_mask64(most - logits[i]), (uint64_t)(int64_t)logits[i],
                                            (uint64_t)most);
    for (uint32_t i = 0; i < labels; i++) {
        int64_t d = most - logits[i];
        d = (int64_t)select_u64(sign_mask64(d - cap), (uint64_t)d, (uint64_t)cap);
        const int64_t u = (d * 94548) >> 16, f = u & 0xffff, shift = u >> 16;
        const uint64_t n =
            select_u64(sign_mask64(shift - 31), (uint64_t)shift, 31);
        int64_t p = fitted[5];
        for (uint32_t k = 5; k-- > 0;)
            p = fitted[k] - ((f * p) >> 16);
        scratch[i] = (uint32_t)p;
        for (uint32_t b = 0; b < 5; b++) /* >> n: small cores shift in a time that depends on n */
            scratch[i] = (uint32_t)select_u64((uint64_t)0 - (n >> b & 1), scratch[i] >> (1u << b),
                                              scratch[i]);
        sum += scratch[i];
    }
    for (uint32_t i = 0; i < labels; i++) {
        uint64_t rest = scratch[i], q = 0; /* rest <= sum, so q <= 2^16 */
        for (uint32_t b = 0; b <= 16; b++) {
            const uint64_t fits = ~sign_mask64((int64_t)(rest - sum));
            q = q << 1 | (fits & 1);
            rest = (rest - (sum & fits)) << 1;
        }
        probabilities[i] = (uint32_t)q;
    }
}
