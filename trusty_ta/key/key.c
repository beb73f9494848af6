/*
 * key.c - the key application: slots that hold keys, and the only derivations
 * that ever leave them; the device's identity, what is signed with it, and the grants that it
 * receives. Neither the slots' keys nor those of the identity are ever answered.
 */
#include "key.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "crypto.h"
#include "evidence.h"
#include "grant.h"
#include "identity.h"
#include "link.h"
#include "port.h"
#include "state.h"

/** struct key_app - a slot is filled in `put` or in the state, never in both */
struct key_app {
    struct slot put[KEY_SLOTS]; /* in clear, by KEY_SLOT_PUT */
    struct state state;
    uint8_t node[16];
    struct identity identity;
    struct device device;
};

struct key_app *key_create(const uint8_t uuid[16]) {
    struct key_app *k = calloc(1, sizeof(*k));
    uint8_t derived[32];

    if (k == NULL || crypto_init() != 0 || port_device_key("edged node v1", derived) != 0 ||
        port_random(k->device.bootseed, sizeof(k->device.bootseed)) != 0) {
        free(k);
        return NULL;
    }
    memcpy(k->node, derived, sizeof(k->node));
    crypto_wipe(derived, sizeof(derived));
    k->device.ueid[0] = 1; /* RAND (RFC 9711, 4.2.1) */
    memcpy(k->device.ueid + 1, k->node, sizeof(k->node));
    port_measurement(k->device.key.measurement);
    k->device.key.security_version = EDGED_SECURITY_VERSION;
    memcpy(k->device.key.uuid, uuid, sizeof(k->device.key.uuid));
    return k;
}

void key_destroy(struct key_app *k) {
    if (k == NULL)
        return;
    identity_close(&k->identity);
    crypto_wipe(k, sizeof(*k));
    free(k);
}

void key_link_open(struct key_link *link, const uint8_t peer[16]) {
    key_link_close(link);
    memcpy(link->peer, peer, sizeof(link->peer));
}

void key_link_close(struct key_link *link) {
    link->open = false;
    link->counter = 0;
    crypto_wipe(link->key, sizeof(link->key));
}

static bool is_granted(const struct key_app *k, uint32_t slot) {
    return k->state.granted.slots[slot].kind != KEY_EMPTY;
}

static const struct slot *slot_at(const struct key_app *k, uint32_t slot) {
    return is_granted(k, slot) ? &k->state.granted.slots[slot] : &k->put[slot];
}

static enum edged_status info(struct key_app *k, uint8_t *out) {
    struct key_info i = {.slots = KEY_SLOTS};

    if (port_emulated())
        i.flags |= EVAL_FLAG_EMULATED;
    if (identity_is_open(&k->identity)) {
        i.flags |= KEY_FLAG_IDENTITY;
        if (identity_thumbprint(&k->identity, i.device) != 0)
            return EDGED_ERR_UNAVAILABLE;
    }
    if (k->state.known)
        i.flags |= KEY_FLAG_STATE;
    if (k->state.pending)
        i.flags |= KEY_FLAG_PENDING;
    if (k->state.known && k->state.locked)
        i.flags |= KEY_FLAG_LOCKED;
    memcpy(i.node, k->node, sizeof(i.node));
    for (uint32_t s = 0; s < KEY_SLOTS; s++)
        i.kinds[s] = (uint8_t)slot_at(k, s)->kind;
    memcpy(out, &i, sizeof(i));
    return EDGED_OK;
}

static enum edged_status slot_put(struct key_app *k, const struct key_slot_put *p) {
    if (!port_emulated())
        return EDGED_ERR_KEY;
    if (p->slot >= KEY_SLOTS || p->kind < KEY_MODEL || p->kind > KEY_ALERT ||
        (p->key_bytes != 32 && !(p->key_bytes == 16 && p->kind == KEY_ALERT)))
        return EDGED_ERR_ARGUMENT;
    if (!is_zero(p->key + p->key_bytes, 32 - p->key_bytes))
        return EDGED_ERR_RESERVED;
    if (is_zero(p->verifier, sizeof(p->verifier)))
        return EDGED_ERR_ARGUMENT; /* a point of small order: it would verify what nobody signed */
    if (is_granted(k, p->slot))
        return EDGED_ERR_KEY;
    struct slot *s = &k->put[p->slot];
    s->kind = p->kind;
    s->key_bytes = p->key_bytes;
    memcpy(s->key_id, p->key_id, sizeof(s->key_id));
    memcpy(s->key, p->key, sizeof(s->key));
    memcpy(s->verifier, p->verifier, sizeof(s->verifier));
    return EDGED_OK;
}

