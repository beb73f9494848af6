/*
 * agreement.h - what model owner and query data owner both signed: who may read
 * what of which network's answers, and under which limits. Its form stands in
 * edged_wire.h, struct eval_agreement. Everything that it says is enforced here
 * and in verdict.c; nothing of it comes from the node.
 */
#ifndef EDGED_AGREEMENT_H
#define EDGED_AGREEMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "edged_wire.h"
#include "model.h"

/** struct rule - when a label becomes an alert */
struct rule {
    struct label label;
    uint32_t threshold; /* Q16 */
    uint64_t cooldown_ns;
    uint32_t first_minute; /* of the UTC day */
    uint32_t end_minute;
};

/** struct recipient - one reader, its keys in this epoch */
struct recipient {
    uint8_t rcpt[16];
    uint8_t key_id[16];
    uint32_t sees;
    uint32_t sees_rule[EDGED_RULES_MAX];
    struct key_material record;
    struct key_material beacon;
    uint64_t beacon_ns; /* time of the last beacon taken, in an epoch before perhaps */
};

/** struct bound - by the city's clock it was time_ns or later, at uptime at_ns; time_ns 0: nothing is known */
struct bound {
    uint64_t time_ns;
    uint64_t at_ns;
};

struct agreement {
    bool open;      /* in force */
    bool over;      /* another followed it: its place is taken while a record of it is kept */
    uint32_t least_number; /* lower ones of the same owners are over: those that it followed */
    uint8_t digest[32];
    uint32_t data_slot;

    uint8_t mo[32];
    uint8_t qdo[32];
    uint32_t body_bytes;
    uint32_t from_s;
    uint32_t until_s;
    uint32_t model_id_bytes;
    uint8_t model_id[64];
    uint32_t model_version; /* the least */
    uint8_t model_key[16];
    uint32_t rule_count;
    struct rule rules[EDGED_RULES_MAX];
    uint32_t number;
    uint32_t status; /* enum edged_message_status */
    uint32_t beacon_period_s;
    uint32_t beacon_limit_s;
    uint8_t data_key[16];
    uint32_t placements;
    uint32_t recipient_count;
    struct recipient recipients[EDGED_RECIPIENTS_MAX];
    uint32_t score_bits;
    uint32_t clips_per_hour;

    struct bound least; /* floors say so, or its recipients did elsewhere or in an epoch before */
    uint64_t heard_ns; /* uptime at the last beacon that was not late, or when it began first since the start */
    uint64_t time_ns;  /* city's time then, 0: never told */
    uint64_t rate_ns;  /* uptime up to which the clips taken use the rate up */
};

/*
 * Read a signed agreement (COSE_Sign) into *a: form, ranges, both signatures by the
 * keys that it names. EDGED_OK, EDGED_ERR_AGREEMENT or EDGED_ERR_UNAVAILABLE.
 */
enum edged_status agreement_read(struct agreement *a, const uint8_t *bytes, size_t size_bytes);

/* The earliest that it can be now: the enclave's clock gains less than a thousandth. 0: nothing is known. */
uint64_t bound_now_ns(const struct bound *b, uint64_t uptime_ns);

/* It is time_ns (below 2^63) or later now. */
void bound_raise(struct bound *b, uint64_t time_ns, uint64_t uptime_ns);

/* Floors of an owner of its keys. AGREEMENT: they forbid it. @model: that owner's is the model. */
enum edged_status agreement_raise(struct agreement *a, const struct key_material *m, bool model, uint64_t uptime_ns);

/* The city's time, 0 while no beacon told it. */
uint64_t agreement_time_ns(const struct agreement *a, uint64_t uptime_ns);

/* True where the rule holds at this time of the day. */
bool agreement_rule_holds(const struct agreement *a, const struct rule *rule, uint64_t uptime_ns);

/* Does this recipient see skeletons, of whichever rule? */
bool agreement_shows_skeletons(const struct agreement *a, const struct recipient *to);

/* Does anybody? */
static inline bool agreement_tells_skeletons(const struct agreement *a) {
    return a->body_bytes == EDGED_BODY_SKELETONS;
}

/* As far as anybody told the time; a bound below it tells that it is over, never that it has not begun. */
bool agreement_is_valid(const struct agreement *a, uint64_t uptime_ns);

/* A recipient's beacon tells the time, below 2^63, and keeps the agreement from being locked; not where it is late. */
void agreement_hear(struct agreement *a, uint64_t time_ns, uint64_t uptime_ns);

/* May a clip be taken now, of this model in this placement? OK, AGREEMENT, PLACEMENT, LOCKED, RATE (not `again`). */
enum edged_status agreement_admits(const struct agreement *a, const struct model *m, uint32_t placement,
                                   bool again, uint64_t uptime_ns);

/* rate_ns where what a second brings is saved up, and where nothing is. */
uint64_t agreement_fresh_ns(uint64_t uptime_ns);
uint64_t agreement_spent_ns(uint64_t uptime_ns);

/* heard_ns where it is locked. */
uint64_t agreement_silent_ns(const struct agreement *a, uint64_t uptime_ns);

/* A new clip was taken: it counts against the rate. */
void agreement_count(struct agreement *a, uint64_t uptime_ns);

/* Index of the rule's label in the model, or EVAL_LABELS_MAX. */
uint32_t agreement_label(const struct rule *rule, const struct model *m);

#endif
