/*
 * tensors.c - the package's plaintext on its way into memory, and the bounds
 * that the tensors decide.
 *
 * The stream is 32 random bytes, then the tensors of each layer in the order of
 * PARTS, little-endian, each padded with zeros to a multiple of 8 bytes. Element
 * sizes divide 8 and a chunk is a multiple of 8, so no element is ever cut.
 */
#include <stdlib.h>

#include "bytes.h"
#include "crypto.h"
#include "model.h"

enum part { PART_ADJACENCY, PART_WEIGHTS, PART_BIAS, PART_MULT, PART_EXTRA, PART_COUNT };

/* Order of the tensors of a layer; a tensor that the layer lacks has 0 elements. */
static const uint8_t PARTS[6][PART_COUNT] = {
    [LAYER_INPUT] = {PART_MULT, PART_BIAS, PART_ADJACENCY, PART_WEIGHTS, PART_EXTRA},
    [LAYER_GRAPH] = {PART_ADJACENCY, PART_WEIGHTS, PART_BIAS, PART_MULT, PART_EXTRA},
    [LAYER_RESIDUAL] = {PART_ADJACENCY, PART_WEIGHTS, PART_BIAS, PART_MULT, PART_EXTRA},
    [LAYER_TEMPORAL] = {PART_ADJACENCY, PART_WEIGHTS, PART_BIAS, PART_MULT, PART_EXTRA},
    [LAYER_POOL] = {PART_EXTRA, PART_MULT, PART_ADJACENCY, PART_WEIGHTS, PART_BIAS},
    [LAYER_FC] = {PART_ADJACENCY, PART_WEIGHTS, PART_BIAS, PART_MULT, PART_EXTRA},
};

static bool has_weights(const struct layer *l) {
    return l->kind != LAYER_INPUT && l->kind != LAYER_POOL;
}

static uint32_t part_elements(const struct model *m, const struct layer *l, uint32_t part) {
    switch (part) {
    case PART_ADJACENCY:
        return l->nnz;
    case PART_WEIGHTS:
        return has_weights(l) ? l->rows * l->depth : 0;
    case PART_BIAS:
        return l->kind == LAYER_POOL ? 0
               : l->kind == LAYER_INPUT || l->kind == LAYER_GRAPH ? m->joints * l->cout
                                                                  : l->cout;
    case PART_MULT:
        return l->kind == LAYER_POOL ? 1 : l->kind == LAYER_INPUT ? m->joints * l->cout : l->cout;
    default:
        return l->kind == LAYER_TEMPORAL ? 1 : l->kind == LAYER_POOL ? l->cin : 0;
    }
}

static uint32_t part_width(uint32_t part) {
    return part == PART_ADJACENCY ? 8 : part == PART_WEIGHTS ? 2 : 4;
}

static size_t round64(size_t n) {
    return (n + 63) & ~(size_t)63;
}

static size_t weights_bytes(const struct layer *l) {
    return has_weights(l) ? round64((size_t)panels_of(l->rows) * l->depth * KERNEL_LANES * 2) : 0;
}

/* Sets the layers' pointers into base, or only counts where base is NULL. */
static size_t lay_out(struct model *m, uint8_t *base) {
    size_t at = 0;

    for (uint32_t i = 0; i < m->layer_count; i++) {
        struct layer *l = &m->layers[i];
        for (uint32_t part = 0; part < PART_COUNT; part++) {
            void *p = base == NULL ? NULL : base + at;
            if (part == PART_ADJACENCY)
                l->adjacency = p;
            else if (part == PART_WEIGHTS)
                l->weights = p;
            else if (part == PART_BIAS)
                l->bias = p;
            else if (part == PART_MULT)
                l->mult = p;
            else
                l->extra = p;
            at += part == PART_WEIGHTS ? weights_bytes(l)
                                       : round64((size_t)part_elements(m, l, part) * part_width(part));
        }
    }
    return at;
}

