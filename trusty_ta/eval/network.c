#include "network.h"

#include <stdlib.h>

#include "bytes.h"
#include "crypto.h"
#include "field61.h"
#include "layer.h"
#include "masked.h"

/* In sanitizer builds the block's buffers have poisoned gaps between them, so that
 * an overflow from one into the next is seen. */
#ifdef EDGED_SANITIZE
#include <sanitizer/asan_interface.h>
#define GAP_BYTES ((size_t)64)
#else
#define ASAN_POISON_MEMORY_REGION(at, size) ((void)(at), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(at, size) ((void)(at), (void)(size))
#define GAP_BYTES ((size_t)0)
#endif

/* A tile's buffers aim at this size: they stay in a core's second-level cache. */
#define TILE_BYTES (512u * 1024u)

const struct layer *network_product(const struct network *n, uint32_t product) {
    return &n->model->layers[n->model->product_layer[product]];
}

static bool mixes(const struct layer *l) {
    return l->kind == LAYER_GRAPH && l->order == ORDER_BEFORE;
}

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

/* Bytes of a tile of `frames` frames: y, mix, words. */
static void tile_sizes(const struct layer *l, uint32_t frames, size_t *y, size_t *mix, size_t *words) {
    const struct conv *o = &l->outside;
    size_t positions = (size_t)frames * o->joints, rows = (size_t)panels_of(l->rows) * KERNEL_LANES;
    size_t span = (size_t)(frames - 1) * o->stride + o->taps; /* R1 behind the tile */

    *y = positions * rows * 4;
    *mix = mixes(l) ? positions * l->depth * 2 : 0;
    *words = larger(span * o->joints * o->channels, positions * l->rows) * 4; /* R1, or the pad */
}

/* Frames a tile: as many as fit TILE_BYTES and the bound of the check's sums. */
static uint32_t plan_tile(const struct layer *l) {
    uint32_t frames = 1;
    size_t y, mix, words;

    for (; frames < l->outside.frames_in || frames < l->frames_out; frames++) {
        tile_sizes(l, frames + 1, &y, &mix, &words);
        if (y + mix + words > TILE_BYTES || (frames + 1) * l->outside.joints > F61_TILE_POSITIONS)
            break;
    }
    return frames;
}

/* One buffer of the block: sets *p (where the block exists) and steps on. */
static void place(void *p, uint8_t *block, size_t *at, size_t size_bytes) {
    const size_t next = ((*at + size_bytes + 63) & ~(size_t)63) + GAP_BYTES;

    if (block != NULL) {
        void *q = block + *at;
        memcpy(p, &q, sizeof(q)); /* any pointer type */
        ASAN_POISON_MEMORY_REGION(block + *at + size_bytes, next - *at - size_bytes);
    }
    *at = next;
}

