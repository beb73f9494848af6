#include "walk.h"

#include <string.h>

#include "accelerator.h"
#include "ct.h"
#include "vector.h"

enum edged_status walk_read(struct model *m, const uint8_t *manifest, size_t manifest_bytes, const uint8_t *stream,
                            size_t stream_bytes, size_t chunk) {
    struct tensor_stream t;
    enum edged_status status = model_read_manifest(m, manifest, manifest_bytes);

    if (status == EDGED_OK)
        status = model_allocate(m);
    tensor_stream_begin(&t);
    for (size_t at = 0; at < stream_bytes && status == EDGED_OK; at += chunk)
        status = tensor_stream_write(&t, m, stream + at, stream_bytes - at < chunk ? stream_bytes - at : chunk);
    if (status == EDGED_OK && !tensor_stream_done(&t, m))
        status = EDGED_ERR_PACKAGE;
    return status == EDGED_OK ? model_check_bounds(m) : status;
}

static void see(const struct walk *w, const char *what, uint32_t index, const void *bytes, size_t size_bytes) {
    if (w->see != NULL)
        w->see(w, what, index, bytes, size_bytes);
}

/* A whole object, tile after tile. */
static uint32_t *collect(struct walk *w, enum network_flow flow, uint32_t product, uint32_t persons) {
    struct network *n = &w->network;
    const size_t size = (size_t)network_object_words(n, flow, product, persons) * 4;
    uint8_t *object = malloc(size + 1), *at = object;

    CHECK(object != NULL, "object");
    for (uint32_t tile = 0; tile < network_tiles(n, flow, product, persons); tile++) {
        const uint32_t *words;
        const size_t bytes = network_tile_words(n, flow, product, tile) * 4;
        CHECK(network_produce(n, flow, product, tile, &words) == 0, "produce");
        memcpy(at, words, bytes);
        at += bytes;
    }
    CHECK(at == object + size, "the tiles of flow %d, product %u are its object", flow, product);
    return (uint32_t *)(void *)object;
}

enum edged_status walk_load(struct walk *w, struct model *m, enum eval_placement placement,
                            const struct kernel *kernel, struct prg *prg, uint64_t load) {
    enum edged_status status = network_create(&w->network, m, placement, kernel, prg, load);

    if (status != EDGED_OK || placement == EVAL_ENCLAVE)
        return status;
    for (uint32_t p = 0; p < m->product_count; p++) {
        w->wbar[p] = collect(w, FLOW_WEIGHTS, p, 0);
        see(w, "wbar", p, w->wbar[p], (size_t)network_object_words(&w->network, FLOW_WEIGHTS, p, 0) * 4);
    }
    return EDGED_OK;
}

static void release(uint32_t *objects[EVAL_LAYERS_MAX]) {
    for (uint32_t p = 0; p < EVAL_LAYERS_MAX; p++) {
        free(objects[p]);
        objects[p] = NULL;
    }
}

void walk_unload(struct walk *w) {
    release(w->wbar);
    network_release(&w->network);
}

/* One product's ybar from outside, taken in tile by tile. */
static void take(struct walk *w, uint32_t product) {
    struct network *n = &w->network;
    const struct layer *l = network_product(n, product);
    const uint8_t *at = NULL;
    uint32_t *ybar = NULL;

    if (n->placement != EVAL_ENCLAVE) {
        ybar = malloc((size_t)network_object_words(n, FLOW_Y, product, n->persons) * 4 + 1);
        CHECK(ybar != NULL, "ybar");
        accelerator_convolve(&l->outside, l->rows, l->frames_out, n->persons, w->wbar[product], w->xbar[product],
                             w->ahead[product], ybar);
        if (product == w->spoil_product)
            ybar[w->spoil_word] = (ybar[w->spoil_word] + w->spoil_add) ^ w->spoil_flip;
        at = (const uint8_t *)ybar;
    }
    for (uint32_t tile = 0; tile < network_tiles(n, FLOW_Y, product, n->persons); tile++) {
        const size_t bytes = network_tile_words(n, FLOW_Y, product, tile) * 4;
        if (at != NULL) { /* in two runs: a message need not end where a row does */
            const size_t cut = bytes / 8 * 4;
            network_accept(n, product, 0, at, cut);
            network_accept(n, product, cut, at + cut, bytes - cut);
            at += bytes;
        }
        CHECK(network_consume(n, product, tile) == 0, "consume");
    }
    free(ybar);
}

/* What the layer of a product wrote: the same for one person as for many. */
static void see_output(const struct walk *w, uint32_t product) {
    const struct network *n = &w->network;
    const struct layer *l = network_product(n, product);
    const size_t size = (size_t)l->frames_out * n->model->joints * l->cout * sizeof(int16_t);
    const bool apart = l->kind == LAYER_RESIDUAL && l->cout > l->stride * l->cin;

    for (uint32_t m = 0; m < n->persons; m++) {
        const int16_t *at = l->kind == LAYER_GRAPH ? n->g + m * n->g_person
                            : apart                ? n->r + m * n->r_person
                                                   : n->x + m * n->x_person;
        see(w, "output", product * EVAL_PERSONS_MAX + m, at, size);
    }
}

uint32_t walk_clip(struct walk *w, uint64_t invocation, uint32_t persons, bool ahead, const int16_t *coordinates,
                   int32_t logits[EVAL_LABELS_MAX], uint32_t probabilities[EVAL_LABELS_MAX]) {
    uint32_t step = 0;
    struct network *n = &w->network;
    const struct model *m = n->model;

    n->invocation = invocation;
    n->prepared = ahead;
    n->persons = persons;
    network_input(n, coordinates);
    for (uint32_t p = 0; p < m->product_count && ahead; p++) {
        w->ahead[p] = collect(w, FLOW_PREPARE, p, persons);
        see(w, "ahead", p, w->ahead[p], (size_t)network_object_words(n, FLOW_PREPARE, p, persons) * 4);
    }
    for (; step < m->step_count && persons != 0; step++) {
        const uint32_t first = m->step_product[step], end = m->step_product[step + 1];
        n->refused = 0;
        for (uint32_t p = first; p < end && n->placement != EVAL_ENCLAVE; p++) {
            w->xbar[p] = collect(w, FLOW_X, p, persons);
            see(w, "xbar", p, w->xbar[p], (size_t)network_object_words(n, FLOW_X, p, persons) * 4);
        }
        for (uint32_t p = first; p < end; p++) {
            take(w, p);
            see_output(w, p);
        }
        release(w->xbar);
        if (ct_public(n->refused != 0))
            break;
    }
    release(w->ahead);
    if (step < m->step_count && persons != 0)
        return step;
    network_output(n, logits, probabilities);
    see(w, "logits", 0, logits, m->labels * sizeof(*logits));
    see(w, "probabilities", 0, probabilities, m->labels * sizeof(*probabilities));
    return m->step_count;
}
