/*
 * state.h - the slots that grants filled, and which grants were taken. They outlive the application as
 * struct key_state, which the normal world keeps and a monotonic store tells from its predecessors.
 */
#ifndef EDGED_KEY_STATE_H
#define EDGED_KEY_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "edged_wire.h"
#include "identity.h"

/** struct slot - one key */
struct slot {
    uint32_t kind;
    uint32_t key_bytes;
    uint8_t key_id[16];
    uint8_t key[32];
    uint8_t verifier[32];
    uint8_t agreement[32]; /* all 0 where KEY_SLOT_PUT filled it */
};

/** struct number - of one party's grants for a slot: none up to this one is taken any more */
struct number {
    uint32_t number; /* 0: free */
    uint32_t slot;
    uint8_t verifier[32];
};

/** struct least - what the floors of one party came to */
struct least {
    uint8_t verifier[32]; /* all 0: free */
    uint32_t agreement;
    uint32_t model;
    uint64_t time_s;
};

/** struct granted - what is sealed */
struct granted {
    uint8_t name[32];
    uint8_t previous[32];
    uint8_t device[32];
    struct slot slots[KEY_SLOTS];
    struct number numbers[KEY_NUMBERS];
    struct least least[KEY_FLOORS];
};

/* What is known of this party, and of its grants for a slot; NULL: nothing. */
struct number *granted_number(struct granted *g, const uint8_t verifier[32], uint32_t slot);
struct least *granted_least(struct granted *g, const uint8_t verifier[32]);

/* None of its grants for the slot up to this number, above the one before, is taken any more. False: no room. */
bool granted_count(struct granted *g, const uint8_t verifier[32], uint32_t slot, uint32_t number);

/** struct state - all zero at start */
struct state {
    bool fresh;   /* the identity was drawn since start: no grant can have been for it before */
    bool known;   /* restored, or begun where there is nothing to restore */
    bool unnamed; /* begun for a fresh identity: the states of the one before still open */
    bool pending; /* the last change is not committed */
    bool no_store;
    uint32_t vouched; /* a bit for each slot: a floor that was taken since start names its grant */
    uint64_t counter;
    struct granted granted;
};

/*
 * Before a change: *draft is a copy of what there is, on the heap. UNAVAILABLE: the store failed; MEMORY;
 * ORDER: no identity, its state is not restored, or a change is pending.
 */
enum edged_status state_draft(struct state *s, const struct identity *i, struct granted **draft);

/* The draft is in force, and sealed: a struct key_state, at any alignment; else nothing has changed. */
enum edged_status state_change(struct state *s, struct granted *draft, uint8_t *sealed);

/* Of a draft that is not wanted, or was taken over. */
void state_release(struct granted *draft);

/* KEY_STATE, KEY_RESTORE (whose caller sees to it that no slot is filled), KEY_COMMIT. */
enum edged_status state_answer(struct state *s, const struct identity *i, uint8_t *sealed);
enum edged_status state_restore(struct state *s, const struct identity *i, const uint8_t *sealed);
enum edged_status state_commit(struct state *s, uint64_t counter);

#endif
