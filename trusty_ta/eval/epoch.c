/*
 * epoch.c - what is said beside the clips: how an epoch begins and ends, that the
 * enclave lives, and what the node itself claims. How one agreement follows another:
 * succession.c.
 *
 * An epoch is the time from the enclave's start, or from EVAL_CLOSE, to the next
 * one; its name and salt are random. Sealed state carries the last one's name over a
 * restart, so that the first record of each recipient can say what came before.
 */
#include "bytes.h"
#include "port.h"
#include "state.h"

static_assert(sizeof(struct epoch_summary) + EVAL_TAG_BYTES == sizeof(((struct edged_state *)NULL)->sealed),
              "the plaintext of struct edged_state");

enum edged_status epoch_begin(struct eval *e) {
    uint8_t epoch[16], salt[32];

    if (port_random(epoch, sizeof(epoch)) != 0 || port_random(salt, sizeof(salt)) != 0)
        return EDGED_ERR_UNAVAILABLE;
    memcpy(e->epoch, epoch, sizeof(epoch));
    memcpy(e->salt, salt, sizeof(salt));
    e->states = 0;
    e->counter++;
    return EDGED_OK;
}

/* Key, nonce and associated data of a sealed state. */
static int state_crypto(const struct eval *e, const struct edged_state *s, uint8_t key[32], uint8_t nonce[12],
                        uint8_t aad[24]) {
    static const char label[] = "edged state v1";
    uint8_t salt[32] = {0};

    memcpy(salt, s->epoch, sizeof(s->epoch));
    memset(nonce, 0, 12);
    store_le64(nonce, s->count);
    memcpy(aad, s->epoch, sizeof(s->epoch));
    store_le64(aad + sizeof(s->epoch), s->count);
    return crypto_hkdf_sha256(e->state_key, sizeof(e->state_key), salt, sizeof(salt), (const uint8_t *)label,
                              sizeof(label) - 1, key, 32);
}

static void summarise(const struct eval *e, bool closed, uint64_t uptime_ns, struct epoch_summary *out) {
    out->counter = e->counter;
    out->closed = closed;
    past_summarise(e, closed, uptime_ns, out->pasts);
}

static enum edged_status seal_state(struct eval *e, const struct epoch_summary *summary, struct edged_state *out) {
    uint8_t key[32], nonce[12], aad[24];
    int rc;

    memset(out, 0, sizeof(*out));
    memcpy(out->epoch, e->epoch, sizeof(out->epoch));
    out->count = ++e->states; /* the nonce: never twice in an epoch */
    rc = state_crypto(e, out, key, nonce, aad);
    if (rc == 0)
        rc = crypto_gcm_seal(key, sizeof(key), nonce, aad, sizeof(aad), (const uint8_t *)summary,
                             sizeof(*summary), out->sealed);
    crypto_wipe(key, sizeof(key));
    return rc == 0 ? EDGED_OK : EDGED_ERR_UNAVAILABLE;
}

enum edged_status epoch_restore(struct eval *e, const struct edged_state *sealed) {
    uint8_t key[32], nonce[12], aad[24];
    struct epoch_summary plain;
    int rc;

    if (e->previous_known)
        return EDGED_ERR_ORDER;
    for (uint32_t i = 0; i < EVAL_AGREEMENTS_MAX; i++)
        if (e->agreements[i].open)
            return EDGED_ERR_ORDER; /* its first records said already what came before */
    if (memcmp(sealed->epoch, e->epoch, sizeof(e->epoch)) == 0)
        return EDGED_ERR_ORDER; /* of this epoch itself */
    rc = state_crypto(e, sealed, key, nonce, aad);
    if (rc == 0)
        rc = crypto_gcm_open(key, sizeof(key), nonce, aad, sizeof(aad), sealed->sealed, sizeof(plain),
                             (uint8_t *)&plain);
    crypto_wipe(key, sizeof(key));
    if (rc != 0)
        return EDGED_ERR_STATE;
    e->previous_closed = plain.closed != 0;
    past_restore(e, plain.pasts, port_uptime_ns());
    memcpy(e->previous_epoch, sealed->epoch, sizeof(e->previous_epoch));
    e->previous_known = true;
    e->counter = plain.counter + 1;
    return EDGED_OK;
}

