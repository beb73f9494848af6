/*
 * network_test.c - the integer core on any machine: every model of the vector file
 * in every placement, with every set of kernels, one person or more or nobody, U
 * ahead and on line; and a falsified word is refused. What is made is dumped;
 * tests/test_c_core.py and tests/test_cross.py compare it with NumPy and between
 * machines.
 *
 *   network_test VECTORS DUMP MODEL ...
 */
#include <string.h>

#include "vector.h"
#include "walk.h"

static void see(const struct walk *w, const char *what, uint32_t index, const void *bytes, size_t size_bytes) {
    char name[128];
    snprintf(name, sizeof(name), "%s/%s%u", w->name, what, index);
    dump_put(name, bytes, size_bytes);
}

static const void *of_model(const char *model, const char *what, size_t *size) {
    char name[64];
    snprintf(name, sizeof(name), "%s/%s", model, what);
    return vector_get(name, size);
}

/*
 * The check refuses each product with one word wrong, at its own step: every word of a
 * small model, else the first and the last; by 1, and by what a ring hides best.
 */
static void refuse(struct walk *w, const struct model *m, const int16_t *clip, bool every) {
    static const uint32_t errors[] = {1, 1u << 24, 1u << 31};
    int32_t logits[EVAL_LABELS_MAX];
    uint32_t probabilities[EVAL_LABELS_MAX];
    uint64_t invocation = 1000;

    for (uint32_t p = 0; p < m->product_count; p++) {
        const size_t words = (size_t)network_object_words(&w->network, FLOW_Y, p, m->persons);
        for (size_t word = 0; word < words; word += every || words == 1 ? 1 : words - 1) {
            w->spoil_product = p;
            w->spoil_word = word;
            w->spoil_add = errors[(word + p) % 3];
            CHECK(walk_clip(w, ++invocation, m->persons, word % 2 != 0, clip, logits, probabilities) ==
                      m->product_step[p],
                  "%s: word %zu of product %u plus %u is believed", w->name, word, p, w->spoil_add);
        }
    }
}

static void run(const char *name, const struct kernel *kernel, struct prg *prg) {
    static const char *const places[] = {"masked", "inputs", "enclave"};
    static struct model m;
    int32_t logits[EVAL_LABELS_MAX];
    uint32_t probabilities[EVAL_LABELS_MAX];
    char path[96];
    size_t manifest_bytes, stream_bytes;
    const uint8_t *manifest = of_model(name, "manifest", &manifest_bytes);
    const uint8_t *stream = of_model(name, "stream", &stream_bytes);
    const int16_t *clip = of_model(name, "clip", NULL);

    CHECK(walk_read(&m, manifest, manifest_bytes, stream, stream_bytes, EVAL_SEAL_BYTES) == EDGED_OK, "%s", name);
    for (uint32_t placement = EVAL_MASKED; placement <= EVAL_ENCLAVE; placement++) {
        struct walk w = {.see = see, .name = path};
        uint64_t invocation = 0;
        snprintf(path, sizeof(path), "%s/%s/%s", kernel->name, name, places[placement]);
        CHECK(walk_load(&w, &m, (enum eval_placement)placement, kernel, prg, placement + 1) == EDGED_OK, "%s", path);
        for (uint32_t persons = 0; persons <= m.persons; persons++)
            for (uint32_t ahead = 0; ahead <= (persons != 0 && placement != EVAL_ENCLAVE); ahead++) {
                snprintf(path, sizeof(path), "%s/%s/%s/%u/%s", kernel->name, name, places[placement], persons,
                         ahead ? "ahead" : "online");
                CHECK(walk_clip(&w, ++invocation, persons, ahead, clip, logits, probabilities) == m.step_count,
                      "%s: an honest accelerator", path);
            }
        w.see = NULL;
        if (placement != EVAL_ENCLAVE)
            refuse(&w, &m, clip, strcmp(name, "alone") == 0);
        walk_unload(&w);
    }
    model_release(&m);
}

int main(int argc, char **argv) {
    CHECK(argc >= 4, "usage: network_test VECTORS DUMP MODEL ...");
    vector_open(argv[1]);
    dump_open(argv[2]);
    struct prg *prg = prg_new();
    for (uint32_t i = 0; kernel_at(i) != NULL; i++)
        for (int model = 3; model < argc; model++)
            run(argv[model], kernel_at(i), prg);
    prg_free(prg);
    dump_close();
    return 0;
}