static size_t lay_out(struct network *n, uint8_t *block) {
    struct model *m = n->model;
    const size_t v = m->joints;
    size_t at = 0, y = 0, mix = 0, words = 0, depth = 0, rows = 0, tile = 0, channels = 0;
    size_t clip = sizeof(struct edged_clip) + (size_t)m->persons * m->frames * v * 6 + EVAL_TAG_BYTES;

    n->x_person = m->frames * v * 3;
    n->g_person = n->r_person = 0;
    for (uint32_t i = 0; i < m->layer_count; i++) {
        struct layer *l = &m->layers[i];
        size_t out = l->frames_out * v * l->cout, ty, tm, tw;
        channels = larger(channels, l->cout > l->cin ? l->cout : l->cin);
        if (l->kind == LAYER_FC) {
            rows = larger(rows, (size_t)panels_of(l->rows) * KERNEL_LANES);
            depth = larger(depth, l->depth);
        }
        if (l->kind < LAYER_GRAPH || l->kind > LAYER_TEMPORAL)
            continue;
        /* r may overwrite x when frame j of r ends no later than frame j stride of x begins */
        if (l->kind == LAYER_GRAPH)
            n->g_person = larger(n->g_person, out);
        else if (l->kind == LAYER_TEMPORAL || l->cout <= l->stride * l->cin)
            n->x_person = larger(n->x_person, out);
        else
            n->r_person = larger(n->r_person, out);
        l->tile = plan_tile(l);
        tile_sizes(l, l->tile, &ty, &tm, &tw);
        y = larger(y, ty);
        mix = larger(mix, tm);
        words = larger(words, tw);
        depth = larger(depth, l->depth);
        rows = larger(rows, (size_t)panels_of(l->rows) * KERNEL_LANES);
        tile = larger(tile, (size_t)l->tile * v);
    }
    place(&n->x, block, &at, m->persons * n->x_person * 2);
    place(&n->g, block, &at, larger(m->persons * n->g_person * 2, clip));
    place(&n->r, block, &at, m->persons * n->r_person * 2);
    place(&n->y, block, &at, larger(y, rows * 4));
    /* also 16 rows of wbar, and the soft-max's scratch */
    place(&n->words, block, &at, larger(words, larger(depth * KERNEL_LANES, rows) * 4));
    place(&n->panel, block, &at, depth * KERNEL_LANES * 4);
    place(&n->mix, block, &at, larger(mix, channels * 2));
    place(&n->xs_lo, block, &at, depth * 8);
    place(&n->xs_hi, block, &at, depth * 8);
    place(&n->z_lo, block, &at, depth * 4);
    place(&n->z_hi, block, &at, depth * 4);
    place(&n->ys_0, block, &at, rows * 8);
    place(&n->ys_1, block, &at, rows * 8);
    place(&n->ys_2, block, &at, rows * 8);
    place(&n->ys, block, &at, rows * 8);
    place(&n->s, block, &at, tile * 8);
    place(&n->wide, block, &at, channels * 4);
    place(&n->wide64, block, &at, channels * 8);
    return at;
}

enum edged_status network_create(struct network *n, struct model *m, enum eval_placement placement,
                                 const struct kernel *kernel, struct prg *prg, uint64_t load) {
    memset(n, 0, sizeof(*n));
    n->model = m;
    n->kernel = kernel;
    n->prg = prg;
    n->placement = placement;
    n->load = load;
    n->block_bytes = lay_out(n, NULL);
    n->block = malloc(n->block_bytes);
    if (n->block == NULL)
        return EDGED_ERR_MEMORY;
    memset(n->block, 0, n->block_bytes);
    (void)lay_out(n, n->block);
    return EDGED_OK;
}

void network_release(struct network *n) {
    if (n->block != NULL) {
        ASAN_UNPOISON_MEMORY_REGION(n->block, n->block_bytes);
        crypto_wipe(n->block, n->block_bytes);
    }
    free(n->block);
    memset(n, 0, sizeof(*n));
}

/* Frames that a flow of a product runs over. */
static uint32_t flow_frames(const struct layer *l, enum network_flow flow) {
    return flow == FLOW_X ? l->outside.frames_in : l->frames_out;
}

/* Words of one frame in a flow. */
static size_t frame_words(const struct layer *l, enum network_flow flow) {
    return (size_t)l->inside.joints * (flow == FLOW_X ? l->inside.channels : l->rows);
}

/* Which person and frames a tile covers. */
static void tile_span(const struct layer *l, enum network_flow flow, uint32_t tile, uint32_t *person,
                      uint32_t *begin, uint32_t *end) {
    const uint32_t frames = flow_frames(l, flow), each = (frames + l->tile - 1) / l->tile;

    *person = tile / each;
    *begin = tile % each * l->tile;
    *end = *begin + l->tile < frames ? *begin + l->tile : frames;
}

