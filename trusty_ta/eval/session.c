/*
 * session.c - cameras. The session, never a header, says whose clip it is; a
 * clip is accepted once, and again only after it failed, as the same sealed
 * bytes, at most twice.
 */
#include <stdlib.h>

#include "bytes.h"
#include "port.h"
#include "state.h"

/* The camera's own, else a free one. */
static struct session *find_session(struct eval *e, const struct eval_session_open *ask) {
    struct session *empty = NULL;

    for (uint32_t i = 0; i < EVAL_SESSIONS_MAX; i++) {
        struct session *s = &e->sessions[i];
        if (s->open && s->agreement == ask->agreement && memcmp(s->camera, ask->camera, sizeof(s->camera)) == 0)
            return s;
        if (!s->open && empty == NULL)
            empty = s;
    }
    return empty;
}

/* The one that the camera has under an agreement that this one may follow, the last of them; or NULL. */
static struct session *find_former(struct eval *e, const struct eval_session_open *ask) {
    struct session *former = NULL;

    for (uint32_t i = 0; i < EVAL_SESSIONS_MAX; i++) {
        struct session *s = &e->sessions[i];
        const struct agreement *of = &e->agreements[s->agreement];
        if (s->open && memcmp(s->camera, ask->camera, sizeof(s->camera)) == 0 &&
            succession_may(&e->agreements[ask->agreement], of) &&
            (former == NULL || of->number > e->agreements[former->agreement].number))
            former = s;
    }
    return former;
}

enum edged_status session_open(struct eval *e, const struct eval_session_open *ask, struct eval_session *out) {
    static const char label[] = "edged session v1";
    static const uint8_t no_salt[32];
    struct agreement *a = &e->agreements[ask->agreement % EVAL_AGREEMENTS_MAX];
    struct session *s, *former, fresh;
    struct key_material camera = {0};
    uint8_t salt[64];
    enum edged_status status;

    if (ask->agreement >= EVAL_AGREEMENTS_MAX || !a->open)
        return EDGED_ERR_ARGUMENT;
    if (succession_is_over(e, a))
        return EDGED_ERR_AGREEMENT; /* in force for the cameras that it has, until they go over */
    s = find_session(e, ask);
    if (s == NULL)
        return EDGED_ERR_MEMORY;
    former = s->open ? NULL : find_former(e, ask);
    if (s->unfinished)
        return EDGED_ERR_ORDER; /* its clip needs a record first */
    memset(&fresh, 0, sizeof(fresh));
    fresh.agreement = ask->agreement;
    memcpy(fresh.camera, ask->camera, sizeof(fresh.camera));
    if (s->open) { /* what goes on although the key is new */
        fresh.accepted = s->accepted;
        fresh.failed = s->failed;
        memcpy(fresh.events, s->events, sizeof(fresh.events));
    }
    memset(out, 0, sizeof(*out));
    status = port_random(out->nonce, sizeof(out->nonce)) == 0 ? EDGED_OK : EDGED_ERR_UNAVAILABLE;
    if (status == EDGED_OK)
        status = keylink_derive(&e->keylink, a->data_slot, KEY_FOR_CAMERA, no_salt, ask->camera,
                                sizeof(ask->camera), &camera);
    if (status == EDGED_OK && (memcmp(camera.verifier, a->qdo, sizeof(a->qdo)) != 0 ||
                               memcmp(camera.key_id, a->data_key, sizeof(a->data_key)) != 0 ||
                               !keylink_fits(&camera, a->digest)))
        status = EDGED_ERR_KEY; /* the slot has another key since: one owner's clips under another's agreement */
    if (status == EDGED_OK)
        status = agreement_raise(a, &camera, false, port_uptime_ns()); /* the city may have spoken since it began */
    memcpy(salt, ask->nonce, 32);
    memcpy(salt + 32, out->nonce, 32);
    if (status == EDGED_OK && crypto_hkdf_sha256(camera.key, camera.key_bytes, salt, sizeof(salt),
                                                 (const uint8_t *)label, sizeof(label) - 1, fresh.key,
                                                 camera.key_bytes) != 0)
        status = EDGED_ERR_UNAVAILABLE;
    if (status == EDGED_OK) {
        if (former != NULL)
            succession_events(a, &e->agreements[former->agreement], former->events, fresh.events);
        fresh.open = true;
        fresh.key_bytes = camera.key_bytes;
        *s = fresh;
        out->session = (uint32_t)(s - e->sessions);
    }
    crypto_wipe(&camera, sizeof(camera));
    crypto_wipe(&fresh, sizeof(fresh));
    return status;
}

enum edged_status session_close(struct eval *e, const struct eval_index *ask) {
    struct session *s = &e->sessions[ask->index % EVAL_SESSIONS_MAX];

    if (ask->index >= EVAL_SESSIONS_MAX || !s->open)
        return EDGED_ERR_ARGUMENT;
    if (s->unfinished)
        return EDGED_ERR_ORDER; /* its clip needs a record first */
    crypto_wipe(s, sizeof(*s));
    return EDGED_OK;
}

static size_t clip_bytes(const struct model *m, uint32_t persons) {
    return sizeof(struct edged_clip) + (size_t)persons * m->frames * m->joints * 6 + EVAL_TAG_BYTES;
}

