/*
 * flip_test.c - not one bit of an answer can be wrong: each of the 32 bits of every
 * word of every product's ybar, flipped alone, in an invocation of its own, is refused
 * at that product's step. With every set of kernels, in both placements with an
 * accelerator, U ahead and on line.
 *
 *   flip_test VECTORS MODEL
 *
 * Prints a line for each product: kernels, placement, ahead or online, product, refusals.
 */
#include <string.h>

#include "vector.h"
#include "walk.h"

static const void *of_model(const char *model, const char *what, size_t *size) {
    char name[64];
    snprintf(name, sizeof(name), "%s/%s", model, what);
    return vector_get(name, size);
}

static void flip_all(struct walk *w, const struct model *m, bool ahead, const int16_t *clip, uint64_t *invocation) {
    int32_t logits[EVAL_LABELS_MAX];
    uint32_t probabilities[EVAL_LABELS_MAX];

    w->spoil_flip = 0;
    CHECK(walk_clip(w, ++*invocation, m->persons, ahead, clip, logits, probabilities) == m->step_count,
          "%s: an honest accelerator", w->name);
    for (uint32_t p = 0; p < m->product_count; p++) {
        const size_t words = (size_t)network_object_words(&w->network, FLOW_Y, p, m->persons);
        uint64_t refused = 0;
        w->spoil_product = p;
        for (w->spoil_word = 0; w->spoil_word < words; w->spoil_word++)
            for (uint32_t bit = 0; bit < 32; bit++) {
                w->spoil_flip = 1u << bit;
                const uint32_t steps = walk_clip(w, ++*invocation, m->persons, ahead, clip, logits, probabilities);
                CHECK(steps == m->product_step[p], "%s: bit %u of word %zu of product %u: %u steps are believed",
                      w->name, bit, w->spoil_word, p, steps);
                refused++;
            }
        printf("%s %u %llu\n", w->name, p, (unsigned long long)refused);
    }
}

int main(int argc, char **argv) {
    static const char *const places[] = {"masked", "inputs"};
    static struct model m;
    size_t manifest_bytes, stream_bytes;
    char name[96];

    CHECK(argc == 3, "usage: flip_test VECTORS MODEL");
    vector_open(argv[1]);
    struct prg *prg = prg_new();
    const uint8_t *manifest = of_model(argv[2], "manifest", &manifest_bytes);
    const uint8_t *stream = of_model(argv[2], "stream", &stream_bytes);
    const int16_t *clip = of_model(argv[2], "clip", NULL);
    CHECK(walk_read(&m, manifest, manifest_bytes, stream, stream_bytes, EVAL_SEAL_BYTES) == EDGED_OK, "%s", argv[2]);
    for (uint32_t i = 0; kernel_at(i) != NULL; i++)
        for (uint32_t placement = EVAL_MASKED; placement <= EVAL_INPUTS; placement++) {
            struct walk w = {.name = name};
            uint64_t invocation = 0;
            CHECK(walk_load(&w, &m, (enum eval_placement)placement, kernel_at(i), prg, placement + 1) == EDGED_OK,
                  "%s", argv[2]);
            for (uint32_t ahead = 0; ahead < 2; ahead++) {
                snprintf(name, sizeof(name), "%s %s %s", kernel_at(i)->name, places[placement],
                         ahead ? "ahead" : "online");
                flip_all(&w, &m, ahead != 0, clip, &invocation);
            }
            walk_unload(&w);
        }
    model_release(&m);
    prg_free(prg);
    return 0;
}
