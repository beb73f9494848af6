/*
 * load.c - a package on its way in: owner's signature, then every chunk's seal,
 * then the bounds; only then is there a model.
 */
#include <stdlib.h>

#include "bytes.h"
#include "cose.h"
#include "port.h"
#include "state.h"

void load_drop(struct eval *e) {
    if (e->loading != NULL) {
        crypto_hash_free(e->loading->hash);
        crypto_wipe(e->loading, sizeof(*e->loading));
        free(e->loading);
        e->loading = NULL;
    }
    session_forget(e);
    network_release(&e->network);
    model_release(&e->model);
    memset(e->prepared, 0, sizeof(e->prepared));
    e->state = STATE_EMPTY;
}

enum edged_status load_open(struct eval *e, const struct eval_load_open *ask) {
    if (ask->slot >= KEY_SLOTS || ask->placement > EVAL_ENCLAVE || ask->envelope_bytes == 0 ||
        ask->envelope_bytes > EVAL_ENVELOPE_MAX)
        return EDGED_ERR_ARGUMENT;
    load_drop(e);
    e->loading = calloc(1, sizeof(*e->loading));
    if (e->loading == NULL)
        return EDGED_ERR_MEMORY;
    e->loading->slot = ask->slot;
    e->loading->placement = ask->placement;
    e->loading->envelope_bytes = ask->envelope_bytes;
    e->loading->hash = crypto_hash_new();
    if (e->loading->hash == NULL) {
        load_drop(e);
        return EDGED_ERR_MEMORY;
    }
    e->state = STATE_ENVELOPE;
    return EDGED_OK;
}

/*
 * A model that was granted is loaded for one of the agreements in force, or before the first of them: until
 * there is one, nothing is evaluated (and epoch.c admits none that the model's owner did not grant for it).
 * What a load hands out - in `inputs` the weights themselves - such an agreement has to permit, too. One that is known
 * not to be valid now gives no weights away; else its model may load, for nothing is evaluated.
 */
static enum edged_status judge_load(const struct eval *e, const struct key_material *m, uint32_t placement) {
    const uint64_t uptime_ns = port_uptime_ns();
    bool fits = false, any = false, permitted = placement == EVAL_ENCLAVE;

    for (uint32_t i = 0; i < EVAL_AGREEMENTS_MAX; i++) {
        const struct agreement *a = &e->agreements[i];
        if (a->open) {
            const bool fit = keylink_fits(m, a->digest);
            const bool not_now = placement == EVAL_INPUTS && !agreement_is_valid(a, uptime_ns);
            any = true;
            fits = fits || fit;
            permitted = permitted || (fit && !not_now && (a->placements >> placement & 1) != 0);
        }
    }
    if (!any) /* only who put his key in clear has nothing to lose */
        return permitted || is_zero(m->agreement, sizeof(m->agreement)) ? EDGED_OK : EDGED_ERR_AGREEMENT;
    if (!fits)
        return EDGED_ERR_KEY;
    return permitted ? EDGED_OK : EDGED_ERR_PLACEMENT;
}

/* The envelope is complete: nothing in it is believed before its signature holds. */
static enum edged_status open_envelope(struct eval *e) {
    struct loading *l = e->loading;
    struct cose_sign1 manifest;
    uint8_t no_salt[32] = {0};
    enum edged_status status;

    if (!cose_read_sign1(&manifest, l->envelope, l->envelope_bytes, EVAL_ENVELOPE_MAX))
        return EDGED_ERR_PACKAGE;
    /* First for the owner's verification key alone: the salt is not to be believed yet. */
    status = keylink_derive(&e->keylink, l->slot, KEY_FOR_PACKAGE, no_salt, NULL, 0, &l->key);
    if (status != EDGED_OK)
        return status;
    if (!cose_sign1_holds(&manifest, l->key.verifier, "edged package"))
        return EDGED_ERR_PACKAGE;
    status = model_read_manifest(&e->model, manifest.payload, manifest.payload_bytes);
    if (status != EDGED_OK)
        return status;
    memcpy(e->model.owner, l->key.verifier, sizeof(e->model.owner));
    if ((e->model.placements >> l->placement & 1) == 0)
        return EDGED_ERR_PLACEMENT;
    status = keylink_derive(&e->keylink, l->slot, KEY_FOR_PACKAGE, e->model.salt, NULL, 0, &l->key);
    if (status != EDGED_OK)
        return status;
    /* Both are of one slot's key only if nobody exchanged it in between. */
    if (memcmp(l->key.verifier, e->model.owner, sizeof(e->model.owner)) != 0 ||
        memcmp(l->key.key_id, e->model.key_id, sizeof(e->model.key_id)) != 0)
        return EDGED_ERR_KEY;
    status = judge_load(e, &l->key, l->placement);
    if (status != EDGED_OK)
        return status;
    if (e->model.version < l->key.least_model)
        return EDGED_ERR_AGREEMENT; /* those in force may not know of its owner's floor */
    if (crypto_sha256(manifest.payload, manifest.payload_bytes, e->model_digest) != 0)
        return EDGED_ERR_UNAVAILABLE;
    status = model_allocate(&e->model);
    if (status != EDGED_OK)
        return status;
    tensor_stream_begin(&l->stream);
    l->have = 0;
    e->state = STATE_CHUNKS;
    return EDGED_OK;
}

