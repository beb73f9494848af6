/*
 * dispatch.c - the whole behaviour of the port in one table: which command, in
 * which states, with how long a body. Header, length and state are judged here
 * and nowhere else; a handler sees a body of its own size, reserved words 0.
 */
#include "dispatch.h"

#include "bytes.h"
#include "clip.h"
#include "flow.h"
#include "port.h"

#define PAGE 4096u

static uint64_t page_up(uint64_t n) {
    return (n + PAGE - 1) / PAGE * PAGE;
}

void window_offsets(const struct eval *e, uint32_t product, uint64_t *x_offset, uint64_t *y_offset) {
    const uint32_t step = e->model.product_step[product], persons = e->model.persons;
    uint64_t at = 0;

    for (uint32_t pass = 0; pass < 2; pass++) /* all xbar of the step, then all ybar */
        for (uint32_t p = e->model.step_product[step]; p < e->model.step_product[step + 1]; p++) {
            if (p == product)
                *(pass == 0 ? x_offset : y_offset) = at;
            at += page_up(network_object_words(&e->network, pass == 0 ? FLOW_X : FLOW_Y, p, persons) * 4);
        }
}

uint64_t window_need(const struct eval *e) {
    uint64_t most = page_up(sizeof(struct edged_clip) + EVAL_TAG_BYTES +
                            (uint64_t)e->model.persons * e->model.frames * e->model.joints * 6);

    for (uint32_t p = 0; p < e->model.product_count && e->network.placement != EVAL_ENCLAVE; p++) {
        uint64_t x = 0, y = 0, end, weights;
        window_offsets(e, p, &x, &y);
        end = y + page_up(network_object_words(&e->network, FLOW_Y, p, e->model.persons) * 4);
        weights = page_up(network_object_words(&e->network, FLOW_WEIGHTS, p, 0) * 4);
        end = end > weights ? end : weights;
        most = end > most ? end : most;
    }
    return most;
}

/** struct call - a request's body, and room for its answer's */
struct call {
    const uint8_t *body;
    size_t size;
    int handle; /* -1 when there is none, or when it was taken */
    uint8_t *out;
    size_t out_bytes; /* 0 on entry */
};

#define BODY(TYPE, NAME)  \
    struct TYPE NAME;     \
    memcpy(&NAME, c->body, sizeof(NAME))

static enum edged_status answer(struct call *c, const void *body, size_t size) {
    memcpy(c->out, body, size);
    c->out_bytes = size;
    return EDGED_OK;
}

/* Bulk data after its head. */
#define DATA c->body + sizeof(struct edged_chunk), c->size - sizeof(struct edged_chunk)

static enum edged_status on_info(struct eval *e, struct call *c) {
    struct eval_info i = {.flags = (port_emulated() ? EVAL_FLAG_EMULATED : 0) |
                                   (port_has_window() ? EVAL_FLAG_WINDOW : 0),
                          .message_bytes = EDGED_MESSAGE_BYTES};
    memcpy(i.epoch, e->epoch, sizeof(i.epoch));
    i.emission = e->emission;
    for (uint32_t k = 0; k < EVAL_AGREEMENTS_MAX; k++)
        i.agreements += e->agreements[k].open;
    for (uint32_t k = 0; k < EVAL_KEPT_MAX; k++)
        i.kept += e->kept[k].emission != 0;
    return answer(c, &i, sizeof(i));
}

static enum edged_status on_stats(struct eval *e, struct call *c) {
    memset(&e->stats.memory, 0, sizeof(e->stats.memory));
    port_memory(&e->stats.memory);
    return answer(c, &e->stats, sizeof(e->stats));
}

static enum edged_status on_window(struct eval *e, struct call *c) {
    BODY(eval_window, w);
    const int handle = c->handle;

    if ((w.bytes != 0) != (handle >= 0) || w.bytes % PAGE != 0 || w.bytes > SIZE_MAX / 2)
        return EDGED_ERR_ARGUMENT;
    if (e->window != NULL)
        port_window_unmap(e->window, e->window_bytes);
    e->window = NULL;
    e->window_bytes = 0;
    if (w.bytes == 0)
        return EDGED_OK;
    c->handle = -1;
    e->window = port_window_map(handle, (size_t)w.bytes);
    if (e->window == NULL)
        return EDGED_ERR_WINDOW;
    e->window_bytes = (size_t)w.bytes;
    return EDGED_OK;
}