uint32_t network_tiles(const struct network *n, enum network_flow flow, uint32_t product,
                       uint32_t persons) {
    const struct layer *l = network_product(n, product);

    if (flow == FLOW_WEIGHTS)
        return panels_of(l->rows);
    return persons * ((flow_frames(l, flow) + l->tile - 1) / l->tile);
}

size_t network_tile_words(const struct network *n, enum network_flow flow, uint32_t product,
                          uint32_t tile) {
    const struct layer *l = network_product(n, product);
    uint32_t person, begin, end;

    if (flow == FLOW_WEIGHTS) {
        uint32_t left = l->rows - tile * KERNEL_LANES;
        return (size_t)(left < KERNEL_LANES ? left : KERNEL_LANES) * l->depth;
    }
    tile_span(l, flow, tile, &person, &begin, &end);
    return (end - begin) * frame_words(l, flow);
}

uint64_t network_object_words(const struct network *n, enum network_flow flow, uint32_t product,
                              uint32_t persons) {
    const struct layer *l = network_product(n, product);

    if (flow == FLOW_WEIGHTS)
        return (uint64_t)l->rows * l->depth;
    return (uint64_t)persons * flow_frames(l, flow) * frame_words(l, flow);
}

/* x of frames begin .. end of one person as product reads it; *first: the frame at the result. */
static const int16_t *product_input(struct network *n, const struct layer *l, uint32_t person,
                                    uint32_t begin, uint32_t end, uint32_t *first) {
    *first = 0;
    if (l->kind == LAYER_TEMPORAL)
        return n->g + person * n->g_person;
    const int16_t *x = n->x + person * n->x_person;
    if (!mixes(l))
        return x;
    *first = begin;
    layer_mix(n->kernel, l, end - begin, l->inside.joints, x + (size_t)begin * l->inside.joints * l->cin,
              n->mix, n->wide);
    return n->mix;
}

static int produce_weights(struct network *n, uint32_t product, uint32_t tile) {
    const struct layer *l = network_product(n, product);
    const size_t rows = network_tile_words(n, FLOW_WEIGHTS, product, tile) / l->depth;

    if (masked_weights(n, product, tile) != 0)
        return -1;
    for (size_t r = 0; r < rows; r++)
        for (uint32_t k = 0; k < l->depth; k++)
            n->words[r * l->depth + k] = n->panel[(size_t)k * KERNEL_LANES + r];
    return 0;
}

static int produce_x(struct network *n, uint32_t product, uint32_t tile) {
    const struct layer *l = network_product(n, product);
    const size_t frame = frame_words(l, FLOW_X);
    uint32_t person, begin, end, first;

    tile_span(l, FLOW_X, tile, &person, &begin, &end);
    const uint64_t index = ((uint64_t)person * l->outside.frames_in + begin) * frame;
    const int16_t *x = product_input(n, l, person, begin, end, &first);
    if (l->kind != LAYER_RESIDUAL)
        return masked_hide(n, product, index, x + (begin - first) * frame, n->words,
                           (end - begin) * frame);
    for (uint32_t t = begin; t < end; t++) /* only the frames that the stride uses */
        if (masked_hide(n, product, index + (t - begin) * frame, x + (size_t)t * l->stride * frame,
                        n->words + (t - begin) * frame, frame) != 0)
            return -1;
    return 0;
}

int network_produce(struct network *n, enum network_flow flow, uint32_t product, uint32_t tile,
                    const uint32_t **words) {
    uint32_t person, begin, end;

    *words = n->words;
    if (flow == FLOW_WEIGHTS)
        return produce_weights(n, product, tile);
    if (flow == FLOW_X)
        return produce_x(n, product, tile);
    *words = n->y;
    tile_span(network_product(n, product), flow, tile, &person, &begin, &end);
    return masked_prepare(n, product, person, begin, end);
}

