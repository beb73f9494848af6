/*
 * slots.h - the key application's slots: how owners fill them, vouch for them and withdraw them, and the only
 * derivations that ever leave them.
 */
#ifndef EDGED_SLOTS_H
#define EDGED_SLOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "edged_wire.h"
#include "identity.h"
#include "state.h"

/**
 * struct heard - of a verifier whose floor this start took; of the start alone, so no earlier one can set it back
 * @last_s, @last: the last one's time and digest: an earlier one is a replay, or another one of the same second
 * @time_s, @uptime_ns: a time that it told, and when: of all of them the one that tells the latest time now
 */
struct heard {
    bool known;
    uint64_t last_s;
    uint8_t last[32];
    uint64_t time_s;
    uint64_t uptime_ns;
};

/**
 * struct slots - a slot is filled in `put` or in the state, never in both
 * @heard: of state.granted.least, whose entries stay where they are
 */
struct slots {
    struct slot put[KEY_SLOTS]; /* in clear, by KEY_SLOT_PUT */
    struct state state;
    struct heard heard[KEY_FLOORS];
};

enum key_kind slots_kind(const struct slots *s, uint32_t slot);

/* Where nothing tells an old state from the last, its owner has to. */
bool slots_locked(const struct slots *s, uint32_t slot);

/* KEY_LIST. out: KEY_SLOTS of struct key_listed */
void slots_list(const struct slots *s, uint8_t *out);

/* KEY_SLOT_PUT, KEY_SLOT_CLEAR (*out_bytes: of its answer, where there is one), KEY_GRANT, KEY_RESTORE. */
enum edged_status slots_put(struct slots *s, const struct key_slot_put *p);
enum edged_status slots_clear(struct slots *s, const struct identity *i, const struct eval_index *at, uint8_t *out,
                              size_t *out_bytes);
enum edged_status slots_grant(struct slots *s, const struct identity *i, const uint8_t *bytes, size_t size_bytes,
                              uint8_t *out);
enum edged_status slots_restore(struct slots *s, const struct identity *i, const uint8_t *sealed);

/* KEY_FLOOR. start: `bootseed` of this one */
enum edged_status slots_floor(struct slots *s, const struct identity *i, const uint8_t start[32], const uint8_t *bytes,
                              size_t size_bytes, uint8_t *out);

/* What KEY_DERIVE asks for; all but the node's name. */
enum edged_status slots_derive(struct slots *s, const struct key_derive *ask, struct key_material *m);

#endif
