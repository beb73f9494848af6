/*
 * prg.h - every mask word of edged.
 *
 *   seed   = KDF(key drawn at enclave start; label, load, invocation, product)
 *   stream = PRG(seed); word i is addressed by its index, so that a tile of a
 *            mask can be drawn again in any order without being stored
 *
 * load and invocation are counted in enclave memory; so no seed is used for two
 * loads or two invocations, and after a restart the key is another.
 */
#ifndef EDGED_PRG_H
#define EDGED_PRG_H

#include <stddef.h>
#include <stdint.h>

/** enum prg_label - what a stream masks */
enum prg_label {
    PRG_R1 = 1,  /* activations: word = index into xbar */
    PRG_R2 = 2,  /* weights: [panel][k][16], invocation 0 */
    PRG_PAD = 3, /* U kept outside: word = index into ybar */
    PRG_S = 4,   /* Freivalds' s: two words an element */
    PRG_REDRAW = 5 /* of an element of s that was p: + 2^18 words a try */
};

struct prg;

struct prg *prg_new(void); /* draws the key; NULL when there is no randomness */
void prg_free(struct prg *p);

/* Choose the stream; cheap when it is the one chosen last. 0, or -1. */
int prg_select(struct prg *p, enum prg_label label, uint64_t load, uint64_t invocation,
               uint32_t product);

/* Words first .. first + count - 1 of the chosen stream. 0, or -1. */
int prg_words(struct prg *p, uint64_t first, uint32_t *out, size_t count);

#endif