/* The recipient's first record: what came before for him, however many epochs ago. */
static int say_epoch(struct eval *e, uint32_t agreement, uint32_t recipient, uint64_t since) {
    const struct agreement *a = &e->agreements[agreement];
    const struct past *past = past_find(e, a->recipients[recipient].rcpt, a->qdo);
    const bool known = past != NULL && past->seq != 0;
    struct edged_epoch body = {.version = EDGED_BODY_VERSION,
                               .kind = EDGED_EPOCH,
                               .unclean = !e->previous_known || !e->previous_closed || (known && !past->closed),
                               .counter = e->counter,
                               .previous_seq = known ? past->seq : 0};

    memcpy(body.previous, known ? past->epoch : e->previous_epoch, sizeof(body.previous));
    memcpy(body.agreement, a->digest, sizeof(body.agreement));
    uint8_t *const out = record_body(e, agreement, since);
    if (out == NULL)
        return -1;
    memcpy(out, &body, sizeof(body));
    return record_seal(e, agreement, recipient, EDGED_EPOCH, since);
}

/*
 * The keys that the agreement names are those of the slots, granted for it; recipients' keys of this epoch.
 * So no agreement is ever in force whose model its owner did not grant for it, whenever the model is loaded.
 */
static enum edged_status take_keys(struct eval *e, struct agreement *a, const struct eval_agreement *ask) {
    static const uint8_t no_salt[32];
    struct key_material m = {0};
    uint8_t context[16 + 32];
    enum edged_status status = keylink_derive(&e->keylink, ask->model_slot, KEY_OF_MODEL, no_salt, NULL, 0, &m);

    if (status == EDGED_OK && (memcmp(m.verifier, a->mo, sizeof(a->mo)) != 0 ||
                               memcmp(m.key_id, a->model_key, sizeof(a->model_key)) != 0))
        status = EDGED_ERR_AGREEMENT;
    if (status == EDGED_OK && !keylink_fits(&m, a->digest))
        status = EDGED_ERR_KEY;
    if (status == EDGED_OK)
        status = agreement_raise(a, &m, true, port_uptime_ns());
    if (status == EDGED_OK)
        status = keylink_derive(&e->keylink, ask->data_slot, KEY_OF_DATA, no_salt, NULL, 0, &m);
    if (status == EDGED_OK && (memcmp(m.verifier, a->qdo, sizeof(a->qdo)) != 0 ||
                               memcmp(m.key_id, a->data_key, sizeof(a->data_key)) != 0))
        status = EDGED_ERR_AGREEMENT;
    if (status == EDGED_OK && !keylink_fits(&m, a->digest))
        status = EDGED_ERR_KEY;
    if (status == EDGED_OK)
        status = agreement_raise(a, &m, false, port_uptime_ns());
    for (uint32_t i = 0; i < a->recipient_count && status == EDGED_OK; i++) {
        struct recipient *to = &a->recipients[i];
        memcpy(context, to->rcpt, sizeof(to->rcpt));
        memcpy(context + sizeof(to->rcpt), a->digest, sizeof(a->digest));
        status = keylink_derive(&e->keylink, ask->alert_slots[i], KEY_FOR_RECORD, e->salt, context,
                                sizeof(context), &to->record);
        if (status == EDGED_OK)
            status = keylink_derive(&e->keylink, ask->alert_slots[i], KEY_FOR_BEACON, e->salt, context,
                                    sizeof(context), &to->beacon);
        /* Both are of one slot's key only if nobody exchanged it in between. */
        if (status == EDGED_OK && (memcmp(to->record.verifier, a->qdo, sizeof(a->qdo)) != 0 ||
                                   memcmp(to->beacon.verifier, a->qdo, sizeof(a->qdo)) != 0 ||
                                   memcmp(to->record.key_id, to->key_id, sizeof(to->key_id)) != 0 ||
                                   memcmp(to->beacon.key_id, to->key_id, sizeof(to->key_id)) != 0))
            status = EDGED_ERR_AGREEMENT;
        if (status == EDGED_OK &&
            (!keylink_fits(&to->record, a->digest) || !keylink_fits(&to->beacon, a->digest)))
            status = EDGED_ERR_KEY;
        if (status == EDGED_OK)
            status = agreement_raise(a, &to->record, false, port_uptime_ns());
        if (status == EDGED_OK) /* a floor may have come in between */
            status = agreement_raise(a, &to->beacon, false, port_uptime_ns());
    }
    crypto_wipe(&m, sizeof(m));
    return status;
}

/* Slots that exist, and none for recipients that do not. */
static enum edged_status judge_slots(const struct eval_agreement *ask, uint32_t recipients) {
    if (ask->model_slot >= KEY_SLOTS || ask->data_slot >= KEY_SLOTS)
        return EDGED_ERR_ARGUMENT;
    for (uint32_t i = 0; i < EDGED_RECIPIENTS_MAX; i++) {
        if (i < recipients && ask->alert_slots[i] >= KEY_SLOTS)
            return EDGED_ERR_ARGUMENT;
        if (i >= recipients && ask->alert_slots[i] != 0)
            return EDGED_ERR_RESERVED;
    }
    return EDGED_OK;
}