enum edged_status session_admits(const struct eval *e, const struct eval_clip_open *ask) {
    const struct session *s = &e->sessions[ask->session % EVAL_SESSIONS_MAX];
    const struct agreement *a = &e->agreements[s->agreement];
    const size_t empty = clip_bytes(&e->model, 0), person = clip_bytes(&e->model, 1) - empty;

    if (ask->session >= EVAL_SESSIONS_MAX || !s->open)
        return EDGED_ERR_ARGUMENT;
    if (ask->bytes < empty || (ask->bytes - empty) % person != 0 ||
        (ask->bytes - empty) / person > e->model.persons)
        return EDGED_ERR_LENGTH;
    if (s->unfinished && (ask->number != s->number || s->attempts >= EVAL_ATTEMPTS_MAX))
        return EDGED_ERR_ORDER;
    if (!s->unfinished && ask->number <= s->number)
        return EDGED_ERR_CLIP;
    if (!s->unfinished && !record_room(e, a, a->recipient_count))
        return EDGED_ERR_FULL;
    /* Again, too: another model or placement may be loaded since. */
    return agreement_admits(a, &e->model, e->network.placement, s->unfinished, port_uptime_ns());
}

void session_forget(struct eval *e) {
    struct skeletons *s = &e->skeletons;

    if (s->xy != NULL)
        crypto_wipe(s->xy, (size_t)s->persons * s->frames * s->joints * 4);
    free(s->xy);
    *s = (struct skeletons){.xy = NULL};
}

/* What its records may tell of the clip: its activations soon lie where it lies now. */
static enum edged_status keep_skeletons(struct eval *e, const struct edged_clip *head, const uint8_t *coordinates) {
    const size_t points = (size_t)head->persons * head->frames * head->joints;
    struct skeletons *s = &e->skeletons;

    session_forget(e);
    if (points == 0)
        return EDGED_OK;
    *s = (struct skeletons){head->persons, head->frames, head->joints, malloc(points * 4)};
    if (s->xy == NULL)
        return EDGED_ERR_MEMORY;
    for (size_t i = 0; i < points; i++)
        memcpy(s->xy + 2 * i, coordinates + 6 * i, 4); /* x and y, not the confidence */
    return EDGED_OK;
}

enum edged_status session_accept(struct eval *e, uint32_t *persons) {
    static const char label[] = "edged clip v1";
    struct session *s = &e->sessions[e->clip.session];
    uint8_t *sealed = (uint8_t *)e->network.g, tag[EVAL_TAG_BYTES];
    uint8_t nonce[12] = {0}, aad[sizeof(label) - 1 + 4 + 8];
    const size_t plain = e->clip.bytes - EVAL_TAG_BYTES;
    const uint64_t uptime_ns = port_uptime_ns();
    struct edged_clip head;
    /* Root may have left it announced for as long as it liked. */
    const enum edged_status status = agreement_admits(&e->agreements[s->agreement], &e->model, e->network.placement,
                                                      s->unfinished, uptime_ns);

    if (status != EDGED_OK)
        return status;
    memcpy(tag, sealed + plain, sizeof(tag));
    if (s->unfinished && memcmp(tag, s->tag, sizeof(tag)) != 0)
        return EDGED_ERR_CLIP; /* not the clip that failed */
    store_le64(nonce, e->clip.number);
    memcpy(aad, label, sizeof(label) - 1);
    store_le32(aad + sizeof(label) - 1, e->clip.session);
    store_le64(aad + sizeof(label) + 3, e->clip.number);
    if (crypto_gcm_open(s->key, s->key_bytes, nonce, aad, sizeof(aad), sealed, plain, sealed) != 0)
        return EDGED_ERR_CLIP;
    memcpy(&head, sealed, sizeof(head));
    if (head.version != 1 || head.persons > e->model.persons || head.frames != e->model.frames ||
        head.joints != e->model.joints || e->clip.bytes != clip_bytes(&e->model, head.persons) ||
        memcmp(head.camera, s->camera, sizeof(head.camera)) != 0)
        return EDGED_ERR_CLIP;
    for (uint32_t i = head.persons; i < 8; i++)
        if (head.tracks[i] != 0)
            return EDGED_ERR_CLIP;
    if (agreement_tells_skeletons(&e->agreements[s->agreement])) {
        const enum edged_status kept = keep_skeletons(e, &head, sealed + sizeof(head));
        if (kept != EDGED_OK)
            return kept;
    }
    if (!s->unfinished) {
        agreement_count(&e->agreements[s->agreement], uptime_ns);
        s->accepted++;
    }
    s->attempts = s->unfinished ? s->attempts + 1 : 1;
    s->unfinished = true;
    s->number = e->clip.number;
    memcpy(s->tag, tag, sizeof(tag));
    memcpy(s->model, e->model_digest, sizeof(s->model));
    s->labels = e->model.labels;
    s->claimed_ns = head.claimed_ns;
    s->persons = head.persons;
    memcpy(s->tracks, head.tracks, sizeof(s->tracks));
    *persons = head.persons;
    e->network.persons = head.persons;
    network_input(&e->network, (const int16_t *)(const void *)(sealed + sizeof(head)));
    return EDGED_OK;
}