enum edged_status model_allocate(struct model *m) {
    m->tensor_bytes = lay_out(m, NULL);
    m->tensors = calloc(1, m->tensor_bytes); /* lanes past the last row stay 0 */
    if (m->tensors == NULL)
        return EDGED_ERR_MEMORY;
    (void)lay_out(m, m->tensors);
    return EDGED_OK;
}

void model_release(struct model *m) {
    if (m->tensors != NULL)
        crypto_wipe(m->tensors, m->tensor_bytes);
    free(m->tensors);
    crypto_wipe(m, sizeof(*m));
}

void tensor_stream_begin(struct tensor_stream *t) {
    memset(t, 0, sizeof(*t));
    t->prefix = 32;
}

static void store_element(struct layer *l, uint32_t part, uint32_t e, const uint8_t *p) {
    switch (part) {
    case PART_ADJACENCY: {
        struct adjacency a = {p[0], p[1], p[2], p[3], as_i32(load_le32(p + 4))};
        l->adjacency[e] = a;
        break;
    }
    case PART_WEIGHTS:
        l->weights[panel_index(e / l->depth, e % l->depth, l->depth)] = (int16_t)load_le16(p);
        break;
    case PART_BIAS:
        l->bias[e] = as_i32(load_le32(p));
        break;
    case PART_MULT:
        l->mult[e] = as_i32(load_le32(p));
        break;
    default:
        l->extra[e] = as_i32(load_le32(p));
        break;
    }
}

/* Step over finished and empty tensors. */
static void settle(struct tensor_stream *t, const struct model *m) {
    while (t->layer < m->layer_count && t->padding == 0) {
        const struct layer *l = &m->layers[t->layer];
        uint32_t part = PARTS[l->kind][t->part];
        uint32_t n = part_elements(m, l, part);
        if (t->element < n)
            return;
        t->padding = t->element == 0 ? 0 : (8 - n * part_width(part) % 8) % 8;
        t->element = 0;
        if (++t->part == PART_COUNT) {
            t->part = 0;
            t->layer++;
        }
    }
}

enum edged_status tensor_stream_write(struct tensor_stream *t, struct model *m, const uint8_t *data,
                                      size_t size_bytes) {
    size_t at = t->prefix < size_bytes ? t->prefix : size_bytes;

    t->prefix -= (uint32_t)at;
    while (at < size_bytes) {
        settle(t, m);
        if (t->padding != 0) {
            if (data[at++] != 0)
                return EDGED_ERR_PACKAGE;
            t->padding--;
            continue;
        }
        if (t->layer == m->layer_count)
            return EDGED_ERR_PACKAGE; /* bytes past the last tensor */
        struct layer *l = &m->layers[t->layer];
        uint32_t part = PARTS[l->kind][t->part], width = part_width(part);
        uint32_t left = part_elements(m, l, part) - t->element;
        for (; left != 0 && size_bytes - at >= width; left--, at += width)
            store_element(l, part, t->element++, data + at);
        if (left != 0 && at < size_bytes)
            return EDGED_ERR_PACKAGE; /* an element was cut */
    }
    settle(t, m);
    return EDGED_OK;
}

bool tensor_stream_done(const struct tensor_stream *t, const struct model *m) {
    return t->prefix == 0 && t->padding == 0 && t->layer == m->layer_count;
}

static uint64_t magnitude(int32_t v) {
    return v < 0 ? (uint64_t)0 - (uint64_t)(int64_t)v : (uint64_t)v;
}

/* max over the rows of in_max * sum_k |W[row][k]| + |bias|; *products without bias. */
static uint64_t row_bound(const struct model *m, const struct layer *l, uint32_t in_max,
                          uint64_t *products) {
    uint64_t most = 0;

    *products = 0;
    for (uint32_t row = 0; row < l->rows; row++) {
        uint64_t sum = 0, bias = 0;
        for (uint32_t k = 0; k < l->depth; k++)
            sum += magnitude(l->weights[panel_index(row, k, l->depth)]);
        sum *= in_max;
        *products = sum > *products ? sum : *products;
        if (l->kind != LAYER_GRAPH)
            bias = magnitude(l->bias[row]);
        else if (l->order == ORDER_BEFORE)
            for (uint32_t v = 0; v < m->joints; v++) {
                uint64_t b = magnitude(l->bias[v * l->cout + row]);
                bias = b > bias ? b : bias;
            }
        most = sum + bias > most ? sum + bias : most;
    }
    return most;
}

