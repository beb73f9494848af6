#include "clip.h"

#include "bytes.h"
#include "ct.h"
#include "dispatch.h"
#include "flow.h"

/* An invocation number never comes back: neither its masks nor its check. */
static uint64_t next_invocation(struct eval *e) {
    return ++e->invocations;
}

static struct prepared *find_prepared(struct eval *e, uint64_t invocation) {
    for (uint32_t i = 0; i < EVAL_PREPARED_MAX; i++)
        if (e->prepared[i].invocation == invocation)
            return &e->prepared[i];
    return NULL;
}

enum edged_status prepare_open(struct eval *e, const struct eval_prepare_open *ask,
                               struct eval_invocation *out) {
    if (ask->persons == 0 || ask->persons > e->model.persons || e->network.placement == EVAL_ENCLAVE)
        return EDGED_ERR_ARGUMENT;
    if (find_prepared(e, 0) == NULL)
        return EDGED_ERR_MEMORY;
    e->preparing = next_invocation(e);
    e->preparing_persons = ask->persons;
    e->network.invocation = e->preparing;
    flow_begin(e, 0, e->model.product_count);
    out->invocation = e->preparing;
    e->state = STATE_PREPARE;
    return EDGED_OK;
}

void prepare_done(struct eval *e) {
    struct prepared *p = find_prepared(e, 0); /* prepare_open saw a free one */

    if (p != NULL)
        *p = (struct prepared){.invocation = e->preparing, .persons = e->preparing_persons};
    e->state = STATE_READY;
}

enum edged_status prepare_drop(struct eval *e, const struct eval_invocation *ask) {
    struct prepared *p = ask->invocation == 0 ? NULL : find_prepared(e, ask->invocation);

    if (e->state == STATE_PREPARE && ask->invocation == e->preparing)
        e->state = STATE_READY;
    else if (p != NULL)
        memset(p, 0, sizeof(*p));
    else
        return EDGED_ERR_ARGUMENT;
    return EDGED_OK;
}

static enum edged_status answer_step(const struct eval *e, uint8_t *out, size_t *size) {
    const struct eval_step s = {.step = e->step, .emission = e->emission};

    memcpy(out, &s, sizeof(s));
    *size = sizeof(s);
    return EDGED_OK;
}

/* The clip ends here as `failed`; the invocation is over. */
static enum edged_status fail(struct eval *e, uint32_t session, uint8_t *out, size_t *size) {
    const uint64_t since = e->emission + 1;
    const enum edged_status status = verdict_failed(e, session);

    return status != EDGED_OK ? status : record_answer(e, e->model.step_count, since, out, size);
}

/* The evaluation under way is over, with or without a record: its invocation never comes back. */
static enum edged_status leave(struct eval *e, enum edged_status status) {
    session_forget(e);
    e->state = STATE_READY;
    return status;
}

static enum edged_status finish(struct eval *e, uint8_t *out, size_t *size) {
    int32_t logits[EVAL_LABELS_MAX];
    uint32_t probabilities[EVAL_LABELS_MAX];
    const uint64_t since = e->emission + 1;
    enum edged_status status;

    network_output(&e->network, logits, probabilities);
    status = verdict_finished(e, e->clip.session, logits, probabilities);
    if (status == EDGED_OK)
        (void)record_answer(e, e->model.step_count, since, out, size);
    crypto_wipe(logits, sizeof(logits));
    crypto_wipe(probabilities, sizeof(probabilities));
    return leave(e, status);
}

/* Give xbar of the step at hand, or say that its messages may be read. */
static enum edged_status begin_step(struct eval *e, uint8_t *out, size_t *size) {
    const uint32_t first = e->model.step_product[e->step], end = e->model.step_product[e->step + 1];

    e->state = STATE_STEP;
    e->taking = false;
    e->network.refused = 0;
    flow_begin(e, first, end);
    (void)answer_step(e, out, size);
    if ((e->clip.flags & EVAL_CLIP_WINDOW) == 0 || e->network.placement == EVAL_ENCLAVE)
        return EDGED_OK;
    for (uint32_t p = first; p < end; p++) {
        uint64_t x, y;
        enum edged_status status;
        window_offsets(e, p, &x, &y);
        status = flow_map_out(e, FLOW_X, p, e->network.persons, e->window + x);
        if (status != EDGED_OK)
            return leave(e, status);
    }
    return EDGED_OK;
}

enum edged_status clip_open(struct eval *e, const struct eval_clip_open *ask, uint8_t *out, size_t *size) {
    const struct prepared *p = ask->invocation == 0 ? NULL : find_prepared(e, ask->invocation);
    const bool window = (ask->flags & EVAL_CLIP_WINDOW) != 0;
    enum edged_status status;

    if ((ask->flags & ~EVAL_CLIP_WINDOW) != 0)
        return EDGED_ERR_RESERVED;
    status = session_admits(e, ask);
    if (status != EDGED_OK)
        return status;
    if (ask->invocation != 0 && (p == NULL || ask->bytes > sizeof(struct edged_clip) + EVAL_TAG_BYTES +
                                                               (size_t)p->persons * e->model.frames *
                                                                   e->model.joints * 6))
        return EDGED_ERR_ARGUMENT;
    if (window && (e->window == NULL || e->window_bytes < window_need(e)))
        return EDGED_ERR_WINDOW;
    e->clip = *ask;
    e->clip_have = 0;
    e->step = 0;
    e->state = STATE_CLIP;
    if (!window)
        return answer_step(e, out, size);
    memcpy(e->network.g, e->window, ask->bytes);
    e->clip_have = ask->bytes;
    return clip_begin(e, out, size);
}

