/*
 * body.h - the body that a record must have: the rules computed once more, by plain
 * branches, and every byte that follows from them and from what the city knows.
 */
#ifndef EDGED_TEST_BODY_H
#define EDGED_TEST_BODY_H

#include "city.h"

/** struct past - of one rule and camera */
struct past {
    bool active, held;
    uint64_t number, held_ns;
};

/** struct camera - one session's */
struct camera {
    bool known;
    uint32_t place;
    uint8_t name[32];
    uint32_t finished, failed;
    struct past past[EDGED_RULES_MAX];
};

/** struct in_force - an agreement in its place */
struct in_force {
    const struct terms *terms; /* NULL: none */
    uint64_t told_ns, heard_ns;
    uint64_t confirmed[EDGED_RECIPIENTS_MAX];
};

/** struct summary - an epoch as sealed state tells it */
struct summary {
    uint64_t counter;
    uint32_t closed, count;
    struct {
        uint8_t rcpt[16];
        uint64_t seq;
    } end[16];
};

/** struct knowledge - of the present epoch */
struct knowledge {
    uint8_t name[16], salt[32];
    uint64_t counter;
    struct camera cameras[EVAL_SESSIONS_MAX];
    struct in_force places[EVAL_AGREEMENTS_MAX];
    struct {
        uint8_t rcpt[16];
        uint64_t seq;
    } sequences[16];
    bool before_known;
    uint8_t before_name[16];
    struct summary before;
};

extern struct knowledge now;

/** struct about - whose record it is */
struct about {
    uint32_t place, recipient;
    uint64_t seq;
};

void body_init(void);

/* Write what the record of that request must hold into plain, RECORD_PLAIN_MAX zeros before. */
void body_expect(const struct edged_hdr *ask, const uint8_t *request, enum edged_status status,
                 const struct about *who, uint8_t *plain);

#endif
