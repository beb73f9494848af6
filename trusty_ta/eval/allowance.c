/*
 * allowance.c - what an agreement has left, clips of its hour and time without a beacon, outlives its place and the
 * epoch, for root may end these as often as it likes.
 *
 * It is remembered from an agreement's begin on. Whoever is not known any more begins as if nothing were left to him,
 * so that being forgotten brings nothing, however many agreements of its own root has come and go.
 */
#include "bytes.h"
#include "state.h"

static struct allowance *find(struct eval *e, const struct agreement *a) {
    for (uint32_t i = 0; i < EVAL_ALLOWANCES_MAX; i++)
        if (e->allowances[i].known && memcmp(e->allowances[i].agreement, a->digest, sizeof(a->digest)) == 0)
            return &e->allowances[i];
    return NULL;
}

/* One that nobody had, else of one that is over. */
static struct allowance *find_spare(struct eval *e) {
    struct allowance *over = NULL;

    for (uint32_t i = 0; i < EVAL_ALLOWANCES_MAX; i++) {
        if (!e->allowances[i].known)
            return &e->allowances[i];
        if (e->allowances[i].over)
            over = &e->allowances[i];
    }
    return over;
}

static void store(struct allowance *to, const struct agreement *a) {
    *to = (struct allowance){.known = true, .over = a->over, .rate_ns = a->rate_ns, .heard_ns = a->heard_ns};
    memcpy(to->agreement, a->digest, sizeof(to->agreement));
}

void allowance_resume(struct eval *e, struct agreement *a, uint64_t uptime_ns) {
    struct allowance *own = find(e, a), *to = own != NULL ? own : find_spare(e);

    if (own != NULL) {
        a->rate_ns = own->rate_ns;
        a->heard_ns = own->heard_ns;
    } else if (to != NULL && !to->known) { /* nobody was forgotten yet */
        a->rate_ns = agreement_fresh_ns(uptime_ns);
        a->heard_ns = uptime_ns;
    } else {
        a->rate_ns = agreement_spent_ns(uptime_ns);
        a->heard_ns = agreement_silent_ns(a, uptime_ns);
    }
    if (to != NULL)
        store(to, a);
}

void allowance_keep(struct eval *e, const struct agreement *a) {
    struct allowance *own = find(e, a);

    if (own != NULL)
        store(own, a);
}
