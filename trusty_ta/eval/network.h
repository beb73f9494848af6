/*
 * network.h - a model being evaluated: its activations, its work buffers, and
 * the tiles in which everything is done.
 *
 * A step is GRAPH with the RESIDUAL that reads the same input, or TEMPORAL. Of
 * each of its products the enclave first gives xbar, tile by tile, then takes
 * ybar, tile by tile; a tile is `layer.tile` frames of one person. What crosses
 * how (messages or window) is dispatch.c's; here a tile is words in a buffer.
 */
#ifndef EDGED_NETWORK_H
#define EDGED_NETWORK_H

#include "model.h"
#include "prg.h"

/** enum network_flow - what a stream of tiles is */
enum network_flow {
    FLOW_WEIGHTS, /* out: wbar, 16 rows a tile */
    FLOW_PREPARE, /* out: U + pad */
    FLOW_X,       /* out: xbar */
    FLOW_Y        /* in: ybar */
};

/** struct network - see the file's head */
struct network {
    struct model *model;
    const struct kernel *kernel;
    struct prg *prg;
    enum eval_placement placement;
    uint64_t load;

    /* of the present invocation */
    uint64_t invocation;
    bool prepared;    /* U + pad were handed out ahead and come subtracted */
    uint32_t persons; /* present ones; absent ones are the constant `empty` */
    uint64_t refused; /* non-zero once a product of the step failed its check */

    /* activations, int16 [person][t][v][c] */
    int16_t *x; /* block input, then block output */
    int16_t *g; /* graph convolution's output; before that, the sealed clip */
    int16_t *r; /* residual; where it fits it overwrites x from the front */
    size_t x_person, g_person, r_person; /* elements */

    /* one tile */
    uint32_t *y;     /* [position][16 * panels] */
    uint32_t *words; /* R1, xbar, pad, or rows of wbar */
    uint32_t *panel; /* [depth][16] */
    int16_t *mix;    /* [position][depth]: adjacency applied to x */

    /* Freivalds' sums of the present product (masked.h) */
    int64_t *xs_lo, *xs_hi;    /* [depth] */
    uint32_t *z_lo, *z_hi;     /* [depth] */
    int64_t *ys_0, *ys_1, *ys_2; /* [rows], of the tile */
    uint64_t *ys;              /* [rows] */
    uint32_t *s;               /* [positions][2] */
    int32_t *wide;             /* [channels]: sums of an adjacency row */
    int64_t *wide64;

    size_t block_bytes; /* all of the above lies in one block */
    uint8_t *block;
};

/* Plan tiles, allocate. EDGED_OK or EDGED_ERR_MEMORY. */
enum edged_status network_create(struct network *n, struct model *m, enum eval_placement placement,
                                 const struct kernel *kernel, struct prg *prg, uint64_t load);
void network_release(struct network *n);

const struct layer *network_product(const struct network *n, uint32_t product);

/* Tiles of a product in a flow, for so many persons. */
uint32_t network_tiles(const struct network *n, enum network_flow flow, uint32_t product,
                       uint32_t persons);

/* Words of one tile, and of the whole object. */
size_t network_tile_words(const struct network *n, enum network_flow flow, uint32_t product,
                          uint32_t tile);
uint64_t network_object_words(const struct network *n, enum network_flow flow, uint32_t product,
                              uint32_t persons);

/* Compute a tile that goes out. *words: valid until the next call. 0, or -1 (random source). */
int network_produce(struct network *n, enum network_flow flow, uint32_t product, uint32_t tile,
                    const uint32_t **words);

/* Put bytes [at, at + size) of the coming ybar tile in place (multiples of 4). */
void network_accept(struct network *n, uint32_t product, size_t at, const uint8_t *bytes,
                    size_t size_bytes);

/* The ybar tile is complete (or all zero, placement enclave): unmask, fold into
 * the check, apply the layer. 0, or -1. */
int network_consume(struct network *n, uint32_t product, uint32_t tile);

/* Make the first activations from a clip's coordinates. */
void network_input(struct network *n, const int16_t *coordinates);

/* Pooling, fully connected, soft-max, in Q16. */
void network_output(struct network *n, int32_t logits[EVAL_LABELS_MAX],
                    uint32_t probabilities[EVAL_LABELS_MAX]);

#endif
