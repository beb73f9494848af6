/*
 * walk.h - clips through a network's tiles with an honest accelerator, without
 * messages, keys or seals: what the core does on any machine.
 */
#ifndef EDGED_TEST_WALK_H
#define EDGED_TEST_WALK_H

#include "network.h"

/* Read a manifest and its tensor stream as load.c does, in chunks of `chunk` bytes. */
enum edged_status walk_read(struct model *m, const uint8_t *manifest, size_t manifest_bytes, const uint8_t *stream,
                            size_t stream_bytes, size_t chunk);

/** struct walk - what lies outside while one load lasts; all objects as on the wire */
struct walk {
    struct network network;
    uint32_t *wbar[EVAL_LAYERS_MAX];
    uint32_t *xbar[EVAL_LAYERS_MAX];
    uint32_t *ahead[EVAL_LAYERS_MAX]; /* U + pad */
    /* falsified: one word of one product's ybar, where spoil_add or spoil_flip is not 0 */
    uint32_t spoil_product, spoil_add, spoil_flip;
    size_t spoil_word;
    void (*see)(const struct walk *w, const char *what, uint32_t index, const void *bytes, size_t size_bytes);
    const char *name; /* for see */
};

/* Makes the network and takes wbar. EDGED_OK or EDGED_ERR_MEMORY. */
enum edged_status walk_load(struct walk *w, struct model *m, enum eval_placement placement,
                            const struct kernel *kernel, struct prg *prg, uint64_t load);
void walk_unload(struct walk *w);

/*
 * Evaluate one clip, [persons][frames][joints][3], as one invocation, U ahead or on
 * line. Returns the number of steps that the check accepted: all, or those before
 * the one refused, and then there are no scores.
 */
uint32_t walk_clip(struct walk *w, uint64_t invocation, uint32_t persons, bool ahead, const int16_t *coordinates,
                   int32_t logits[EVAL_LABELS_MAX], uint32_t probabilities[EVAL_LABELS_MAX]);

#endif
