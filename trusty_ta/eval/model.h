/*
 * model.h - a loaded network: the layer table, its tensors, and the plan of the
 * memory that evaluating it takes.
 *
 * The formulas of the layers stand in layer.h and masked.h; the integer model as
 * a whole in edged/model/reference.py.
 */
#ifndef EDGED_MODEL_H
#define EDGED_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "edged_wire.h"
#include "kernel.h"

enum layer_kind {
    LAYER_INPUT = 0,
    LAYER_GRAPH = 1,
    LAYER_RESIDUAL = 2,
    LAYER_TEMPORAL = 3,
    LAYER_POOL = 4,
    LAYER_FC = 5
};

enum { ORDER_BEFORE = 0, ORDER_AFTER = 1 };               /* adjacency against 1x1 convolution */
enum { RESIDUAL_NONE = 0, RESIDUAL_IDENTITY = 1, RESIDUAL_CONV = 2 };

#define ACTIVATION_MAX 32767
#define LOGIT_MAX (1 << 30)

/** struct adjacency - one non-zero of the adjacency, in the order (k, w, v) */
struct adjacency {
    uint8_t k; /* partition */
    uint8_t v; /* from joint */
    uint8_t w; /* to joint */
    uint8_t reserved;
    int32_t a;
};
static_assert(sizeof(struct adjacency) == 8, "adjacency");

/** struct layer - one row of the table, what follows from it, its tensors */
struct layer {
    uint32_t kind;
    uint32_t cin;
    uint32_t cout;
    uint32_t taps;
    uint32_t stride;
    uint32_t order;
    uint32_t residual;
    uint32_t in_max;
    uint32_t out_max;
    uint32_t shift;
    uint32_t adj_max;
    uint32_t adj_shift;
    uint32_t nnz;

    uint32_t frames_in;
    uint32_t frames_out;
    uint32_t rows;       /* of the weight matrix */
    uint32_t depth;      /* its columns, K */
    struct conv inside;  /* the product over x as it lies in the enclave */
    struct conv outside; /* the same over xbar: a strided 1x1 sends only what it uses */
    uint32_t tile;       /* frames of y at a time */

    struct adjacency *adjacency; /* [nnz] */
    int16_t *weights;            /* panels [rows / 16 rounded up][depth][16], 0 past the last row */
    int32_t *bias;               /* [rows], GRAPH [joints][cout], INPUT [joints][3] */
    int32_t *mult;               /* [cout], INPUT [joints][3], POOL [1] */
    int32_t *extra;              /* TEMPORAL res_mult [1], POOL empty [cin] */
};

/** struct label - what a score is called; longer ones keep their head and are never a rule's */
struct label {
    uint8_t bytes; /* of the whole label */
    uint8_t text[EDGED_LABEL_MAX];
};
static_assert(sizeof(struct label) == 1 + EDGED_LABEL_MAX, "compared as bytes");

/** struct model - see the file's head */
struct model {
    uint32_t persons;
    uint32_t frames;
    uint32_t joints;
    uint32_t partitions;
    uint32_t labels;
    uint32_t placements; /* bit mask over enum eval_placement, signed by the owner */
    uint32_t chunks;     /* of the package */
    uint8_t digest[32];  /* of the package's plaintext */
    uint8_t key_id[16];
    uint8_t salt[32];
    uint32_t version;
    uint32_t id_bytes;
    uint8_t id[64];
    uint8_t owner[32]; /* verification key of who signed it (load.c) */
    struct label label[EVAL_LABELS_MAX];

    uint32_t layer_count;
    uint32_t product_count;
    uint32_t step_count;
    uint8_t product_layer[EVAL_LAYERS_MAX]; /* product -> layer, rising */
    uint8_t product_step[EVAL_LAYERS_MAX];  /* product -> step */
    uint8_t step_product[EVAL_LAYERS_MAX + 1]; /* step -> its first product */
    struct layer layers[EVAL_LAYERS_MAX];

    size_t tensor_bytes; /* memory of all tensors; they lie in one block */
    uint8_t *tensors;
};

/*
 * Read a manifest (deterministic CBOR) into *m, prove every bound that the table
 * alone decides, derive shapes. Allocates nothing. EDGED_OK or EDGED_ERR_PACKAGE.
 */
enum edged_status model_read_manifest(struct model *m, const uint8_t *manifest, size_t size_bytes);

/* Lay out and allocate the tensors. EDGED_OK or EDGED_ERR_MEMORY. */
enum edged_status model_allocate(struct model *m);
void model_release(struct model *m);

/*
 * The package's plaintext, strictly in order. Tensors are written to their
 * places as they arrive; nothing else of the stream is kept.
 */
struct tensor_stream {
    uint32_t layer;
    uint32_t part;   /* which tensor of the layer */
    uint32_t element;
    uint32_t padding; /* zero bytes due after the tensor */
    uint32_t prefix; /* random bytes at the head still due */
};
void tensor_stream_begin(struct tensor_stream *t);
enum edged_status tensor_stream_write(struct tensor_stream *t, struct model *m, const uint8_t *data,
                                      size_t size_bytes);
bool tensor_stream_done(const struct tensor_stream *t, const struct model *m);

/*
 * Prove every bound that the tensors decide. EDGED_OK or EDGED_ERR_PACKAGE. Its
 * branches depend on weights: once per load, on what the owner signed.
 */
enum edged_status model_check_bounds(const struct model *m);

static inline uint32_t panels_of(uint32_t rows) {
    return (rows + KERNEL_LANES - 1) / KERNEL_LANES;
}

/* Element [row][k] of a panel layout. */
static inline size_t panel_index(uint32_t row, uint32_t k, uint32_t depth) {
    return ((size_t)(row / KERNEL_LANES) * depth + k) * KERNEL_LANES + row % KERNEL_LANES;
}

#endif