/* What was granted may not come back with an older state: clearing is a change, and its number stays. */
static enum edged_status slot_clear(struct key_app *k, const struct eval_index *i, uint8_t *out, size_t *out_bytes) {
    struct granted *draft;

    if (i->index >= KEY_SLOTS)
        return EDGED_ERR_ARGUMENT;
    if (!is_granted(k, i->index)) {
        crypto_wipe(&k->put[i->index], sizeof(k->put[i->index]));
        return EDGED_OK;
    }
    enum edged_status status = state_draft(&k->state, &k->identity, &draft);
    if (status == EDGED_OK) {
        crypto_wipe(&draft->slots[i->index], sizeof(draft->slots[i->index]));
        status = state_change(&k->state, draft, out);
        *out_bytes = sizeof(struct key_state);
    }
    state_release(draft);
    return status;
}

static enum edged_status identity_new(struct key_app *k, uint8_t *out) {
    const enum edged_status status = identity_draw(&k->identity, out);

    if (status == EDGED_OK)
        k->state.fresh = true;
    return status;
}

/* Form, device and signature, then what the slot and its numbers admit; the private key comes last. */
static enum edged_status take_grant(struct key_app *k, const uint8_t *bytes, size_t size_bytes, uint8_t *out) {
    struct granted *draft;
    struct grant g;
    enum edged_status status = state_draft(&k->state, &k->identity, &draft);

    if (status == EDGED_OK)
        status = grant_read(&g, bytes, size_bytes);
    if (status == EDGED_OK && memcmp(g.device, draft->device, sizeof(g.device)) != 0)
        status = EDGED_ERR_GRANT;
    if (status == EDGED_OK && k->put[g.slot].kind != KEY_EMPTY &&
        memcmp(k->put[g.slot].verifier, g.verifier, sizeof(g.verifier)) != 0)
        status = EDGED_ERR_KEY;
    if (status == EDGED_OK)
        status = grant_count(&g, draft);
    if (status == EDGED_OK)
        status = grant_open(&g, &k->identity, &draft->slots[g.slot]);
    if (status == EDGED_OK)
        status = state_change(&k->state, draft, out);
    if (status == EDGED_OK)
        crypto_wipe(&k->put[g.slot], sizeof(k->put[g.slot]));
    state_release(draft);
    return status;
}

static enum edged_status restore(struct key_app *k, const uint8_t *sealed) {
    for (uint32_t i = 0; i < KEY_SLOTS; i++)
        if (k->put[i].kind != KEY_EMPTY)
            return EDGED_ERR_ORDER;
    return state_restore(&k->state, &k->identity, sealed);
}