/* Entries in range, in strictly rising order (k, w, v), none 0. */
static bool adjacency_in_order(const struct model *m, const struct layer *l) {
    uint32_t next = 0;

    for (uint32_t i = 0; i < l->nnz; i++) {
        const struct adjacency *a = &l->adjacency[i];
        uint32_t at = (a->k * m->joints + a->w) * m->joints + a->v;
        if (a->k >= m->partitions || a->v >= m->joints || a->w >= m->joints || a->reserved != 0 ||
            a->a == 0 || at < next)
            return false;
        next = at + 1;
    }
    return true;
}

/*
 * before: in_max * sum_v |a[k,v,w]| < 2^31 for each (k, w)
 * after:  for each w, with A = sum_{k,v} |a[k,v,w]|: A < 2^31 (so that no answer of the
 *         accelerator, honest or not, overflows 64 bits), A * max|p| < 2^62, and
 *         (A * max|p| >> adj_shift) + 1 + |bias| < 2^31
 */
static bool adjacency_in_bound(const struct model *m, const struct layer *l, uint64_t p_max) {
    uint64_t after[EVAL_JOINTS_MAX] = {0}, before = 0;

    for (uint32_t i = 0; i < l->nnz; i++) {
        const struct adjacency *a = &l->adjacency[i];
        const struct adjacency *last = i == 0 ? NULL : a - 1;
        if (last == NULL || last->k != a->k || last->w != a->w)
            before = 0;
        before += magnitude(a->a);
        after[a->w] += magnitude(a->a);
        if (l->order == ORDER_BEFORE && before * l->in_max > INT32_MAX)
            return false;
    }
    for (uint32_t w = 0; l->order == ORDER_AFTER && w < m->joints; w++) {
        uint64_t sum = after[w] * p_max;
        if (after[w] > INT32_MAX || sum >= (uint64_t)1 << 62)
            return false;
        for (uint32_t o = 0; o < l->cout; o++)
            if ((sum >> l->adj_shift) + 1 + magnitude(l->bias[w * l->cout + o]) > INT32_MAX)
                return false;
    }
    return true;
}

enum edged_status model_check_bounds(const struct model *m) {
    for (uint32_t i = 0; i < m->layer_count; i++) {
        const struct layer *l = &m->layers[i];
        uint64_t products = 0, most = 0;

        for (uint32_t e = 0; e < part_elements(m, l, PART_MULT); e++)
            if (l->mult[e] == INT32_MIN)
                return EDGED_ERR_PACKAGE;
        if (has_weights(l)) {
            bool before = l->kind == LAYER_GRAPH && l->order == ORDER_BEFORE;
            most = row_bound(m, l, before ? l->adj_max : l->in_max, &products);
        }
        if (l->kind == LAYER_INPUT)
            for (uint32_t e = 0; e < m->joints * 3; e++) {
                uint64_t b = magnitude(l->bias[e]) + 32768 * 256;
                most = b > most ? b : most;
            }
        if (l->kind == LAYER_POOL)
            for (uint32_t c = 0; c < l->cin; c++)
                if (magnitude(l->extra[c]) > (uint64_t)l->frames_in * m->joints * l->in_max)
                    return EDGED_ERR_PACKAGE;
        if (l->kind == LAYER_TEMPORAL &&
            (l->extra[0] == INT32_MIN || (l->residual == RESIDUAL_NONE && l->extra[0] != 0)))
            return EDGED_ERR_PACKAGE;
        if (most > INT32_MAX || products > INT32_MAX)
            return EDGED_ERR_PACKAGE;
        if (l->kind == LAYER_GRAPH && (!adjacency_in_order(m, l) || !adjacency_in_bound(m, l, products)))
            return EDGED_ERR_PACKAGE;
    }
    return EDGED_OK;
}
