#include "keylink.h"

#include <string.h>

#include "bytes.h"
#include "crypto.h"
#include "link.h"
#include "port.h"

static const struct edged_hdr NO_HEADER;

/* What another session would be answered, too. */
static bool is_final(enum edged_status status) {
    return status == EDGED_ERR_KEY || status == EDGED_ERR_LOCKED;
}

/*
 * One exchange; the answer's body goes to out. UNAVAILABLE when nobody answered,
 * VERIFICATION when the answer is not the one expected (another session's, say).
 */
static enum edged_status exchange(struct keylink *k, enum key_cmd cmd, const void *body, uint32_t body_bytes,
                                  void *out, uint32_t out_bytes, bool *reconnected) {
    uint8_t request[sizeof(struct edged_hdr) + sizeof(struct key_hello)];
    uint8_t answer[sizeof(struct edged_hdr) + sizeof(struct key_hello)];
    struct edged_hdr h = NO_HEADER;
    long n;

    h.version = EDGED_WIRE_VERSION;
    h.cmd = (uint16_t)cmd;
    h.len = body_bytes;
    h.seq = ++k->seq;
    memcpy(request, &h, sizeof(h));
    memcpy(request + sizeof(h), body, body_bytes);
    n = port_key_call(request, sizeof(h) + body_bytes, answer, sizeof(answer), reconnected);
    if (n < (long)sizeof(h))
        return n < 0 ? EDGED_ERR_UNAVAILABLE : EDGED_ERR_VERIFICATION;
    memcpy(&h, answer, sizeof(h));
    if (h.version != EDGED_WIRE_VERSION || h.cmd != (uint16_t)cmd + 1 || h.seq != k->seq || h.reserved != 0 ||
        (size_t)n != sizeof(h) + h.len)
        return EDGED_ERR_VERIFICATION;
    if (h.status != EDGED_OK)
        return is_final((enum edged_status)h.status) ? (enum edged_status)h.status : EDGED_ERR_VERIFICATION;
    if (h.len != out_bytes)
        return EDGED_ERR_VERIFICATION;
    if (out_bytes != 0)
        memcpy(out, answer + sizeof(h), out_bytes);
    return EDGED_OK;
}

static enum edged_status open_link(struct keylink *k) {
    struct key_hello mine, theirs;
    struct key_confirm confirm;
    uint8_t private_key[32];
    bool reconnected = false;
    enum edged_status status = EDGED_ERR_UNAVAILABLE;

    crypto_wipe(k->key, sizeof(k->key));
    k->open = 0;
    k->counter = 0;
    if (link_hello(&mine, private_key) == 0)
        status = exchange(k, KEY_HELLO, &mine, sizeof(mine), &theirs, sizeof(theirs), &reconnected);
    if (status == EDGED_OK) {
        status = EDGED_ERR_VERIFICATION;
        if (link_accepts(&theirs, LINK_SIGNED_KEY) &&
            link_key(private_key, &theirs, &mine, &theirs, k->key) == 0 && link_tag(k->key, confirm.tag) == 0)
            status = exchange(k, KEY_CONFIRM, &confirm, sizeof(confirm), NULL, 0, &reconnected);
        if (is_final(status))
            status = EDGED_ERR_VERIFICATION; /* not of a slot: the hellos were falsified between us */
        k->open = status == EDGED_OK;
    }
    crypto_wipe(private_key, sizeof(private_key));
    return status;
}

enum edged_status keylink_derive(struct keylink *k, uint32_t slot, enum key_purpose purpose,
                                 const uint8_t salt[32], const uint8_t *context, uint32_t context_bytes,
                                 struct key_material *out) {
    struct key_derive ask = {.slot = slot, .purpose = purpose, .context_bytes = context_bytes};
    struct key_sealed sealed;
    enum edged_status status = EDGED_ERR_UNAVAILABLE;

    memcpy(ask.salt, salt, sizeof(ask.salt));
    if (context_bytes != 0)
        memcpy(ask.context, context, context_bytes);
    /* A key application that was restarted knows no session: the second try opens one. */
    for (uint32_t attempt = 0; attempt < 2; attempt++) {
        bool reconnected = false;
        uint8_t nonce[12] = {0};

        status = k->open ? EDGED_OK : open_link(k);
        if (status == EDGED_OK)
            status = exchange(k, KEY_DERIVE, &ask, sizeof(ask), &sealed, sizeof(sealed), &reconnected);
        if (is_final(status))
            return status;
        if (status == EDGED_OK && !reconnected && sealed.counter == k->counter + 1) {
            store_le64(nonce, sealed.counter);
            k->counter = sealed.counter;
            if (crypto_gcm_open(k->key, 32, nonce, (const uint8_t *)&ask, sizeof(ask), sealed.sealed,
                                sizeof(*out), (uint8_t *)out) == 0)
                return EDGED_OK;
        }
        k->open = 0;
        if (status == EDGED_ERR_UNAVAILABLE)
            break; /* nobody there: another try would only take the time again */
    }
    return EDGED_ERR_UNAVAILABLE;
}

bool keylink_fits(const struct key_material *m, const uint8_t agreement[32]) {
    return is_zero(m->agreement, sizeof(m->agreement)) || memcmp(m->agreement, agreement, 32) == 0;
}