void network_accept(struct network *n, uint32_t product, size_t at, const uint8_t *bytes,
                    size_t size_bytes) {
    const struct layer *l = network_product(n, product);
    const size_t row = (size_t)l->rows * 4, stride = (size_t)panels_of(l->rows) * KERNEL_LANES * 4;

    while (size_bytes != 0) {
        size_t within = at % row, run = row - within < size_bytes ? row - within : size_bytes;
        memcpy((uint8_t *)n->y + at / row * stride + within, bytes, run);
        at += run;
        bytes += run;
        size_bytes -= run;
    }
}

int network_consume(struct network *n, uint32_t product, uint32_t tile) {
    const struct layer *l = network_product(n, product);
    const uint32_t joints = l->inside.joints, stride = panels_of(l->rows) * KERNEL_LANES;
    uint32_t person, begin, end, first;

    tile_span(l, FLOW_Y, tile, &person, &begin, &end);
    const uint32_t positions = (end - begin) * joints;
    const int16_t *x = product_input(n, l, person, begin, end, &first);
    const size_t out = (size_t)begin * joints * l->cout;
    int16_t *block = n->x + person * n->x_person;

    if (n->placement == EVAL_ENCLAVE)
        memset(n->y, 0, (size_t)positions * stride * sizeof(*n->y));
    if (tile == 0)
        masked_check_begin(n, product);
    if (masked_reveal(n, product, person, begin, end, x, first) != 0)
        return -1;
    if (n->placement != EVAL_ENCLAVE) {
        if (masked_check_fold(n, product, person, begin, end, x, first) != 0)
            return -1;
        if (tile == network_tiles(n, FLOW_Y, product, n->persons) - 1)
            masked_check_end(n, product);
    }
    if (l->kind == LAYER_GRAPH) {
        layer_graph(n->kernel, l, end - begin, joints, n->y, stride, n->g + person * n->g_person + out,
                    (uint32_t *)(void *)n->wide, n->wide64);
    } else if (l->kind == LAYER_RESIDUAL) {
        int16_t *r = l->cout <= l->stride * l->cin ? block : n->r + person * n->r_person;
        layer_residual(n->kernel, l, positions, n->y, stride, r + out);
    } else {
        const struct layer *before = l - 1; /* RESIDUAL, where the row says so */
        const bool apart = l->residual == RESIDUAL_CONV && before->cout > before->stride * before->cin;
        const int16_t *r = apart ? n->r + person * n->r_person : block;
        layer_temporal(n->kernel, l, positions, n->y, stride, r + out, block + out);
    }
    return 0;
}

void network_input(struct network *n, const int16_t *coordinates) {
    const struct model *m = n->model;

    for (uint32_t p = 0; p < n->persons; p++)
        layer_input(&m->layers[0], m->frames, m->joints,
                    coordinates + (size_t)p * m->frames * m->joints * 3, n->x + p * n->x_person);
}

void network_output(struct network *n, int32_t logits[EVAL_LABELS_MAX],
                    uint32_t probabilities[EVAL_LABELS_MAX]) {
    const struct layer *pool = &n->model->layers[n->model->layer_count - 2], *fc = pool + 1;
    const struct conv shape = {
        .taps = 1, .stride = 1, .channels = fc->cin, .joints = 1, .frames_in = 1};

    layer_pool(pool, n, n->mix);
    memset(n->y, 0, (size_t)panels_of(fc->rows) * KERNEL_LANES * sizeof(*n->y));
    for (uint32_t panel = 0; panel < panels_of(fc->rows); panel++) {
        const int16_t *w = fc->weights + (size_t)panel * fc->depth * KERNEL_LANES;
        for (size_t i = 0; i < (size_t)fc->depth * KERNEL_LANES; i++)
            n->panel[i] = word_of(w[i]);
        n->kernel->conv_i16(&shape, n->panel, n->mix, 0, 0, 1, n->y + (size_t)panel * KERNEL_LANES,
                            panels_of(fc->rows) * KERNEL_LANES, false);
    }
    layer_logits(fc, n->y, logits);
    layer_softmax(logits, fc->cout, probabilities, n->words);
}