static enum edged_status on_load_open(struct eval *e, struct call *c) {
    BODY(eval_load_open, ask);
    return load_open(e, &ask);
}

static enum edged_status on_load_envelope(struct eval *e, struct call *c) {
    BODY(edged_chunk, at);
    return load_envelope(e, &at, DATA);
}

static enum edged_status on_load_chunk(struct eval *e, struct call *c) {
    BODY(edged_chunk, at);
    return load_chunk(e, &at, DATA);
}

static enum edged_status on_load_commit(struct eval *e, struct call *c) {
    enum edged_status status = load_commit(e);
    const struct model *m = &e->model;

    if (status != EDGED_OK)
        return status;
    const struct eval_model out = {.load = e->loads,
                                   .placement = e->network.placement,
                                   .products = e->network.placement == EVAL_ENCLAVE ? 0 : m->product_count,
                                   .steps = m->step_count,
                                   .persons = m->persons,
                                   .frames = m->frames,
                                   .joints = m->joints,
                                   .labels = m->labels,
                                   .window_bytes = window_need(e)};
    return answer(c, &out, sizeof(out));
}

static enum edged_status on_unload(struct eval *e, struct call *c) {
    (void)c;
    load_drop(e);
    return EDGED_OK;
}

static enum edged_status on_product(struct eval *e, struct call *c) {
    BODY(eval_index, ask);
    if (ask.index >= e->model.product_count || e->network.placement == EVAL_ENCLAVE)
        return EDGED_ERR_ARGUMENT;
    const struct layer *l = network_product(&e->network, ask.index);
    struct eval_product p = {.step = e->model.product_step[ask.index],
                             .rows = l->rows,
                             .taps = l->outside.taps,
                             .stride = l->outside.stride,
                             .pad = l->outside.pad,
                             .channels = l->outside.channels,
                             .frames_in = l->outside.frames_in,
                             .frames_out = l->frames_out,
                             .joints = l->outside.joints,
                             .element_bytes = sizeof(uint32_t)};
    window_offsets(e, ask.index, &p.x_offset, &p.y_offset);
    return answer(c, &p, sizeof(p));
}

/* wbar, or U + pad, as the next message of bulk data. */
static enum edged_status read_flow(struct eval *e, struct call *c, enum network_flow kind, uint32_t persons) {
    BODY(edged_chunk, at);
    size_t n = 0;
    enum edged_status status = flow_read(e, kind, persons, &at, c->out + sizeof(at), &n);

    if (status != EDGED_OK)
        return status;
    memcpy(c->out, &at, sizeof(at));
    c->out_bytes = sizeof(at) + n;
    return EDGED_OK;
}

/* wbar, or U + pad, of one product into the window: products in order, each once. */
static enum edged_status map_flow(struct eval *e, struct call *c, enum network_flow kind, uint32_t persons) {
    BODY(eval_index, ask);
    if (flow_done(e) || ask.index != e->flow.product || e->flow.offset != 0)
        return EDGED_ERR_OBJECT;
    if (e->window == NULL || e->window_bytes < window_need(e))
        return EDGED_ERR_WINDOW;
    enum edged_status status = flow_map_out(e, kind, ask.index, persons, e->window);
    if (status == EDGED_OK)
        e->flow.product++;
    return status;
}

static enum edged_status weights_crossed(struct eval *e, enum edged_status status) {
    if (status == EDGED_ERR_UNAVAILABLE)
        load_drop(e); /* where the masks stopped is unknown: load again, under new ones */
    else if (status == EDGED_OK && flow_done(e))
        e->state = STATE_READY;
    return status;
}

static enum edged_status on_weights_read(struct eval *e, struct call *c) {
    return weights_crossed(e, read_flow(e, c, FLOW_WEIGHTS, 0));
}

static enum edged_status on_weights_map(struct eval *e, struct call *c) {
    return weights_crossed(e, map_flow(e, c, FLOW_WEIGHTS, 0));
}

static enum edged_status on_session_open(struct eval *e, struct call *c) {
    struct eval_session out;
    BODY(eval_session_open, ask);
    enum edged_status status = session_open(e, &ask, &out);
    return status != EDGED_OK ? status : answer(c, &out, sizeof(out));
}

