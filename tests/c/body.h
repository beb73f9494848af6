/*
 * body.h - the body that a record must have: the rules computed once more, by plain
 * branches, and every byte that follows from them and from what the city knows.
 */
#ifndef EDGED_TEST_BODY_H
#define EDGED_TEST_BODY_H

#include "city.h"

/** struct happened - of one rule and camera */
struct happened {
    bool active, held;
    uint64_t number, held_ns;
};

/** struct camera - one session's */
struct camera {
    bool known;
    uint32_t place;
    uint8_t name[32];
    uint32_t finished, failed;
    struct happened past[EDGED_RULES_MAX];
};

/** struct in_force - an agreement in its place */
struct in_force {
    const struct terms *terms; /* NULL: none */
    uint64_t told_ns, heard_ns;
    uint64_t least_ns, least_at_ns; /* not before that, then */
    uint64_t beacon_ns[EDGED_RECIPIENTS_MAX];
    bool over; /* another followed; its place is taken still */
};

/** struct summary - an epoch as sealed state tells it */
struct summary {
    uint64_t counter, closed;
    struct summary_past {
        uint8_t rcpt[16], qdo[32], epoch[16];
        uint64_t seq, closed, told_ns, least_ns;
    } past[EVAL_PASTS_MAX];
};

/** struct remembered - of a recipient, over all epochs */
struct remembered {
    bool known;
    struct summary_past past;
    uint64_t at_ns; /* uptime of past.least_ns */
};

/** struct knowledge - of the present epoch */
struct knowledge {
    uint8_t name[16], salt[32];
    uint64_t counter;
    struct camera cameras[EVAL_SESSIONS_MAX];
    struct in_force places[EVAL_AGREEMENTS_MAX];
    struct sequence sequences[EVAL_RECIPIENTS_MAX];
    uint32_t least[CITY_DEALS]; /* by data slot, which is a city's: lower numbers are over */
    bool before_known;
    uint8_t before_name[16];
    uint64_t before_closed;
    struct remembered remembered[EVAL_PASTS_MAX];
};

extern struct knowledge now;

/** struct about - whose record it is */
struct about {
    uint32_t place, recipient;
    uint64_t seq;
};

void body_init(void);

/* What is known of that recipient of that city; NULL: nothing. */
struct remembered *body_remembered(const uint8_t rcpt[16], const uint8_t qdo[32]);

/* The time that was known of at_ns, by an enclave's clock that is too fast by a thousandth; 0: none was. */
uint64_t body_since(uint64_t time_ns, uint64_t at_ns);

/* Write what the record of that request must hold into plain, CITY_PLAIN_MAX zeros before. */
void body_expect(const struct edged_hdr *ask, const uint8_t *request, enum edged_status status,
                 const struct about *who, uint8_t *plain);

#endif