enum edged_status clip_write(struct eval *e, const struct edged_chunk *at, const uint8_t *bytes, size_t n) {
    if (at->object != 0 || at->offset != e->clip_have)
        return EDGED_ERR_OBJECT;
    if (n == 0 || n > e->clip.bytes - e->clip_have)
        return EDGED_ERR_LENGTH;
    memcpy((uint8_t *)e->network.g + e->clip_have, bytes, n);
    e->clip_have += (uint32_t)n;
    return EDGED_OK;
}

enum edged_status clip_begin(struct eval *e, uint8_t *out, size_t *size) {
    uint32_t persons = 0;
    enum edged_status status;

    if (e->clip_have != e->clip.bytes)
        return EDGED_ERR_ORDER;
    e->state = STATE_READY; /* whatever follows, this sealed clip is used up */
    status = session_accept(e, &persons);
    if (status != EDGED_OK)
        return status;
    e->network.prepared = e->clip.invocation != 0;
    e->network.invocation = e->network.prepared ? e->clip.invocation : next_invocation(e);
    if (e->network.prepared) { /* masks one clip */
        struct prepared *p = find_prepared(e, e->clip.invocation);
        if (p == NULL)
            return leave(e, EDGED_ERR_ARGUMENT); /* cannot be: clip_open found it, and nothing came between */
        memset(p, 0, sizeof(*p));
    }
    e->stats.clips++;
    if (persons == 0) /* nobody: the constants alone decide */
        return finish(e, out, size);
    return begin_step(e, out, size);
}

enum edged_status clip_read(struct eval *e, const struct edged_chunk *at, uint8_t *out, size_t *size) {
    enum edged_status status;

    if (e->taking || e->network.placement == EVAL_ENCLAVE || (e->clip.flags & EVAL_CLIP_WINDOW) != 0)
        return EDGED_ERR_ORDER;
    status = flow_read(e, FLOW_X, e->network.persons, at, out, size);
    if (status == EDGED_ERR_UNAVAILABLE)
        return leave(e, status);
    if (status == EDGED_OK && flow_done(e)) {
        e->taking = true;
        flow_begin(e, e->model.step_product[e->step], e->model.step_product[e->step + 1]);
    }
    return status;
}

enum edged_status clip_take(struct eval *e, const struct edged_chunk *at, const uint8_t *bytes, size_t n) {
    enum edged_status status = e->taking ? flow_write(e, at, bytes, n) : EDGED_ERR_ORDER;

    return status == EDGED_ERR_UNAVAILABLE ? leave(e, status) : status;
}

/*
 * The one fixed point: every product of the step was taken whole before the
 * verdict is formed, and nothing of the next step is made before it.
 */
enum edged_status clip_step(struct eval *e, const struct eval_index *ask, uint8_t *out, size_t *size) {
    const uint32_t first = e->model.step_product[e->step], end = e->model.step_product[e->step + 1];
    const bool enclave = e->network.placement == EVAL_ENCLAVE;
    const struct session *s = &e->sessions[e->clip.session];
    enum edged_status status = EDGED_OK;

    if (ask->index != e->step)
        return EDGED_ERR_OBJECT;
    if (enclave || (e->clip.flags & EVAL_CLIP_WINDOW) != 0) {
        for (uint32_t p = first; p < end && status == EDGED_OK; p++) {
            uint64_t x, y;
            window_offsets(e, p, &x, &y);
            status = flow_map_in(e, p, enclave ? NULL : e->window + y);
        }
        if (status != EDGED_OK)
            return leave(e, status);
    } else if (!e->taking || !flow_done(e)) {
        return EDGED_ERR_ORDER;
    }
    if (ct_public(e->network.refused != 0)) {
        e->stats.rejections++;
        if (s->attempts >= EVAL_ATTEMPTS_MAX &&
            fail(e, e->clip.session, out, size) != EDGED_OK)
            *size = 0; /* EVAL_CLIP_ABORT tries again */
        return leave(e, EDGED_ERR_VERIFICATION); /* the invocation and its masks are dead */
    }
    e->stats.products_checked += enclave ? 0 : end - first;
    e->step++;
    return e->step == e->model.step_count ? finish(e, out, size) : begin_step(e, out, size);
}

enum edged_status clip_abort(struct eval *e, const struct eval_index *ask, uint8_t *out, size_t *size) {
    const bool under_way = e->state == STATE_CLIP || e->state == STATE_STEP;
    const struct session *s = &e->sessions[ask->index % EVAL_SESSIONS_MAX];

    if (ask->index >= EVAL_SESSIONS_MAX || !s->open || (under_way && ask->index != e->clip.session))
        return EDGED_ERR_ARGUMENT;
    if (!s->unfinished && !under_way)
        return EDGED_ERR_ORDER; /* nothing to give up */
    if (under_way)
        (void)leave(e, EDGED_OK);
    if (s->unfinished)
        return fail(e, ask->index, out, size);
    return answer_step(e, out, size); /* it was not accepted yet: no record */
}