static enum edged_status on_prepare_open(struct eval *e, struct call *c) {
    struct eval_invocation out;
    BODY(eval_prepare_open, ask);
    enum edged_status status = prepare_open(e, &ask, &out);
    return status != EDGED_OK ? status : answer(c, &out, sizeof(out));
}

static enum edged_status prepare_crossed(struct eval *e, enum edged_status status) {
    if (status == EDGED_ERR_UNAVAILABLE)
        e->state = STATE_READY; /* the invocation is dead */
    else if (status == EDGED_OK && flow_done(e))
        prepare_done(e);
    return status;
}

static enum edged_status on_prepare_read(struct eval *e, struct call *c) {
    return prepare_crossed(e, read_flow(e, c, FLOW_PREPARE, e->preparing_persons));
}

static enum edged_status on_prepare_map(struct eval *e, struct call *c) {
    return prepare_crossed(e, map_flow(e, c, FLOW_PREPARE, e->preparing_persons));
}

static enum edged_status on_prepare_drop(struct eval *e, struct call *c) {
    BODY(eval_invocation, ask);
    return prepare_drop(e, &ask);
}

static enum edged_status on_clip_open(struct eval *e, struct call *c) {
    BODY(eval_clip_open, ask);
    return clip_open(e, &ask, c->out, &c->out_bytes);
}

static enum edged_status on_clip_write(struct eval *e, struct call *c) {
    BODY(edged_chunk, at);
    return clip_write(e, &at, DATA);
}

static enum edged_status on_clip_begin(struct eval *e, struct call *c) {
    return clip_begin(e, c->out, &c->out_bytes);
}

static enum edged_status on_step_read(struct eval *e, struct call *c) {
    BODY(edged_chunk, at);
    size_t n = 0;
    enum edged_status status = clip_read(e, &at, c->out + sizeof(at), &n);

    if (status != EDGED_OK)
        return status;
    memcpy(c->out, &at, sizeof(at));
    c->out_bytes = sizeof(at) + n;
    return EDGED_OK;
}

static enum edged_status on_step_write(struct eval *e, struct call *c) {
    BODY(edged_chunk, at);
    return clip_take(e, &at, DATA);
}

static enum edged_status on_step(struct eval *e, struct call *c) {
    BODY(eval_index, ask);
    return clip_step(e, &ask, c->out, &c->out_bytes);
}

static enum edged_status on_clip_abort(struct eval *e, struct call *c) {
    BODY(eval_index, ask);
    return clip_abort(e, &ask, c->out, &c->out_bytes);
}

static enum edged_status on_record(struct eval *e, struct call *c) {
    BODY(eval_record, ask);
    return record_again(e, &ask, c->out, &c->out_bytes);
}

static enum edged_status on_restore(struct eval *e, struct call *c) {
    BODY(edged_state, sealed);
    return epoch_restore(e, &sealed);
}

/* The records that a request sealed, as its answer. */
static enum edged_status emitted(struct eval *e, struct call *c, enum edged_status status, uint32_t step,
                                 uint64_t since) {
    return status != EDGED_OK ? status : record_answer(e, step, since, c->out, &c->out_bytes);
}

static enum edged_status on_agreement(struct eval *e, struct call *c) {
    BODY(eval_agreement, ask);
    const uint64_t since = e->emission + 1;
    uint32_t index = 0;
    enum edged_status status = epoch_agree(e, &ask, c->body + sizeof(ask), c->size - sizeof(ask), &index);
    return emitted(e, c, status, index, since);
}

static enum edged_status on_confirm(struct eval *e, struct call *c) {
    BODY(eval_emission, ask);
    struct edged_state out;
    enum edged_status status = epoch_confirm(e, ask.emission, &out);
    return status != EDGED_OK ? status : answer(c, &out, sizeof(out));
}

static enum edged_status on_beacon(struct eval *e, struct call *c) {
    BODY(eval_beacon, ask);
    const uint64_t since = e->emission + 1;
    return emitted(e, c, epoch_beacon(e, &ask), 0, since);
}