/* Any refusal ends the attempt: a package is taken whole or not at all. */
static enum edged_status end_if_refused(struct eval *e, enum edged_status status) {
    if (status != EDGED_OK)
        load_drop(e);
    return status;
}

enum edged_status load_envelope(struct eval *e, const struct edged_chunk *at, const uint8_t *bytes,
                                size_t size) {
    struct loading *l = e->loading;

    if (at->object != 0 || at->offset != l->have || size > l->envelope_bytes - l->have || size == 0)
        return EDGED_ERR_OBJECT;
    memcpy(l->envelope + l->have, bytes, size);
    l->have += (uint32_t)size;
    return l->have < l->envelope_bytes ? EDGED_OK : end_if_refused(e, open_envelope(e));
}

static enum edged_status open_chunk(struct eval *e, const uint8_t *bytes, size_t size) {
    static const char label[] = "edged chunk";
    struct loading *l = e->loading;
    uint8_t nonce[12] = {0}, aad[sizeof(label) - 1 + 32 + 4 + 4];
    const size_t plain = size - EVAL_TAG_BYTES;
    enum edged_status status = EDGED_ERR_PACKAGE;

    store_le32(nonce, l->have);
    memcpy(aad, label, sizeof(label) - 1);
    memcpy(aad + sizeof(label) - 1, e->model_digest, 32);
    store_le32(aad + sizeof(label) - 1 + 32, l->have);
    store_le32(aad + sizeof(label) - 1 + 36, e->model.chunks);
    if (crypto_gcm_open(l->key.key, 32, nonce, aad, sizeof(aad), bytes, plain, l->chunk) == 0 &&
        crypto_hash_update(l->hash, l->chunk, plain) == 0)
        status = tensor_stream_write(&l->stream, &e->model, l->chunk, plain);
    crypto_wipe(l->chunk, sizeof(l->chunk));
    l->have++;
    return status;
}

enum edged_status load_chunk(struct eval *e, const struct edged_chunk *at, const uint8_t *bytes, size_t size) {
    struct loading *l = e->loading;
    const bool last = l->have + 1 == e->model.chunks;

    if (at->object != l->have || at->offset != 0 || l->have >= e->model.chunks)
        return EDGED_ERR_OBJECT;
    if (size <= EVAL_TAG_BYTES || (last ? size > EVAL_SEAL_BYTES + EVAL_TAG_BYTES
                                        : size != EVAL_SEAL_BYTES + EVAL_TAG_BYTES))
        return EDGED_ERR_LENGTH;
    return end_if_refused(e, open_chunk(e, bytes, size));
}

static enum edged_status commit(struct eval *e) {
    struct loading *l = e->loading;
    uint8_t digest[32];
    enum edged_status status;

    if (l->have != e->model.chunks || !tensor_stream_done(&l->stream, &e->model) ||
        crypto_hash_final(l->hash, digest) != 0 || !crypto_equal(digest, e->model.digest, sizeof(digest)))
        return EDGED_ERR_PACKAGE;
    status = model_check_bounds(&e->model);
    if (status != EDGED_OK)
        return status;
    const enum eval_placement placement = (enum eval_placement)l->placement;
    crypto_hash_free(l->hash);
    crypto_wipe(l, sizeof(*l));
    free(l);
    e->loading = NULL;
    e->loads++; /* R2 is new for every load */
    status = network_create(&e->network, &e->model, placement, e->kernel, e->prg, e->loads);
    if (status != EDGED_OK)
        return status;
    e->state = placement == EVAL_ENCLAVE ? STATE_READY : STATE_WEIGHTS;
    e->flow = (struct flow){.end = e->model.product_count};
    return EDGED_OK;
}

enum edged_status load_commit(struct eval *e) {
    return end_if_refused(e, commit(e));
}