enum edged_status epoch_agree(struct eval *e, const struct eval_agreement *ask, const uint8_t *bytes, size_t size,
                              uint32_t *index) {
    struct agreement *a = &e->reading;
    const uint64_t since = e->emission + 1;
    enum edged_status status = size != ask->bytes ? EDGED_ERR_LENGTH : agreement_read(a, bytes, size);
    uint32_t place = EVAL_AGREEMENTS_MAX;

    if (status == EDGED_OK)
        status = judge_slots(ask, a->recipient_count);
    for (uint32_t i = EVAL_AGREEMENTS_MAX; i-- > 0 && status == EDGED_OK;) {
        if (e->agreements[i].open && memcmp(e->agreements[i].digest, a->digest, sizeof(a->digest)) == 0) {
            *index = i; /* in force already */
            crypto_wipe(a, sizeof(*a));
            return EDGED_OK;
        }
        if (!e->agreements[i].open && !e->agreements[i].over)
            place = i;
    }
    if (status == EDGED_OK && succession_is_over(e, a))
        status = EDGED_ERR_AGREEMENT;
    if (status == EDGED_OK && place == EVAL_AGREEMENTS_MAX)
        status = EDGED_ERR_MEMORY;
    if (status == EDGED_OK)
        status = record_admits(e, a);
    if (status == EDGED_OK)
        status = past_admits(e, a);
    if (status == EDGED_OK && !record_room(e, a, a->recipient_count))
        status = EDGED_ERR_FULL;
    if (status == EDGED_OK)
        status = take_keys(e, a, ask);
    if (status == EDGED_OK) {
        const uint64_t uptime_ns = port_uptime_ns();
        a->open = true;
        a->data_slot = ask->data_slot;
        allowance_resume(e, a, uptime_ns);
        past_resume(e, a, uptime_ns);
        e->agreements[place] = *a;
        *index = place;
        for (uint32_t i = 0; i < a->recipient_count && status == EDGED_OK; i++)
            if (say_epoch(e, place, i, since) != 0)
                status = EDGED_ERR_UNAVAILABLE;
        if (status != EDGED_OK) /* its first numbers are not spent: what they sealed never left */
            crypto_wipe(&e->agreements[place], sizeof(e->agreements[place]));
    }
    crypto_wipe(a, sizeof(*a));
    return status;
}

enum edged_status epoch_confirm(struct eval *e, uint64_t emission, struct edged_state *out) {
    struct epoch_summary now;

    if (emission > e->emission)
        return EDGED_ERR_ARGUMENT;
    record_confirm(e, emission);
    succession_release(e);
    summarise(e, false, port_uptime_ns(), &now);
    return seal_state(e, &now, out);
}

enum edged_status epoch_close(struct eval *e, struct edged_state *out) {
    const uint64_t uptime_ns = port_uptime_ns();
    struct epoch_summary now;
    uint8_t closed[16];
    enum edged_status status;

    for (uint32_t i = 0; i < EVAL_SESSIONS_MAX; i++)
        if (e->sessions[i].open && e->sessions[i].unfinished)
            return EDGED_ERR_ORDER;
    if (e->kept[0].emission != 0)
        return EDGED_ERR_ORDER; /* something is kept still */
    summarise(e, true, uptime_ns, &now);
    status = seal_state(e, &now, out);
    memcpy(closed, e->epoch, sizeof(closed));
    if (status == EDGED_OK)
        status = epoch_begin(e);
    if (status != EDGED_OK)
        return status;
    e->previous_closed = true;
    e->previous_known = true;
    memcpy(e->previous_epoch, closed, sizeof(closed));
    past_restore(e, now.pasts, uptime_ns);
    for (uint32_t i = 0; i < EVAL_AGREEMENTS_MAX; i++)
        if (e->agreements[i].open)
            allowance_keep(e, &e->agreements[i]);
    crypto_wipe(e->sessions, sizeof(e->sessions));
    crypto_wipe(e->agreements, sizeof(e->agreements));
    memset(e->sequences, 0, sizeof(e->sequences));
    return EDGED_OK;
}

/* Clips of the agreement's cameras. */
static uint32_t count_cameras(const struct eval *e, uint32_t agreement, uint8_t *out) {
    uint32_t cameras = 0;

    for (uint32_t i = 0; i < EVAL_SESSIONS_MAX; i++) {
        const struct session *s = &e->sessions[i];
        struct edged_camera_count c = {.accepted = s->accepted, .failed = s->failed};
        uint8_t digest[32];
        if (!s->open || s->agreement != agreement || crypto_sha256(s->camera, sizeof(s->camera), digest) != 0)
            continue;
        memcpy(c.camera, digest, sizeof(c.camera));
        memcpy(out + cameras++ * sizeof(c), &c, sizeof(c));
    }
    return cameras;
}

