#include "slots.h"

#include <string.h>

#include "bytes.h"
#include "crypto.h"
#include "floor.h"
#include "grant.h"
#include "port.h"

static bool is_granted(const struct slots *s, uint32_t slot) {
    return s->state.granted.slots[slot].kind != KEY_EMPTY;
}

static const struct slot *slot_at(const struct slots *s, uint32_t slot) {
    return is_granted(s, slot) ? &s->state.granted.slots[slot] : &s->put[slot];
}

enum key_kind slots_kind(const struct slots *s, uint32_t slot) {
    return (enum key_kind)slot_at(s, slot)->kind;
}

bool slots_locked(const struct slots *s, uint32_t slot) {
    return is_granted(s, slot) && s->state.no_store && (s->state.vouched >> slot & 1) == 0;
}

/* Field by field: a slot's key lies between what may be told of it. */
void slots_list(const struct slots *s, uint8_t *out) {
    for (uint32_t at = 0; at < KEY_SLOTS; at++) {
        const struct slot *of = slot_at(s, at);
        struct key_listed l = {.kind = of->kind};
        if (is_granted(s, at))
            l.flags |= KEY_LISTED_GRANTED;
        if (slots_locked(s, at))
            l.flags |= KEY_LISTED_LOCKED;
        memcpy(l.key_id, of->key_id, sizeof(l.key_id));
        memcpy(l.verifier, of->verifier, sizeof(l.verifier));
        memcpy(l.agreement, of->agreement, sizeof(l.agreement));
        memcpy(out + at * sizeof(l), &l, sizeof(l));
    }
}

enum edged_status slots_put(struct slots *s, const struct key_slot_put *p) {
    if (!port_emulated())
        return EDGED_ERR_KEY;
    if (p->slot >= KEY_SLOTS || p->kind < KEY_MODEL || p->kind > KEY_ALERT ||
        (p->key_bytes != 32 && !(p->key_bytes == 16 && p->kind != KEY_MODEL)))
        return EDGED_ERR_ARGUMENT;
    if (!is_zero(p->key + p->key_bytes, 32 - p->key_bytes))
        return EDGED_ERR_RESERVED;
    if (is_zero(p->verifier, sizeof(p->verifier)))
        return EDGED_ERR_ARGUMENT; /* a point of small order: it would verify what nobody signed */
    if (is_granted(s, p->slot))
        return EDGED_ERR_KEY;
    struct slot *to = &s->put[p->slot];
    to->kind = p->kind;
    to->key_bytes = p->key_bytes;
    memcpy(to->key_id, p->key_id, sizeof(to->key_id));
    memcpy(to->key, p->key, sizeof(to->key));
    memcpy(to->verifier, p->verifier, sizeof(to->verifier));
    return EDGED_OK;
}

/* What was granted may not come back with an older state: clearing is a change, and its number stays. */
enum edged_status slots_clear(struct slots *s, const struct identity *i, const struct eval_index *at, uint8_t *out,
                              size_t *out_bytes) {
    struct granted *draft;

    if (at->index >= KEY_SLOTS)
        return EDGED_ERR_ARGUMENT;
    if (!is_granted(s, at->index)) {
        crypto_wipe(&s->put[at->index], sizeof(s->put[at->index]));
        return EDGED_OK;
    }
    enum edged_status status = state_draft(&s->state, i, &draft);
    if (status == EDGED_OK) {
        crypto_wipe(&draft->slots[at->index], sizeof(draft->slots[at->index]));
        status = state_change(&s->state, draft, out);
        *out_bytes = sizeof(struct key_state);
    }
    if (status == EDGED_OK)
        s->state.vouched &= ~(1u << at->index);
    state_release(draft);
    return status;
}

/* Form, device and signature, then what the slot and its numbers admit; the private key comes last. */
enum edged_status slots_grant(struct slots *s, const struct identity *i, const uint8_t *bytes, size_t size_bytes,
                              uint8_t *out) {
    struct granted *draft;
    struct grant g;
    enum edged_status status = state_draft(&s->state, i, &draft);

    if (status == EDGED_OK)
        status = grant_read(&g, bytes, size_bytes);
    if (status == EDGED_OK && memcmp(g.device, draft->device, sizeof(g.device)) != 0)
        status = EDGED_ERR_GRANT;
    if (status == EDGED_OK && s->put[g.slot].kind != KEY_EMPTY &&
        memcmp(s->put[g.slot].verifier, g.verifier, sizeof(g.verifier)) != 0)
        status = EDGED_ERR_KEY;
    if (status == EDGED_OK)
        status = grant_count(&g, draft);
    if (status == EDGED_OK)
        status = grant_open(&g, i, &draft->slots[g.slot]);
    if (status == EDGED_OK)
        status = state_change(&s->state, draft, out);
    if (status == EDGED_OK) {
        crypto_wipe(&s->put[g.slot], sizeof(s->put[g.slot]));
        s->state.vouched &= ~(1u << g.slot); /* it may be an old one, handed in late */
    }
    state_release(draft);
    return status;
}

/* NULL: no floor of this party is known, not even of an earlier start. */
static struct heard *heard_of(struct slots *s, const uint8_t verifier[32]) {
    const struct least *least = granted_least(&s->state.granted, verifier);

    return least == NULL ? NULL : &s->heard[least - s->state.granted.least];
}

/* A bound below the party's time, or 0: our clock may gain a 1024th on its. */
static uint64_t heard_time_s(const struct heard *h, uint64_t uptime_ns) {
    const uint64_t passed_ns = uptime_ns - h->uptime_ns;

    return h->known ? h->time_s + (passed_ns - passed_ns / 1024) / 1000000000u : 0;
}

