/*
 * rate.c - what an agreement's clips of an hour have come to outlives its place and the epoch, for root may end these
 * as often as it likes.
 */
#include "bytes.h"
#include "state.h"

/* Whoever begins anew where it is forgotten has no more than with it. */
static bool is_idle(const struct rate *r, uint64_t uptime_ns) {
    return !r->known || r->rate_ns <= agreement_fresh_ns(uptime_ns);
}

static const struct rate *find(const struct eval *e, const struct agreement *a) {
    for (uint32_t i = 0; i < EVAL_RATES_MAX; i++)
        if (e->rates[i].known && memcmp(e->rates[i].agreement, a->digest, sizeof(a->digest)) == 0)
            return &e->rates[i];
    return NULL;
}

static const struct rate *find_idle(const struct eval *e, uint64_t uptime_ns) {
    for (uint32_t i = 0; i < EVAL_RATES_MAX; i++)
        if (is_idle(&e->rates[i], uptime_ns))
            return &e->rates[i];
    return NULL;
}

uint64_t rate_resume(const struct eval *e, const struct agreement *a, uint64_t uptime_ns) {
    const struct rate *r = find(e, a);

    if (r != NULL)
        return r->rate_ns;
    /* Where it could not be remembered, it begins with nothing. */
    return find_idle(e, uptime_ns) != NULL ? agreement_fresh_ns(uptime_ns) : agreement_spent_ns(uptime_ns);
}

void rate_keep(struct eval *e, const struct agreement *a, uint64_t uptime_ns) {
    const struct rate *known = find(e, a);

    if (known == NULL)
        known = find_idle(e, uptime_ns);
    if (known == NULL)
        return;
    struct rate *to = &e->rates[known - e->rates];
    to->known = true;
    memcpy(to->agreement, a->digest, sizeof(to->agreement));
    to->rate_ns = a->rate_ns;
}