static enum edged_status say_heartbeat(struct eval *e, uint32_t agreement, uint32_t recipient,
                                       const struct eval_beacon *ask, uint64_t uptime_ns) {
    struct edged_heartbeat body = {.version = EDGED_BODY_VERSION,
                                   .kind = EDGED_HEARTBEAT,
                                   .time_ns = ask->beacon.time_ns,
                                   .uptime_ns = uptime_ns,
                                   .seq = record_next_seq(e, e->agreements[agreement].recipients[recipient].rcpt),
                                   .counter = e->counter};

    const uint64_t since = e->emission + 1;
    uint8_t *const out = record_body(e, agreement, since);

    if (out == NULL)
        return EDGED_ERR_UNAVAILABLE;
    body.cameras = count_cameras(e, agreement, out + sizeof(body));
    memcpy(body.nonce, ask->beacon.nonce, sizeof(body.nonce));
    memcpy(body.config, ask->config, sizeof(body.config));
    memcpy(out, &body, sizeof(body));
    return record_seal(e, agreement, recipient, EDGED_HEARTBEAT, since) == 0 ? EDGED_OK : EDGED_ERR_UNAVAILABLE;
}

static bool beacon_is_from(const struct edged_beacon *b, const struct recipient *r) {
    uint8_t tag[32];
    const bool is = memcmp(b->rcpt, r->rcpt, sizeof(r->rcpt)) == 0 &&
                    crypto_hmac_sha256(r->beacon.key, r->beacon.key_bytes, (const uint8_t *)b,
                                       offsetof(struct edged_beacon, tag), tag) == 0 &&
                    crypto_equal(tag, b->tag, sizeof(tag));

    crypto_wipe(tag, sizeof(tag)); /* what the caller guessed at */
    return is;
}

enum edged_status epoch_beacon(struct eval *e, const struct eval_beacon *ask) {
    const uint64_t uptime_ns = port_uptime_ns();

    for (uint32_t i = 0; i < EVAL_AGREEMENTS_MAX; i++)
        for (uint32_t k = 0; k < e->agreements[i].recipient_count && e->agreements[i].open; k++) {
            struct agreement *a = &e->agreements[i];
            struct recipient *r = &a->recipients[k];
            if (!beacon_is_from(&ask->beacon, r))
                continue;
            if (ask->beacon.version != 1 || ask->beacon.time_ns > INT64_MAX || ask->beacon.time_ns <= r->beacon_ns)
                return EDGED_ERR_ARGUMENT; /* no time, or one of before */
            if (!record_room(e, a, 1))
                return EDGED_ERR_FULL;
            const enum edged_status status = say_heartbeat(e, i, k, ask, uptime_ns);
            if (status != EDGED_OK)
                return status;
            r->beacon_ns = ask->beacon.time_ns;
            past_hear(e, a, r, ask->beacon.time_ns, uptime_ns);
            agreement_hear(a, ask->beacon.time_ns, uptime_ns);
            return EDGED_OK;
        }
    return EDGED_ERR_KEY;
}

enum edged_status epoch_claim(struct eval *e, const struct eval_claim *ask, const uint8_t *bytes, size_t size) {
    const struct agreement *a = &e->agreements[ask->agreement % EVAL_AGREEMENTS_MAX];
    const struct edged_claim body = {
        .version = EDGED_BODY_VERSION, .kind = ask->kind, .bytes = ask->bytes};
    const uint64_t since = e->emission + 1;

    if (size != ask->bytes)
        return EDGED_ERR_LENGTH;
    if (ask->agreement >= EVAL_AGREEMENTS_MAX || !a->open || ask->kind < EDGED_CAMERA ||
        ask->kind > EDGED_EVICTED || size > EDGED_CLAIM_MAX)
        return EDGED_ERR_ARGUMENT;
    if (!record_room(e, a, a->recipient_count))
        return EDGED_ERR_FULL;
    for (uint32_t i = 0; i < a->recipient_count; i++) {
        uint8_t *const out = record_body(e, ask->agreement, since);
        if (out == NULL)
            return EDGED_ERR_UNAVAILABLE;
        memcpy(out, &body, sizeof(body));
        memcpy(out + sizeof(body), bytes, size);
        if (record_seal(e, ask->agreement, i, (enum edged_record_kind)ask->kind, since) != 0)
            return EDGED_ERR_UNAVAILABLE;
    }
    return EDGED_OK;
}
