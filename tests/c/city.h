/*
 * city.h - the recipients' side of the tests, on its own: agreements from the vector
 * file (tests/c/deals.py), the rules computed once more by plain branches, and from
 * them every byte that a record, a sealed state or a heartbeat must hold.
 */
#ifndef EDGED_TEST_CITY_H
#define EDGED_TEST_CITY_H

#include "state.h"

#define CITY_DEALS 8u    /* agreements in the vector file; the first is the honest client's */
#define CITY_SAME 4u     /* as the first, but that its number is higher */
#define CITY_CHANGED 5u  /* likewise, other recipients and the rules in another order */
#define CITY_NAMING 6u   /* of the other city, a recipient by the name of the first one's */
#define CITY_DRAWN 7u    /* as the first, a higher number still, both see skeletons of some rules */
#define CITY_EXPIRED 3u  /* one that no beacon's time is within */
#define CITY_BEGIN_S 1750000000u /* the city's time when the clock of the stub began */
#define CITY_SECOND ((uint64_t)1000000000)
#define CITY_PLAIN_MAX (EDGED_RECORD_HEADER_MAX + EDGED_BODY_SKELETONS)

/** struct terms - an agreement as tests/c/deals.py writes it */
struct terms_rule {
    uint32_t label, threshold, cooldown_s, first_minute, end_minute, zero;
};

struct terms_recipient {
    uint8_t rcpt[16];
    uint8_t key_id[16];
    uint8_t key[32];
    uint32_t key_bytes, slot, sees, sees_rule[EDGED_RULES_MAX], zero;
};

struct terms {
    uint32_t status, body, score_bits, limit_s, data_slot, rules, recipients, number;
    uint8_t digest[32], qdo[32];
    struct terms_rule rule[EDGED_RULES_MAX];
    struct terms_recipient recipient[EDGED_RECIPIENTS_MAX];
};

/** struct city - what it knows, for tests that ask more than that all is right */
struct city {
    bool drawn;          /* the honest client prefers the agreement with skeletons */
    uint64_t ahead_ns;   /* of its clock, since the stub's began */
    uint64_t sent_ns;    /* the latest time that a beacon told */
    uint32_t messages[EDGED_RULES_MAX]; /* of the last clip: enum edged_message_type */
    uint32_t kinds[EDGED_RECIPIENTS_MAX]; /* in the bodies of the last request's records */
    struct edged_epoch epoch;           /* the last record of that kind */
    struct edged_heartbeat heartbeat;   /* likewise */
    struct edged_state state;           /* the last that was answered */
    bool has_state;
};

extern struct city city;

void city_init(void);
void city_start(void);   /* an evaluation application that knows nothing yet */
void city_restart(void); /* likewise, but the sealed state outlives it */

const struct terms *city_terms(uint32_t deal);

/* Place of an agreement in the enclave, or EVAL_AGREEMENTS_MAX where it is not in force. Which the honest client uses:
 * the first of its city's that no other followed. */
uint32_t city_place(uint32_t deal);
uint32_t city_client_deal(void);

/* The city's present time. */
uint64_t city_now_ns(void);

void city_pass_s(uint64_t seconds);

/* A beacon of a recipient of the agreement in that place; later ones must have later times. */
struct eval_beacon city_beacon(uint32_t place, uint32_t recipient, uint64_t time_ns);

/*
 * After a request was answered: judge each new record, whether the answer carried those
 * that fit, the one that EVAL_RECORD answers, and sealed states.
 */
void city_judge(const struct edged_hdr *ask, const uint8_t *request, enum edged_status status, const uint8_t *body,
                size_t size_bytes);

#endif
