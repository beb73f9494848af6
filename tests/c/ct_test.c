/*
 * ct_test.c - constant time by valgrind: every secret is undefined memory, and
 * memcheck reports whatever branch or address depends on one. Built with
 * EDGED_CT_CHECK (lib/ct.h) and the release's flags; run by
 * tests/test_constant_time.py.
 *
 *   valgrind --error-exitcode=99 ct_test VECTORS core KERNEL    must report nothing
 *   valgrind --error-exitcode=99 ct_test VECTORS verdict        must report nothing
 *   valgrind --error-exitcode=99 ct_test VECTORS leak-branch    must report an error
 *   valgrind --error-exitcode=99 ct_test VECTORS leak-index     must report an error
 *
 * Secret: weights, biases, multipliers, adjacency values, what an absent person adds,
 * coordinates, and every word of the PRG: R1, R2, pad, s (prg_vector.c). So then are
 * X, Xbar, U, Ybar and Y, which follow from them, and scores, and what the rules of an
 * agreement make of them (ct_verdict.c). Public: shapes, and which entries of the
 * adjacency there are.
 */
#include <string.h>
#include <valgrind/memcheck.h>

#include "ct_verdict.h"
#include "vector.h"
#include "walk.h"

static void make_secret(void *p, size_t size_bytes) {
    (void)VALGRIND_MAKE_MEM_UNDEFINED(p, size_bytes);
}

static void make_model_secret(struct model *m) {
    make_secret(m->tensors, m->tensor_bytes);
    for (uint32_t i = 0; i < m->layer_count; i++)
        for (uint32_t e = 0; e < m->layers[i].nnz; e++)
            (void)VALGRIND_MAKE_MEM_DEFINED(&m->layers[i].adjacency[e], offsetof(struct adjacency, a));
}

/* The results must be right, and still secret: else nothing was checked. */
static void expect(const char *model, const int32_t *logits, const uint32_t *probabilities, uint32_t labels) {
    int32_t seen_logits[EVAL_LABELS_MAX];
    uint32_t seen_probabilities[EVAL_LABELS_MAX];
    char name[64];

    for (uint32_t i = 0; i < labels && RUNNING_ON_VALGRIND != 0; i++) {
        uint32_t unknown = 0;
        (void)VALGRIND_GET_VBITS(&logits[i], &unknown, sizeof(unknown));
        CHECK(unknown != 0, "logit %u follows from secrets", i);
    }
    memcpy(seen_logits, logits, labels * 4);
    memcpy(seen_probabilities, probabilities, labels * 4);
    (void)VALGRIND_MAKE_MEM_DEFINED(seen_logits, labels * 4);
    (void)VALGRIND_MAKE_MEM_DEFINED(seen_probabilities, labels * 4);
    snprintf(name, sizeof(name), "%s/logits", model);
    CHECK(memcmp(seen_logits, vector_get(name, NULL), labels * 4) == 0, "%s", name);
    snprintf(name, sizeof(name), "%s/probabilities", model);
    CHECK(memcmp(seen_probabilities, vector_get(name, NULL), labels * 4) == 0, "%s", name);
}

/* mask, prepare, unmask, check, compare, mix, requantise, residual, pool, fc, soft-max */
static void run(const char *model, const struct kernel *kernel, struct prg *prg) {
    static struct model m;
    int32_t logits[EVAL_LABELS_MAX];
    uint32_t probabilities[EVAL_LABELS_MAX];
    char name[64];
    size_t manifest_bytes, stream_bytes, clip_bytes;

    snprintf(name, sizeof(name), "%s/manifest", model);
    const uint8_t *manifest = vector_get(name, &manifest_bytes);
    snprintf(name, sizeof(name), "%s/stream", model);
    const uint8_t *stream = vector_get(name, &stream_bytes);
    snprintf(name, sizeof(name), "%s/clip", model);
    const int16_t *clip = vector_get(name, &clip_bytes);
    CHECK(walk_read(&m, manifest, manifest_bytes, stream, stream_bytes, EVAL_SEAL_BYTES) == EDGED_OK, "%s", model);
    make_model_secret(&m);
    int16_t *secret_clip = malloc(clip_bytes);
    CHECK(secret_clip != NULL, "clip");
    memcpy(secret_clip, clip, clip_bytes);
    make_secret(secret_clip, clip_bytes);

    for (uint32_t placement = EVAL_MASKED; placement <= EVAL_ENCLAVE; placement++) {
        struct walk w = {.see = NULL};
        CHECK(walk_load(&w, &m, (enum eval_placement)placement, kernel, prg, placement + 1) == EDGED_OK, "%s", model);
        for (uint32_t ahead = 0; ahead <= (placement != EVAL_ENCLAVE); ahead++) {
            CHECK(walk_clip(&w, ahead + 1, m.persons, ahead, secret_clip, logits, probabilities) == m.step_count,
                  "an honest accelerator");
            expect(model, logits, probabilities, m.labels);
        }
        walk_unload(&w);
    }
    free(secret_clip);
    model_release(&m);
}

/* What the method must find, or a silence of valgrind would mean nothing. */
static uint32_t leak(const char *how, uint32_t secret) {
    static const uint8_t table[256] = {1, 2, 3};
    volatile uint32_t sum = 0;

    make_secret(&secret, sizeof(secret));
    if (strcmp(how, "leak-index") == 0)
        sum += table[secret & 255];
    else if ((secret & 1) != 0) /* an early exit of a comparison looks like this */
        sum++;
    return sum;
}

int main(int argc, char **argv) {
    CHECK(argc >= 3, "usage: ct_test VECTORS core KERNEL | verdict | leak-branch | leak-index");
    vector_open(argv[1]);
    if (strcmp(argv[2], "verdict") == 0) {
        ct_verdict();
        printf("verdict\n");
        return 0;
    }
    if (strcmp(argv[2], "core") != 0) {
        volatile uint32_t unused = leak(argv[2], (uint32_t)argc);
        (void)unused;
        return 0;
    }
    const struct kernel *kernel = NULL;
    for (uint32_t i = 0; kernel_at(i) != NULL; i++)
        if (argc == 4 && strcmp(kernel_at(i)->name, argv[3]) == 0)
            kernel = kernel_at(i);
    if (kernel == NULL)
        return 77; /* not on this machine, or not under valgrind */
    struct prg *prg = prg_new();
    run("odd", kernel, prg);
    run("alone", kernel, prg);
    prg_free(prg);
    printf("%s\n", kernel->name);
    return 0;
}
