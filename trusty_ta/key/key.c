/*
 * key.c - the key application: its messages, and the link to the evaluation application; the slots that hold keys and
 * the device's identity. Neither the slots' keys nor those of the identity are ever answered.
 */
#include "key.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "crypto.h"
#include "evidence.h"
#include "identity.h"
#include "link.h"
#include "port.h"
#include "slots.h"

struct key_app {
    struct slots slots;
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
    uint8_t peer[sizeof(link->peer)];

    memcpy(peer, link->peer, sizeof(peer));
    crypto_wipe(link, sizeof(*link));
    memcpy(link->peer, peer, sizeof(peer));
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
    if (k->slots.state.known)
        i.flags |= KEY_FLAG_STATE;
    if (k->slots.state.pending)
        i.flags |= KEY_FLAG_PENDING;
    memcpy(i.node, k->node, sizeof(i.node));
    for (uint32_t s = 0; s < KEY_SLOTS; s++) {
        i.kinds[s] = (uint8_t)slots_kind(&k->slots, s);
        if (slots_locked(&k->slots, s))
            i.flags |= KEY_FLAG_LOCKED;
    }
    memcpy(out, &i, sizeof(i));
    return EDGED_OK;
}

static enum edged_status identity_new(struct key_app *k, uint8_t *out) {
    const enum edged_status status = identity_draw(&k->identity, out);

    if (status == EDGED_OK)
        k->slots.state.fresh = true;
    return status;
}

static enum edged_status hello(struct key_link *link, const struct key_hello *from_eval, uint8_t *out) {
    struct key_hello mine;
    uint8_t private_key[32];
    enum edged_status status = EDGED_ERR_UNAVAILABLE;

    key_link_close(link);
    if (!link_accepts(from_eval, LINK_SIGNED_EVAL))
        return EDGED_ERR_KEY;
    if (link_hello(&mine, private_key) == 0 &&
        link_key(private_key, from_eval, from_eval, &mine, link->key) == 0) {
        link->open = true;
        memcpy(link->measurement, from_eval->measurement, sizeof(link->measurement));
        link->security_version = from_eval->security_version;
        memcpy(out, &mine, sizeof(mine));
        status = EDGED_OK;
    }
    crypto_wipe(private_key, sizeof(private_key));
    return status;
}

/*
 * A hello can be harvested and shown again by whoever gets at this port. What only the other application can make is
 * the tag, and until it is there, nothing is derived and nobody named.
 */
static enum edged_status confirm(struct key_app *k, struct key_link *link, const struct key_confirm *ask) {
    uint8_t tag[sizeof(ask->tag)];
    enum edged_status status = EDGED_OK;

    if (!link->open || link->confirmed)
        return EDGED_ERR_ORDER;
    if (link_tag(link->key, tag) != 0)
        status = EDGED_ERR_UNAVAILABLE;
    else if (!crypto_equal(tag, ask->tag, sizeof(tag)))
        status = EDGED_ERR_KEY;
    crypto_wipe(tag, sizeof(tag));
    if (status != EDGED_OK) {
        key_link_close(link);
        return status;
    }
    link->confirmed = true;
    memcpy(k->device.eval.measurement, link->measurement, sizeof(k->device.eval.measurement));
    memcpy(k->device.eval.uuid, link->peer, sizeof(k->device.eval.uuid));
    k->device.eval.security_version = link->security_version;
    k->device.eval_known = true;
    return EDGED_OK;
}

static enum edged_status derive(struct key_app *k, struct key_link *link, const struct key_derive *ask,
                                uint8_t *out) {
    struct key_material m = {0};
    struct key_sealed sealed = {.counter = link->counter + 1};
    uint8_t nonce[12] = {0};
    enum edged_status status = link->confirmed ? slots_derive(&k->slots, ask, &m) : EDGED_ERR_ORDER;

    if (status == EDGED_OK) {
        memcpy(m.node, k->node, sizeof(m.node));
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
    {KEY_FLOOR, false, NO_RESERVED, 1, BODY_MAX, sizeof(struct key_state)},
    {KEY_LIST, false, NO_RESERVED, EXACTLY(0), KEY_SLOTS * sizeof(struct key_listed)},
    {KEY_HELLO, true, NO_RESERVED, EXACTLY(sizeof(struct key_hello)), sizeof(struct key_hello)},
    {KEY_DERIVE, true, RESERVED(key_derive), EXACTLY(sizeof(struct key_derive)), sizeof(struct key_sealed)},
    {KEY_CONFIRM, true, NO_RESERVED, EXACTLY(sizeof(struct key_confirm)), 0},
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
        struct key_confirm confirm;
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
        status = slots_put(&k->slots, &in.put);
        crypto_wipe(&in, sizeof(in));
        return status;
    case KEY_SLOT_CLEAR:
        memcpy(&in.index, body, sizeof(in.index));
        return slots_clear(&k->slots, &k->identity, &in.index, out, out_bytes);
    case KEY_IDENTITY_NEW:
        return identity_new(k, out);
    case KEY_IDENTITY_OPEN:
        return identity_open(&k->identity, body);
    case KEY_REQUEST:
        return evidence_request(&k->device, &k->identity, body, out, BODY_MAX, out_bytes);
    case KEY_ATTEST:
        return evidence_attest(&k->device, &k->identity, body, body_bytes, out, BODY_MAX, out_bytes);
    case KEY_GRANT:
        return slots_grant(&k->slots, &k->identity, body, body_bytes, out);
    case KEY_STATE:
        return state_answer(&k->slots.state, &k->identity, out);
    case KEY_RESTORE:
        return slots_restore(&k->slots, &k->identity, body);
    case KEY_COMMIT:
        memcpy(&in.commit, body, sizeof(in.commit));
        return state_commit(&k->slots.state, in.commit.counter);
    case KEY_FLOOR:
        return slots_floor(&k->slots, &k->identity, k->device.bootseed, body, body_bytes, out);
    case KEY_LIST:
        slots_list(&k->slots, out);
        return EDGED_OK;
    case KEY_CONFIRM:
        memcpy(&in.confirm, body, sizeof(in.confirm));
        return confirm(k, link, &in.confirm);
    case KEY_HELLO:
        memcpy(&in.hello, body, sizeof(in.hello));
        return hello(link, &in.hello, out);
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