static enum edged_status hello(struct key_app *k, struct key_link *link, const struct key_hello *from_eval,
                               uint8_t *out) {
    struct key_hello mine;
    uint8_t private_key[32];
    enum edged_status status = EDGED_ERR_UNAVAILABLE;

    key_link_close(link);
    if (!link_accepts(from_eval, LINK_SIGNED_EVAL))
        return EDGED_ERR_KEY;
    if (link_hello(&mine, private_key) == 0 &&
        link_key(private_key, from_eval, from_eval, &mine, link->key) == 0) {
        link->open = true;
        memcpy(k->device.eval.measurement, from_eval->measurement, sizeof(k->device.eval.measurement));
        memcpy(k->device.eval.uuid, link->peer, sizeof(k->device.eval.uuid));
        k->device.eval.security_version = from_eval->security_version;
        k->device.eval_known = true;
        memcpy(out, &mine, sizeof(mine));
        status = EDGED_OK;
    }
    crypto_wipe(private_key, sizeof(private_key));
    return status;
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

static enum edged_status derive_key(const struct key_app *k, const struct key_derive *ask,
                                    struct key_material *m) {
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
    const struct slot *s = slot_at(k, ask->slot);
    if (s->kind != d->kind)
        return EDGED_ERR_KEY;
    if (is_granted(k, ask->slot) && k->state.locked)
        return EDGED_ERR_LOCKED;
    if (is_granted(k, ask->slot) && k->state.pending)
        return EDGED_ERR_ORDER; /* else a key might be used under a state that the next start takes back */
    memset(m, 0, sizeof(*m));
    memcpy(m->key_id, s->key_id, sizeof(m->key_id));
    memcpy(m->verifier, s->verifier, sizeof(m->verifier));
    memcpy(m->agreement, s->agreement, sizeof(m->agreement));
    memcpy(m->node, k->node, sizeof(m->node));
    if (d->label == NULL)
        return EDGED_OK;
    m->key_bytes = s->key_bytes;
    label = strlen(d->label);
    memcpy(context, d->label, label);
    memcpy(context + label, ask->context, ask->context_bytes);
    return crypto_hkdf_sha256(s->key, s->key_bytes, ask->salt, sizeof(ask->salt), context,
                              label + ask->context_bytes, m->key, s->key_bytes) == 0
               ? EDGED_OK
               : EDGED_ERR_UNAVAILABLE;
}

static enum edged_status derive(struct key_app *k, struct key_link *link, const struct key_derive *ask,
                                uint8_t *out) {
    struct key_material m = {0};
    struct key_sealed sealed = {.counter = link->counter + 1};
    uint8_t nonce[12] = {0};
    enum edged_status status = link->open ? derive_key(k, ask, &m) : EDGED_ERR_ORDER;

    if (status == EDGED_OK) {
        store_le64(nonce, sealed.counter);
        link->counter = sealed.counter;
        if (crypto_gcm_seal(link->key, 32, nonce, (const uint8_t *)ask, sizeof(*ask), (const uint8_t *)&m,
                            sizeof(m), sealed.sealed) == 0)
            memcpy(out, &sealed, sizeof(sealed));
        else
            status = EDGED_ERR_UNAVAILABLE;
    }
    crypto_wipe(&m, sizeof(m));
    return status;
}

/** struct entry - a command: on which port, how long its body and its answer are */
struct entry {
    uint16_t cmd;
    bool eval_port;
    uint32_t reserved_at;  /* where the body has its reserved word */
    uint32_t body_least;
    uint32_t body_most;
    uint32_t answer_bytes; /* or ITS_OWN: the command says */
};

#define NO_RESERVED UINT32_MAX
#define RESERVED(TYPE) (uint32_t)offsetof(struct TYPE, reserved)
#define EXACTLY(BYTES) (BYTES), (BYTES)
#define ITS_OWN UINT32_MAX
#define BODY_MAX (EDGED_MESSAGE_BYTES - (uint32_t)sizeof(struct edged_hdr))

static const struct entry TABLE[] = {
    {KEY_INFO, false, NO_RESERVED, EXACTLY(0), sizeof(struct key_info)},
    {KEY_STATS, false, NO_RESERVED, EXACTLY(0), sizeof(struct edged_memory)},
    {KEY_SLOT_PUT, false, RESERVED(key_slot_put), EXACTLY(sizeof(struct key_slot_put)), 0},
    {KEY_SLOT_CLEAR, false, RESERVED(eval_index), EXACTLY(sizeof(struct eval_index)), ITS_OWN},
    {KEY_IDENTITY_NEW, false, NO_RESERVED, EXACTLY(0), sizeof(struct key_identity)},
    {KEY_IDENTITY_OPEN, false, NO_RESERVED, EXACTLY(sizeof(struct key_identity)), 0},
    {KEY_REQUEST, false, NO_RESERVED, EXACTLY(sizeof(struct key_challenge)), ITS_OWN},
    {KEY_ATTEST, false, NO_RESERVED, KEY_NONCE_MIN, KEY_NONCE_MAX, ITS_OWN},
    {KEY_GRANT, false, NO_RESERVED, 1, BODY_MAX, sizeof(struct key_state)},
    {KEY_STATE, false, NO_RESERVED, EXACTLY(0), sizeof(struct key_state)},
    {KEY_RESTORE, false, NO_RESERVED, EXACTLY(sizeof(struct key_state)), 0},
    {KEY_COMMIT, false, NO_RESERVED, EXACTLY(sizeof(struct key_commit)), 0},
    {KEY_HELLO, true, NO_RESERVED, EXACTLY(sizeof(struct key_hello)), sizeof(struct key_hello)},
    {KEY_DERIVE, true, RESERVED(key_derive), EXACTLY(sizeof(struct key_derive)), sizeof(struct key_sealed)},
};

/* out: BODY_MAX; *out_bytes is read only where the table leaves the answer's length to the command. */
static enum edged_status run(struct key_app *k, struct key_link *link, uint16_t cmd, const uint8_t *body,
                             uint32_t body_bytes, uint8_t *out, size_t *out_bytes) {
    union { /* the request, copied to its type's alignment */
        struct key_slot_put put;
        struct eval_index index;
        struct key_commit commit;
        struct key_hello hello;
        struct key_derive derive;
    } in;
    struct edged_memory memory = {0};
    enum edged_status status = EDGED_OK;

    switch (cmd) {
    case KEY_INFO:
        return info(k, out);
    case KEY_STATS:
        port_memory(&memory);
        memcpy(out, &memory, sizeof(memory));
        return EDGED_OK;
    case KEY_SLOT_PUT:
        memcpy(&in.put, body, sizeof(in.put));
        status = slot_put(k, &in.put);
        crypto_wipe(&in, sizeof(in));
        return status;
    case KEY_SLOT_CLEAR:
        memcpy(&in.index, body, sizeof(in.index));
        return slot_clear(k, &in.index, out, out_bytes);
    case KEY_IDENTITY_NEW:
        return identity_new(k, out);
    case KEY_IDENTITY_OPEN:
        return identity_open(&k->identity, body);
    case KEY_REQUEST:
        return evidence_request(&k->device, &k->identity, body, out, BODY_MAX, out_bytes);
    case KEY_ATTEST:
        return evidence_attest(&k->device, &k->identity, body, body_bytes, out, BODY_MAX, out_bytes);
    case KEY_GRANT:
        return take_grant(k, body, body_bytes, out);
    case KEY_STATE:
        return state_answer(&k->state, &k->identity, out);
    case KEY_RESTORE:
        return restore(k, body);
    case KEY_COMMIT:
        memcpy(&in.commit, body, sizeof(in.commit));
        return state_commit(&k->state, in.commit.counter);
    case KEY_HELLO:
        memcpy(&in.hello, body, sizeof(in.hello));
        return hello(k, link, &in.hello, out);
    default: /* KEY_DERIVE: the table has no other */
        memcpy(&in.derive, body, sizeof(in.derive));
        return derive(k, link, &in.derive, out);
    }
}

static size_t answer_message(struct key_app *k, struct key_link *link, const uint8_t *request,
                             size_t size_bytes, uint8_t *answer) {
    struct edged_hdr h = {0};
    const struct entry *entry = NULL;
    enum edged_status status = EDGED_OK;
    size_t out_bytes = 0;

    memcpy(&h, request, size_bytes < sizeof(h) ? size_bytes : sizeof(h));
    for (size_t i = 0; i < sizeof(TABLE) / sizeof(TABLE[0]); i++)
        if (TABLE[i].cmd == h.cmd && TABLE[i].eval_port == (link != NULL))
            entry = &TABLE[i];
    if (size_bytes < sizeof(h) || size_bytes - sizeof(h) != h.len)
        status = EDGED_ERR_LENGTH;
    else if (h.version != EDGED_WIRE_VERSION)
        status = EDGED_ERR_VERSION;
    else if (h.reserved != 0 || h.status != 0)
        status = EDGED_ERR_RESERVED;
    else if (entry == NULL)
        status = EDGED_ERR_COMMAND;
    else if (h.len < entry->body_least || h.len > entry->body_most)
        status = EDGED_ERR_LENGTH;
    else if (entry->reserved_at != NO_RESERVED && load_le32(request + sizeof(h) + entry->reserved_at) != 0)
        status = EDGED_ERR_RESERVED;
    else
        status = run(k, link, h.cmd, request + sizeof(h), h.len, answer + sizeof(h), &out_bytes);
    h.version = EDGED_WIRE_VERSION;
    h.cmd = (uint16_t)(h.cmd | 1);
    h.status = status;
    h.len = 0;
    if (status == EDGED_OK)
        h.len = entry->answer_bytes == ITS_OWN ? (uint32_t)out_bytes : entry->answer_bytes;
    h.reserved = 0;
    memcpy(answer, &h, sizeof(h));
    return sizeof(h) + h.len;
}

size_t key_message(struct key_app *k, const uint8_t *request, size_t size_bytes, uint8_t *answer) {
    return answer_message(k, NULL, request, size_bytes, answer);
}

size_t key_eval_message(struct key_app *k, struct key_link *link, const uint8_t *request, size_t size_bytes,
                        uint8_t *answer) {
    return answer_message(k, link, request, size_bytes, answer);
}
