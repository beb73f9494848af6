/*
 * manifest.c - the signed manifest: its CBOR, the layer table, and every bound
 * that the table decides. A table is accepted only as INPUT, then blocks of
 * GRAPH, [RESIDUAL], TEMPORAL, then POOL, FC, each reading what the one before
 * it wrote. The owner's tool refuses more (labels that come twice, a dearer order
 * of the adjacency, one without entries): unwise, but safe in here.
 */
#include "bytes.h"
#include "cbor.h"
#include "model.h"

static bool within(uint32_t v, uint32_t least, uint32_t most) {
    return v >= least && v <= most;
}

static void read_row(struct cbor_reader *r, struct layer *l) {
    uint32_t *fields[13] = {&l->kind,     &l->cin,    &l->cout,    &l->taps,  &l->stride,
                            &l->order,    &l->residual, &l->in_max, &l->out_max, &l->shift,
                            &l->adj_max,  &l->adj_shift, &l->nnz};

    (void)cbor_read_array(r, 13, 13);
    for (uint32_t i = 0; i < 13; i++)
        *fields[i] = (uint32_t)cbor_read_uint(r, UINT32_MAX);
}

static void read_manifest(struct cbor_reader *r, struct model *m) {
    size_t n, count;
    const uint8_t *s;

    cbor_expect_map(r, 16);
    cbor_expect_text(r, "form");
    cbor_expect_text(r, "clip");
    cbor_expect_text(r, "salt");
    s = cbor_read_bytes(r, 32, 32, &n);
    memcpy(m->salt, s, n);
    cbor_expect_text(r, "chunks");
    m->chunks = (uint32_t)cbor_read_uint(r, 65536);
    cbor_expect_text(r, "digest");
    s = cbor_read_bytes(r, 32, 32, &n);
    memcpy(m->digest, s, n);
    cbor_expect_text(r, "frames");
    m->frames = (uint32_t)cbor_read_uint(r, EVAL_FRAMES_MAX);
    cbor_expect_text(r, "joints");
    m->joints = (uint32_t)cbor_read_uint(r, EVAL_JOINTS_MAX);
    cbor_expect_text(r, "key_id");
    s = cbor_read_bytes(r, 16, 16, &n);
    memcpy(m->key_id, s, n);
    cbor_expect_text(r, "labels");
    m->labels = (uint32_t)cbor_read_array(r, 1, EVAL_LABELS_MAX);
    for (uint32_t i = 0; i < m->labels; i++) {
        s = cbor_read_text(r, 1, 64, &n);
        m->label[i].bytes = (uint8_t)n;
        memcpy(m->label[i].text, s, n < EDGED_LABEL_MAX ? n : EDGED_LABEL_MAX);
    }
    cbor_expect_text(r, "layers");
    count = cbor_read_array(r, 5, EVAL_LAYERS_MAX);
    for (size_t i = 0; i < count; i++)
        read_row(r, &m->layers[i]);
    m->layer_count = (uint32_t)count;
    cbor_expect_text(r, "schema");
    if (cbor_read_uint(r, 1) != 1)
        r->failed = true;
    cbor_expect_text(r, "persons");
    m->persons = (uint32_t)cbor_read_uint(r, EVAL_PERSONS_MAX);
    cbor_expect_text(r, "version");
    m->version = (uint32_t)cbor_read_uint(r, UINT32_MAX);
    cbor_expect_text(r, "model_id");
    s = cbor_read_text(r, 1, sizeof(m->id), &n);
    memcpy(m->id, s, n);
    m->id_bytes = (uint32_t)n;
    cbor_expect_text(r, "skeleton");
    (void)cbor_read_text(r, 1, 64, &n);
    cbor_expect_text(r, "partitions");
    m->partitions = (uint32_t)cbor_read_uint(r, EVAL_PARTITIONS_MAX);
    cbor_expect_text(r, "placements");
    m->placements = (uint32_t)cbor_read_uint(r, 7);
}

/* A field that its kind of layer does not use must be 0. */
static bool unused_are_zero(const struct layer *l) {
    bool conv = l->kind == LAYER_RESIDUAL || l->kind == LAYER_TEMPORAL;
    bool graph = l->kind == LAYER_GRAPH;

    return ((l->taps | l->stride) == 0 || conv || graph) && (l->residual == 0 || l->kind == LAYER_TEMPORAL) &&
           ((l->order | l->adj_shift | l->nnz) == 0 || graph) &&
           (l->adj_max == 0 || (graph && l->order == ORDER_BEFORE));
}

/* Shapes of a product from its row. */
static void derive_product(struct layer *l, const struct model *m) {
    struct conv *in = &l->inside, *out = &l->outside;

    in->taps = l->taps;
    in->stride = l->stride;
    in->pad = (l->taps - 1) / 2;
    in->channels = l->depth / l->taps;
    in->joints = m->joints;
    in->frames_in = l->frames_in;
    *out = *in;
    if (l->kind == LAYER_RESIDUAL) {
        out->stride = 1;
        out->frames_in = l->frames_out;
    }
}

