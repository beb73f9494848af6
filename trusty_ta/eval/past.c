/*
 * past.c - what is remembered of each recipient over the epochs, and sealed: where his last sequence ended, so that
 * his next first record names it whatever epochs lie between, and what his beacons told of the time, which does not go
 * back.
 *
 * A recipient counts as one query data owner's: nobody sets the clock of another city by the name of its recipient.
 */
#include "bytes.h"
#include "state.h"

const struct past *past_find(const struct eval *e, const uint8_t rcpt[16], const uint8_t qdo[32]) {
    for (uint32_t i = 0; i < EVAL_PASTS_MAX; i++) {
        const struct past *p = &e->pasts[i];
        if (p->known && memcmp(p->rcpt, rcpt, sizeof(p->rcpt)) == 0 && memcmp(p->qdo, qdo, sizeof(p->qdo)) == 0)
            return p;
    }
    return NULL;
}

/* His sequence in this epoch; NULL: none. */
static const struct sequence *sequence_of(const struct eval *e, const struct past *p) {
    const struct sequence *s = record_find(e, p->rcpt);
    return s != NULL && memcmp(s->qdo, p->qdo, sizeof(s->qdo)) == 0 ? s : NULL;
}

static bool names(const struct agreement *a, const struct past *p) {
    for (uint32_t i = 0; i < a->recipient_count; i++)
        if (memcmp(a->recipients[i].rcpt, p->rcpt, sizeof(p->rcpt)) == 0 && memcmp(a->qdo, p->qdo, sizeof(p->qdo)) == 0)
            return true;
    return false;
}

/* Is there something that a later epoch has to know? */
static bool holds(const struct past *p) {
    return p->seq != 0 || p->told_ns != 0;
}

/*
 * To a newcomer of the agreement: never what is somebody's in this epoch, nor what another city would lose. For who
 * signs is anybody: root's own agreements would have the enclave forget a city's clock and numbers.
 */
static bool gives_way(const struct eval *e, const struct agreement *a, const struct past *p) {
    if (!p->known)
        return true;
    if (record_find(e, p->rcpt) != NULL || names(a, p))
        return false;
    return !holds(p) || memcmp(a->qdo, p->qdo, sizeof(p->qdo)) == 0;
}

enum edged_status past_admits(const struct eval *e, const struct agreement *a) {
    uint32_t newcomers = 0, places = 0;

    for (uint32_t i = 0; i < a->recipient_count; i++)
        newcomers += past_find(e, a->recipients[i].rcpt, a->qdo) == NULL;
    for (uint32_t i = 0; i < EVAL_PASTS_MAX; i++)
        places += gives_way(e, a, &e->pasts[i]);
    return newcomers <= places ? EDGED_OK : EDGED_ERR_MEMORY;
}

/* A free one, else of those that give way the one that tells the earliest time. */
static struct past *make_room(struct eval *e, const struct agreement *a, uint64_t uptime_ns) {
    struct past *least = NULL;

    for (uint32_t i = 0; i < EVAL_PASTS_MAX; i++) {
        struct past *p = &e->pasts[i];
        if (!gives_way(e, a, p))
            continue;
        if (!holds(p))
            return p;
        if (least == NULL || bound_now_ns(&p->least, uptime_ns) < bound_now_ns(&least->least, uptime_ns))
            least = p;
    }
    return least;
}

void past_resume(struct eval *e, struct agreement *a, uint64_t uptime_ns) {
    for (uint32_t i = 0; i < a->recipient_count; i++) {
        struct recipient *to = &a->recipients[i];
        const struct past *known = past_find(e, to->rcpt, a->qdo);
        if (known != NULL) {
            to->beacon_ns = known->told_ns;
            bound_raise(&a->least, bound_now_ns(&known->least, uptime_ns), uptime_ns);
            continue;
        }
        struct past *p = make_room(e, a, uptime_ns);
        if (p == NULL)
            continue; /* cannot be: epoch_agree asked past_admits */
        memset(p, 0, sizeof(*p));
        p->known = true;
        memcpy(p->rcpt, to->rcpt, sizeof(p->rcpt));
        memcpy(p->qdo, a->qdo, sizeof(p->qdo));
    }
}

void past_hear(struct eval *e, const struct agreement *a, const struct recipient *from, uint64_t time_ns,
               uint64_t uptime_ns) {
    const struct past *known = past_find(e, from->rcpt, a->qdo);
    struct past *p = known == NULL ? NULL : &e->pasts[known - e->pasts];

    if (p == NULL)
        return;
    if (p->told_ns < time_ns)
        p->told_ns = time_ns;
    bound_raise(&p->least, time_ns, uptime_ns);
}

/*
 * An epoch none of whose records are confirmed was never there for him, but for what it may have hidden: the record
 * that names the end of the one before is one of them.
 */
void past_summarise(const struct eval *e, bool closed, uint64_t uptime_ns, struct past_end out[EVAL_PASTS_MAX]) {
    memset(out, 0, EVAL_PASTS_MAX * sizeof(out[0]));
    for (uint32_t i = 0; i < EVAL_PASTS_MAX; i++) {
        const struct past *p = &e->pasts[i];
        const struct sequence *s = sequence_of(e, p);
        const bool here = s != NULL && s->confirmed != 0;
        if (!p->known || (!here && p->seq == 0 && p->told_ns == 0))
            continue;
        memcpy(out[i].rcpt, p->rcpt, sizeof(out[i].rcpt));
        memcpy(out[i].qdo, p->qdo, sizeof(out[i].qdo));
        memcpy(out[i].epoch, here ? e->epoch : p->epoch, sizeof(out[i].epoch));
        out[i].seq = here ? s->confirmed : p->seq;
        out[i].closed = here ? closed : p->closed && s == NULL;
        out[i].told_ns = p->told_ns;
        out[i].least_ns = bound_now_ns(&p->least, uptime_ns);
    }
}

void past_restore(struct eval *e, const struct past_end ends[EVAL_PASTS_MAX], uint64_t uptime_ns) {
    for (uint32_t i = 0; i < EVAL_PASTS_MAX; i++) {
        struct past *p = &e->pasts[i];
        memset(p, 0, sizeof(*p));
        p->known = ends[i].seq != 0 || ends[i].told_ns != 0;
        memcpy(p->rcpt, ends[i].rcpt, sizeof(p->rcpt));
        memcpy(p->qdo, ends[i].qdo, sizeof(p->qdo));
        memcpy(p->epoch, ends[i].epoch, sizeof(p->epoch));
        p->seq = ends[i].seq;
        p->closed = ends[i].closed != 0;
        p->told_ns = ends[i].told_ns;
        bound_raise(&p->least, ends[i].least_ns, uptime_ns);
    }
}