static enum edged_status on_exercise(struct eval *e, struct call *c) {
    BODY(eval_exercise, ask);
    const uint64_t since = e->emission + 1;
    return emitted(e, c, verdict_exercise(e, &ask), 0, since);
}

static enum edged_status on_claim(struct eval *e, struct call *c) {
    BODY(eval_claim, ask);
    const uint64_t since = e->emission + 1;
    return emitted(e, c, epoch_claim(e, &ask, c->body + sizeof(ask), c->size - sizeof(ask)), 0, since);
}

static enum edged_status on_succeed(struct eval *e, struct call *c) {
    BODY(eval_succeed, ask);
    const uint64_t since = e->emission + 1;
    return emitted(e, c, succession_begin(e, &ask), 0, since);
}

static enum edged_status on_close(struct eval *e, struct call *c) {
    struct edged_state out;
    enum edged_status status = epoch_close(e, &out);
    return status != EDGED_OK ? status : answer(c, &out, sizeof(out));
}

static enum edged_status on_session_close(struct eval *e, struct call *c) {
    BODY(eval_index, ask);
    return session_close(e, &ask);
}

/** struct entry - one command */
struct entry {
    uint16_t cmd;
    uint16_t states; /* in which it is permitted */
    uint16_t least;  /* bytes of body */
    uint16_t most;
    uint16_t reserved_at; /* where the body has its reserved word */
    enum edged_status (*handler)(struct eval *e, struct call *c);
};

#define NO_RESERVED UINT16_MAX
#define NOTHING 0, 0, NO_RESERVED
#define PLAIN(TYPE) sizeof(struct TYPE), sizeof(struct TYPE), NO_RESERVED
#define EXACTLY(TYPE) sizeof(struct TYPE), sizeof(struct TYPE), offsetof(struct TYPE, reserved)
#define BULK \
    sizeof(struct edged_chunk), EDGED_MESSAGE_BYTES - sizeof(struct edged_hdr), offsetof(struct edged_chunk, reserved)
#define MORE(TYPE) \
    sizeof(struct TYPE), EDGED_MESSAGE_BYTES - sizeof(struct edged_hdr), offsetof(struct TYPE, reserved)
#define IDLE (STATE_EMPTY | STATE_WEIGHTS | STATE_READY)
#define LOADING (STATE_ENVELOPE | STATE_CHUNKS)

static const struct entry TABLE[] = {
    {EVAL_INFO, STATE_ANY, NOTHING, on_info},
    {EVAL_STATS, STATE_ANY, NOTHING, on_stats},
    {EVAL_WINDOW, IDLE, PLAIN(eval_window), on_window},
    {EVAL_LOAD_OPEN, IDLE | LOADING, EXACTLY(eval_load_open), on_load_open},
    {EVAL_LOAD_ENVELOPE, STATE_ENVELOPE, BULK, on_load_envelope},
    {EVAL_LOAD_CHUNK, STATE_CHUNKS, BULK, on_load_chunk},
    {EVAL_LOAD_COMMIT, STATE_CHUNKS, NOTHING, on_load_commit},
    {EVAL_UNLOAD, IDLE | LOADING, NOTHING, on_unload},
    {EVAL_PRODUCT, STATE_WEIGHTS | STATE_READY, EXACTLY(eval_index), on_product},
    {EVAL_WEIGHTS_READ, STATE_WEIGHTS, EXACTLY(edged_chunk), on_weights_read},
    {EVAL_WEIGHTS_MAP, STATE_WEIGHTS, EXACTLY(eval_index), on_weights_map},
    {EVAL_SESSION_OPEN, IDLE, EXACTLY(eval_session_open), on_session_open},
    {EVAL_PREPARE_OPEN, STATE_READY, EXACTLY(eval_prepare_open), on_prepare_open},
    {EVAL_PREPARE_READ, STATE_PREPARE, EXACTLY(edged_chunk), on_prepare_read},
    {EVAL_PREPARE_MAP, STATE_PREPARE, EXACTLY(eval_index), on_prepare_map},
    {EVAL_PREPARE_DROP, STATE_READY | STATE_PREPARE, PLAIN(eval_invocation), on_prepare_drop},
    {EVAL_CLIP_OPEN, STATE_READY, EXACTLY(eval_clip_open), on_clip_open},
    {EVAL_CLIP_WRITE, STATE_CLIP, BULK, on_clip_write},
    {EVAL_CLIP_BEGIN, STATE_CLIP, NOTHING, on_clip_begin},
    {EVAL_STEP_READ, STATE_STEP, EXACTLY(edged_chunk), on_step_read},
    {EVAL_STEP_WRITE, STATE_STEP, BULK, on_step_write},
    {EVAL_STEP, STATE_STEP, EXACTLY(eval_index), on_step},
    {EVAL_CLIP_ABORT, IDLE | STATE_CLIP | STATE_STEP, EXACTLY(eval_index), on_clip_abort},
    {EVAL_RECORD, STATE_ANY, EXACTLY(eval_record), on_record},
    {EVAL_SESSION_CLOSE, IDLE, EXACTLY(eval_index), on_session_close},
    {EVAL_RESTORE, IDLE, PLAIN(edged_state), on_restore},
    {EVAL_AGREEMENT, IDLE, MORE(eval_agreement), on_agreement},
    {EVAL_CONFIRM, STATE_ANY, PLAIN(eval_emission), on_confirm},
    {EVAL_BEACON, STATE_ANY, sizeof(struct eval_beacon), sizeof(struct eval_beacon),
     offsetof(struct eval_beacon, beacon.reserved), on_beacon},
    {EVAL_EXERCISE, STATE_ANY, PLAIN(eval_exercise), on_exercise},
    {EVAL_CLAIM, STATE_ANY, MORE(eval_claim), on_claim},
    {EVAL_CLOSE, IDLE, NOTHING, on_close},
    {EVAL_SUCCEED, IDLE, PLAIN(eval_succeed), on_succeed},
};