static void hear(struct heard *h, uint64_t time_s, const uint8_t digest[32], uint64_t uptime_ns) {
    if (!h->known || time_s > heard_time_s(h, uptime_ns)) { /* handed in late, or twice, it sets nothing back */
        h->time_s = time_s;
        h->uptime_ns = uptime_ns;
    }
    h->known = true;
    h->last_s = time_s;
    memcpy(h->last, digest, sizeof(h->last));
}

static bool is_replay(const struct heard *h, uint64_t time_s, const uint8_t digest[32]) {
    return h->known && (time_s < h->last_s || (time_s == h->last_s && memcmp(digest, h->last, sizeof(h->last)) != 0));
}

enum edged_status slots_floor(struct slots *s, const struct identity *i, const uint8_t start[32], const uint8_t *bytes,
                              size_t size_bytes, uint8_t *out) {
    struct granted *draft;
    struct floor f;
    uint8_t digest[32];
    uint32_t vouched = s->state.vouched;
    enum edged_status status = state_draft(&s->state, i, &draft);

    if (status == EDGED_OK && crypto_sha256(bytes, size_bytes, digest) != 0)
        status = EDGED_ERR_UNAVAILABLE;
    if (status == EDGED_OK)
        status = floor_read(&f, bytes, size_bytes);
    if (status == EDGED_OK && memcmp(f.device, draft->device, sizeof(f.device)) != 0)
        status = EDGED_ERR_GRANT;
    if (status == EDGED_OK && memcmp(f.start, start, sizeof(f.start)) != 0)
        status = EDGED_ERR_REPLAY;
    if (status == EDGED_OK && !floor_holds(&f))
        status = EDGED_ERR_GRANT;
    const struct heard *before = status == EDGED_OK ? heard_of(s, f.verifier) : NULL;
    if (before != NULL && is_replay(before, f.time_s, digest))
        status = EDGED_ERR_REPLAY; /* it would vouch for what the later one does not */
    if (status == EDGED_OK)
        status = floor_apply(&f, draft, &vouched);
    if (status == EDGED_OK)
        status = state_change(&s->state, draft, out);
    if (status == EDGED_OK) {
        s->state.vouched = vouched;
        hear(heard_of(s, f.verifier), f.time_s, digest, port_uptime_ns());
    }
    state_release(draft);
    return status;
}

enum edged_status slots_restore(struct slots *s, const struct identity *i, const uint8_t *sealed) {
    for (uint32_t at = 0; at < KEY_SLOTS; at++)
        if (s->put[at].kind != KEY_EMPTY)
            return EDGED_ERR_ORDER;
    return state_restore(&s->state, i, sealed);
}

/** struct derivation - what a purpose means; without a label no key is derived */
struct derivation {
    uint32_t purpose;
    uint32_t kind;
    const char *label;
    bool has_context;
};

static const struct derivation DERIVATIONS[] = {
    {KEY_FOR_PACKAGE, KEY_MODEL, "edged package v1", false},
    {KEY_FOR_CAMERA, KEY_DATA, "edged camera v1", true},
    {KEY_FOR_RECORD, KEY_ALERT, "edged record v1", true},
    {KEY_FOR_BEACON, KEY_ALERT, "edged beacon v1", true},
    {KEY_OF_MODEL, KEY_MODEL, NULL, false},
    {KEY_OF_DATA, KEY_DATA, NULL, false},
};

enum edged_status slots_derive(struct slots *s, const struct key_derive *ask, struct key_material *m) {
    const struct derivation *d = NULL;
    uint8_t context[16 + sizeof(ask->context)];
    size_t label;

    for (size_t i = 0; i < sizeof(DERIVATIONS) / sizeof(DERIVATIONS[0]); i++)
        if (DERIVATIONS[i].purpose == ask->purpose)
            d = &DERIVATIONS[i];
    if (d == NULL || ask->slot >= KEY_SLOTS || ask->context_bytes > sizeof(ask->context) ||
        d->has_context != (ask->context_bytes != 0))
        return EDGED_ERR_ARGUMENT;
    if (!is_zero(ask->context + ask->context_bytes, sizeof(ask->context) - ask->context_bytes))
        return EDGED_ERR_RESERVED;
    const struct slot *of = slot_at(s, ask->slot);
    if (of->kind != d->kind)
        return EDGED_ERR_KEY;
    if (slots_locked(s, ask->slot))
        return EDGED_ERR_LOCKED;
    if (is_granted(s, ask->slot) && s->state.pending)
        return EDGED_ERR_ORDER; /* else a key might be used under a state that the next start takes back */
    memset(m, 0, sizeof(*m));
    memcpy(m->key_id, of->key_id, sizeof(m->key_id));
    memcpy(m->verifier, of->verifier, sizeof(m->verifier));
    memcpy(m->agreement, of->agreement, sizeof(m->agreement));
    const struct least *least = granted_least(&s->state.granted, of->verifier);
    if (least != NULL) {
        m->least_agreement = least->agreement;
        m->least_model = least->model;
        m->time_s = heard_time_s(&s->heard[least - s->state.granted.least], port_uptime_ns());
        if (m->time_s < least->time_s)
            m->time_s = least->time_s; /* of an earlier start: nobody knows how long that is ago */
    }
    if (d->label == NULL)
        return EDGED_OK;
    m->key_bytes = of->key_bytes;
    label = strlen(d->label);
    memcpy(context, d->label, label);
    memcpy(context + label, ask->context, ask->context_bytes);
    return crypto_hkdf_sha256(of->key, of->key_bytes, ask->salt, sizeof(ask->salt), context,
                              label + ask->context_bytes, m->key, of->key_bytes) == 0
               ? EDGED_OK
               : EDGED_ERR_UNAVAILABLE;
}