static bool check_layer(struct model *m, uint32_t i, uint32_t *block_cin, uint32_t *block_max,
                        uint32_t *block_frames) {
    struct layer *l = &m->layers[i];
    const struct layer *before = i == 0 ? NULL : &m->layers[i - 1];
    uint32_t previous = i == 0 ? LAYER_POOL : before->kind;
    bool last = i == m->layer_count - 1, act = within(l->out_max, 1, ACTIVATION_MAX);

    if (!within(l->cin, 1, EVAL_CHANNELS_MAX) || !within(l->cout, 1, EVAL_CHANNELS_MAX) ||
        !within(l->shift, 1, 62) || !unused_are_zero(l) || (l->kind == LAYER_FC) != last)
        return false;
    l->frames_in = *block_frames;
    l->frames_out = l->frames_in;
    l->rows = l->cout;
    l->depth = l->cin;
    switch (l->kind) {
    case LAYER_INPUT:
        if (i != 0 || l->cin != 3 || l->cout != 3 || l->in_max != ACTIVATION_MAX || !act)
            return false;
        *block_cin = 3;
        *block_max = l->out_max;
        return true;
    case LAYER_GRAPH:
        if ((previous != LAYER_INPUT && previous != LAYER_TEMPORAL) || l->cin != *block_cin ||
            l->in_max != *block_max || !act || l->taps != 1 || l->stride != 1 ||
            l->order > ORDER_AFTER || !within(l->adj_shift, 1, 62) ||
            l->nnz > m->partitions * m->joints * m->joints ||
            (l->order == ORDER_BEFORE && !within(l->adj_max, 1, ACTIVATION_MAX)))
            return false;
        if (l->order == ORDER_BEFORE)
            l->depth = m->partitions * l->cin;
        else
            l->rows = m->partitions * l->cout;
        break;
    case LAYER_RESIDUAL:
        if (previous != LAYER_GRAPH || l->cin != *block_cin || l->in_max != *block_max || !act ||
            l->cout != before->cout || l->taps != 1 || !within(l->stride, 1, EVAL_STRIDE_MAX))
            return false;
        l->frames_out = (l->frames_in - 1) / l->stride + 1;
        break;
    case LAYER_TEMPORAL: {
        const struct layer *graph = previous == LAYER_RESIDUAL && i >= 2 ? before - 1 : before;
        if (i == 0 || graph->kind != LAYER_GRAPH || (l->residual == RESIDUAL_CONV) != (previous == LAYER_RESIDUAL) ||
            l->residual > RESIDUAL_CONV || l->cin != graph->cout || l->cout != l->cin ||
            l->in_max != graph->out_max || !act || !within(l->taps, 1, EVAL_TAPS_MAX) || l->taps % 2 == 0 ||
            !within(l->stride, 1, EVAL_STRIDE_MAX) ||
            (previous == LAYER_RESIDUAL && l->stride != before->stride) ||
            (l->residual == RESIDUAL_IDENTITY && (l->stride != 1 || l->cout != *block_cin)))
            return false;
        l->frames_out = (l->frames_in - 1) / l->stride + 1;
        l->depth = l->taps * l->cin;
        *block_cin = l->cout;
        *block_max = l->out_max;
        *block_frames = l->frames_out;
        break;
    }
    case LAYER_POOL:
        return previous == LAYER_TEMPORAL && l->cin == *block_cin && l->cout == l->cin &&
               l->in_max == *block_max && act &&
               /* sum over persons, frames and joints */
               (uint64_t)m->persons * l->frames_in * m->joints * l->in_max <= INT32_MAX;
    case LAYER_FC:
        return previous == LAYER_POOL && l->cin == before->cin && l->cout == m->labels &&
               l->in_max == before->out_max && l->out_max == LOGIT_MAX;
    default:
        return false;
    }
    derive_product(l, m);
    m->product_layer[m->product_count] = (uint8_t)i;
    if (l->kind != LAYER_RESIDUAL) {
        m->step_product[m->step_count] = (uint8_t)m->product_count;
        m->step_count++;
    }
    m->product_step[m->product_count] = (uint8_t)(m->step_count - 1);
    m->product_count++;
    m->step_product[m->step_count] = (uint8_t)m->product_count;
    return true;
}

enum edged_status model_read_manifest(struct model *m, const uint8_t *manifest, size_t size_bytes) {
    struct cbor_reader r = {.data = manifest, .size = size_bytes};
    uint32_t block_cin = 0, block_max = 0, block_frames;

    memset(m, 0, sizeof(*m));
    read_manifest(&r, m);
    if (!cbor_done(&r) || m->chunks == 0 || m->frames == 0 || m->joints == 0 || m->persons == 0 ||
        m->partitions == 0 || m->placements == 0 ||
        (uint64_t)m->persons * m->frames * m->joints > EVAL_POSITIONS_MAX)
        return EDGED_ERR_PACKAGE;
    block_frames = m->frames;
    for (uint32_t i = 0; i < m->layer_count; i++)
        if (!check_layer(m, i, &block_cin, &block_max, &block_frames))
            return EDGED_ERR_PACKAGE;
    return EDGED_OK;
}