/* The one place that judges a message's frame. */
static enum edged_status judge(const struct eval *e, const struct edged_hdr *h, const uint8_t *body,
                               size_t size_bytes, const struct entry **entry) {
    if (size_bytes < sizeof(*h) || size_bytes > EDGED_MESSAGE_BYTES || size_bytes - sizeof(*h) != h->len)
        return EDGED_ERR_LENGTH;
    if (h->version != EDGED_WIRE_VERSION)
        return EDGED_ERR_VERSION;
    if (h->reserved != 0 || h->status != 0)
        return EDGED_ERR_RESERVED;
    for (size_t i = 0; i < sizeof(TABLE) / sizeof(TABLE[0]); i++)
        if (TABLE[i].cmd == h->cmd)
            *entry = &TABLE[i];
    if (*entry == NULL)
        return EDGED_ERR_COMMAND;
    if (h->len < (*entry)->least || h->len > (*entry)->most)
        return EDGED_ERR_LENGTH;
    if (((*entry)->states & e->state) == 0)
        return EDGED_ERR_ORDER;
    if ((*entry)->reserved_at != NO_RESERVED && load_le32(body + (*entry)->reserved_at) != 0)
        return EDGED_ERR_RESERVED;
    return EDGED_OK;
}

size_t dispatch(struct eval *e, const uint8_t *request, size_t size_bytes, int handle, uint8_t *out) {
    struct call c = {
        .body = request + sizeof(struct edged_hdr), .handle = handle, .out = out + sizeof(struct edged_hdr)};
    struct edged_hdr h = {0};
    const struct entry *entry = NULL;
    enum edged_status status;

    memcpy(&h, request, size_bytes < sizeof(h) ? size_bytes : sizeof(h));
    status = judge(e, &h, c.body, size_bytes, &entry);
    if (status == EDGED_OK && handle >= 0 && h.cmd != EVAL_WINDOW)
        status = EDGED_ERR_ARGUMENT; /* nothing else takes a handle */
    if (status == EDGED_OK) {
        c.size = h.len;
        status = entry->handler(e, &c);
    }
    if (c.handle >= 0)
        (void)port_window_map(c.handle, 0); /* closes it */
    if (status != EDGED_OK && status != EDGED_ERR_VERIFICATION)
        c.out_bytes = 0;
    h.version = EDGED_WIRE_VERSION;
    h.cmd = (uint16_t)(h.cmd | 1);
    h.len = (uint32_t)c.out_bytes;
    h.status = status;
    h.reserved = 0;
    memcpy(out, &h, sizeof(h));
    return sizeof(h) + c.out_bytes;
}
