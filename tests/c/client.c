#include "client.h"

#include <string.h>

#include "accelerator.h"
#include "bytes.h"
#include "dispatch.h"
#include "port_stub.h"
#include "vector.h"

#define PACKAGE_HEAD 16u /* "EDGEDPKG" | format | bytes of the envelope */

struct client client;

static const uint8_t CAMERA[32] = "camera of the tests";

/* The package, and room for every product outside; made once. */
static struct {
    const uint8_t *envelope, *sealed;
    uint32_t envelope_bytes;
    size_t sealed_bytes;
} packages[2]; /* the owner's, and a forged one */
static struct model shape;
static uint32_t *wbar[EVAL_LAYERS_MAX], *xbar[EVAL_LAYERS_MAX], *ybar[EVAL_LAYERS_MAX];
static uint32_t *ahead[EVAL_PREPARED_MAX][EVAL_LAYERS_MAX]; /* by invocation mod 8 */

/* Invocations under which a clip was masked. */
static bool used[1 << 16];

static size_t object_bytes(enum network_flow flow, uint32_t product, uint32_t persons) {
    const struct network n = {.model = &shape};
    return (size_t)network_object_words(&n, flow, product, persons) * 4;
}

static uint32_t *room(enum network_flow flow, uint32_t product) {
    uint32_t *p = calloc(1, object_bytes(flow, product, shape.persons));
    CHECK(p != NULL, "room");
    return p;
}

void client_init(void) {
    size_t size, manifest_bytes;
    const uint8_t *manifest = vector_get("package/manifest", &manifest_bytes);

    for (uint32_t i = 0; i < 2; i++) {
        const uint8_t *package = vector_get(i == 0 ? "package" : "package/forged", &size);
        packages[i].envelope_bytes = load_le32(package + 12);
        packages[i].envelope = package + PACKAGE_HEAD;
        packages[i].sealed = packages[i].envelope + packages[i].envelope_bytes;
        packages[i].sealed_bytes = size - PACKAGE_HEAD - packages[i].envelope_bytes;
    }
    CHECK(model_read_manifest(&shape, manifest, manifest_bytes) == EDGED_OK, "manifest");
    city_init();
    for (uint32_t p = 0; p < shape.product_count; p++) {
        wbar[p] = room(FLOW_WEIGHTS, p);
        xbar[p] = room(FLOW_X, p);
        ybar[p] = room(FLOW_Y, p);
        for (uint32_t i = 0; i < EVAL_PREPARED_MAX; i++)
            ahead[i][p] = room(FLOW_PREPARE, p);
    }
}

void client_put_slot(uint32_t from, uint32_t to, uint32_t id) {
    struct {
        struct edged_hdr h;
        struct key_slot_put p;
    } m = {.h = {.version = EDGED_WIRE_VERSION, .cmd = KEY_SLOT_PUT, .len = sizeof(m.p)}};
    struct key_slot_put named;
    struct edged_hdr answer[EDGED_MESSAGE_BYTES / sizeof(struct edged_hdr) + 1];
    char name[16];

    snprintf(name, sizeof(name), "slot/%u", id);
    memcpy(&named, vector_get(name, NULL), sizeof(named));
    snprintf(name, sizeof(name), "slot/%u", from);
    memcpy(&m.p, vector_get(name, NULL), sizeof(m.p));
    m.p.slot = to;
    memcpy(m.p.key_id, named.key_id, sizeof(m.p.key_id));
    CHECK(key_message(client.key, (const uint8_t *)&m, sizeof(m), (uint8_t *)answer) == sizeof(answer[0]) &&
              answer[0].status == EDGED_OK,
          "slot %u", to);
}

void client_start(uint64_t seed) {
    stub_reset(seed);
    memset(&client, 0, sizeof(client));
    memset(used, 0, sizeof(used));
    client.persons = 1;
    client.key = stub.key = key_create(stub_key_uuid);
    CHECK(client.key != NULL, "key application");
    for (uint32_t slot = 0; slot < CLIENT_SLOTS; slot++)
        client_put_slot(slot, slot, slot);
    client.eval = eval_create();
    CHECK(client.eval != NULL, "evaluation application");
    city_start();
}

void client_stop(void) {
    eval_destroy(client.eval);
    key_destroy(client.key);
    stub_reset(0);
}

void client_restart(void) {
    eval_destroy(client.eval);
    memset(used, 0, sizeof(used));
    key_link_close(&stub.link);
    stub.reconnect = true;
    client.eval = eval_create();
    CHECK(client.eval != NULL, "evaluation application");
    city_restart();
}

/* ------------------------------------------------------- judging answers --- */

/* What a bulk answer brought goes to the accelerator. */
static void keep(uint16_t cmd, const uint8_t *body, size_t size) {
    struct edged_chunk at;
    uint32_t *to;
    size_t object;

    memcpy(&at, body, sizeof(at));
    CHECK(size > sizeof(at) && at.object < shape.product_count && at.reserved == 0, "object %u", at.object);
    size -= sizeof(at);
    if (cmd == EVAL_WEIGHTS_READ) {
        to = wbar[at.object];
        object = object_bytes(FLOW_WEIGHTS, at.object, 0);
    } else if (cmd == EVAL_PREPARE_READ) {
        to = ahead[client.eval->preparing % EVAL_PREPARED_MAX][at.object];
        object = object_bytes(FLOW_PREPARE, at.object, client.eval->preparing_persons);
    } else {
        to = xbar[at.object];
        object = object_bytes(FLOW_X, at.object, client.eval->network.persons);
    }
    CHECK(at.offset < object && size <= object - at.offset, "offset %llu", (unsigned long long)at.offset);
    memcpy((uint8_t *)to + at.offset, body + sizeof(at), size);
}

static void keep_window(uint16_t cmd, uint32_t product) {
    if (cmd == EVAL_WEIGHTS_MAP)
        memcpy(wbar[product], stub.window, object_bytes(FLOW_WEIGHTS, product, 0));
    else
        memcpy(ahead[client.eval->preparing % EVAL_PREPARED_MAX][product], stub.window,
               object_bytes(FLOW_PREPARE, product, client.eval->preparing_persons));
}

static void judge(const uint8_t *request, size_t size_bytes) {
    struct edged_hdr ask = {0}, h;

    memcpy(&ask, request, size_bytes < sizeof(ask) ? size_bytes : sizeof(ask));
    CHECK(client.answer_bytes >= sizeof(h) && client.answer_bytes <= EDGED_MESSAGE_BYTES, "%zu bytes",
          client.answer_bytes);
    memcpy(&h, client.answer, sizeof(h));
    CHECK(h.version == EDGED_WIRE_VERSION && h.cmd == (ask.cmd | 1) && h.seq == ask.seq && h.reserved == 0 &&
              h.len == client.answer_bytes - sizeof(h) && h.status <= EDGED_ERR_RECIPIENT,
          "answer to command %u", ask.cmd);
    CHECK(h.status == EDGED_OK || h.status == EDGED_ERR_VERIFICATION || h.len == 0, "a refusal has no body");
    client.status = (enum edged_status)h.status;
    const uint8_t *body = client.answer + sizeof(h);
    city_judge(&ask, request + sizeof(ask), client.status, body, h.len);
    if (h.status != EDGED_OK)
        return;
    if (ask.cmd == EVAL_WEIGHTS_READ || ask.cmd == EVAL_PREPARE_READ || ask.cmd == EVAL_STEP_READ)
        keep(ask.cmd, body, h.len);
    if (ask.cmd == EVAL_WEIGHTS_MAP || ask.cmd == EVAL_PREPARE_MAP)
        keep_window(ask.cmd, load_le32(request + sizeof(ask)));
}

/* What a sanitizer cannot see: the network's buffers lie side by side in one block. */
static void judge_state(uint16_t cmd) {
    const struct eval *e = client.eval;
    const uint64_t invocation = e->network.invocation;

    CHECK(e->state != STATE_CLIP || e->clip_have <= e->clip.bytes, "more of the clip than announced");
    CHECK(e->state != STATE_STEP || (e->step < e->model.step_count && e->flow.product <= e->flow.end), "past the end");
    if (client.status == EDGED_OK && (cmd == EVAL_CLIP_OPEN || cmd == EVAL_CLIP_BEGIN) && e->state == STATE_STEP) {
        CHECK(invocation < sizeof(used), "invocation %llu", (unsigned long long)invocation);
        CHECK(!used[invocation], "invocation %llu masks a second clip", (unsigned long long)invocation);
        used[invocation] = true;
    }
}

void client_send(const uint8_t *request, size_t size_bytes, int handle) {
    /* Private, and no longer than it is: a sanitizer sees who reads past it. */
    uint8_t *copy = malloc(size_bytes + (size_bytes == 0));
    const uint32_t handles = stub.handles;

    CHECK(copy != NULL, "copy");
    memcpy(copy, request, size_bytes);
    if (client.record != NULL)
        client.record(request, size_bytes, handle);
    if (client.around != NULL)
        client.around(true);
    client.answer_bytes = eval_message(client.eval, copy, size_bytes, handle, client.answer);
    if (client.around != NULL)
        client.around(false);
    CHECK(stub.handles == handles + (handle >= 0), "a handle is taken over once");
    judge(copy, size_bytes);
    judge_state(size_bytes < sizeof(struct edged_hdr) ? 0 : load_le16(copy + offsetof(struct edged_hdr, cmd)));
    free(copy);
}

void client_request(uint16_t cmd, const void *body, size_t size_bytes, int handle) {
    const struct edged_hdr h = {.version = EDGED_WIRE_VERSION, .cmd = cmd, .len = (uint32_t)size_bytes, .seq = 5};

    memcpy(client.request, &h, sizeof(h));
    if (size_bytes != 0)
        memmove(client.request + sizeof(h), body, size_bytes);
    client.request_bytes = sizeof(h) + size_bytes;
    if (handle != -2)
        client_send(client.request, client.request_bytes, handle);
}

/* ------------------------------------------------------- what is due next --- */

static int due(uint16_t cmd, const void *body, size_t size_bytes) {
    client_request(cmd, body, size_bytes, -2);
    return -1;
}

static int due_bulk(uint16_t cmd, uint32_t object, uint64_t offset, const uint8_t *bytes, size_t size) {
    const struct edged_chunk at = {.object = object, .offset = offset};
    uint8_t body[EDGED_MESSAGE_BYTES - sizeof(struct edged_hdr)];

    if (size > EDGED_CHUNK_BYTES)
        size = EDGED_CHUNK_BYTES;
    memcpy(body, &at, sizeof(at));
    if (size != 0)
        memcpy(body + sizeof(at), bytes, size);
    return due(cmd, body, sizeof(at) + size);
}

/* The sealed clip of a session; the same bytes each time. */
static const uint8_t *seal_clip(uint32_t session, uint64_t number, uint32_t persons, size_t *size) {
    static const char label[] = "edged clip v1";
    static uint8_t out[1 << 16];
    uint8_t nonce[12] = {0}, aad[sizeof(label) - 1 + 12];
    char name[32];
    struct edged_clip head = {.version = 1,
                              .persons = persons,
                              .frames = shape.frames,
                              .joints = shape.joints,
                              .claimed_ns = CLIENT_CLAIMED_NS};
    size_t coordinates;

    snprintf(name, sizeof(name), "clip/%u", persons);
    const uint8_t *clip = vector_get(name, &coordinates);
    CHECK(sizeof(head) + coordinates + CRYPTO_TAG_BYTES <= sizeof(out), "clip");
    for (uint32_t i = 0; i < persons; i++)
        head.tracks[i] = i + 1;
    memcpy(head.camera, client.eval->sessions[session].camera, sizeof(head.camera));
    memcpy(out, &head, sizeof(head));
    memcpy(out + sizeof(head), clip, coordinates);
    store_le64(nonce, number);
    memcpy(aad, label, sizeof(label) - 1);
    store_le32(aad + sizeof(label) - 1, session);
    store_le64(aad + sizeof(label) + 3, number);
    CHECK(crypto_gcm_seal(client.eval->sessions[session].key, 32, nonce, aad, sizeof(aad), out,
                          sizeof(head) + coordinates, out) == 0,
          "seal");
    *size = sizeof(head) + coordinates + CRYPTO_TAG_BYTES;
    return out;
}

static size_t clip_bytes(uint32_t persons) {
    return sizeof(struct edged_clip) + (size_t)persons * shape.frames * shape.joints * 6 + EVAL_TAG_BYTES;
}

static int due_clip(uint32_t session) {
    const struct eval *e = client.eval;
    struct eval_clip_open ask = {.session = session,
                                 .flags = client.window && e->window != NULL ? EVAL_CLIP_WINDOW : 0};
    uint32_t persons = client.persons;
    const struct session *s = &e->sessions[session];

    if (s->unfinished && (!client.again || s->attempts >= EVAL_ATTEMPTS_MAX)) {
        const struct eval_index give_up = {.index = session};
        return due(EVAL_CLIP_ABORT, &give_up, sizeof(give_up));
    }
    if (s->unfinished)
        persons = s->persons;
    ask.number = s->unfinished ? s->number : s->number + 1;
    ask.bytes = (uint32_t)clip_bytes(persons);
    for (uint32_t i = 0; i < EVAL_PREPARED_MAX; i++)
        if (e->prepared[i].invocation != 0 && e->prepared[i].persons == persons)
            ask.invocation = e->prepared[i].invocation;
    if (ask.flags != 0) {
        size_t size;
        const uint8_t *bytes = seal_clip(ask.session, ask.number, persons, &size);
        if (size <= stub.window_bytes)
            memcpy(stub.window, bytes, size);
    }
    return due(EVAL_CLIP_OPEN, &ask, sizeof(ask));
}

static int due_agreement(uint32_t deal) {
    char name[32];
    size_t size;

    snprintf(name, sizeof(name), "agreement/%u", deal);
    const void *body = vector_get(name, &size);
    return due(EVAL_AGREEMENT, body, size);
}

static int due_session(uint32_t place) {
    const struct eval *e = client.eval;
    struct eval_session_open ask = {.agreement = place};
    const struct eval_index last = {.index = EVAL_SESSIONS_MAX - 1};

    memcpy(ask.camera, CAMERA, sizeof(CAMERA));
    for (uint32_t i = 0; i < EVAL_SESSIONS_MAX; i++)
        if (!e->sessions[i].open)
            return due(EVAL_SESSION_OPEN, &ask, sizeof(ask));
    return due(e->sessions[last.index].unfinished ? EVAL_CLIP_ABORT : EVAL_SESSION_CLOSE, &last, sizeof(last));
}

static uint32_t prepared_count(uint32_t persons) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < EVAL_PREPARED_MAX; i++)
        n += client.eval->prepared[i].invocation != 0 && client.eval->prepared[i].persons == persons;
    return n;
}

/* Records that wait, and their bytes. */
static uint32_t kept_count(size_t *bytes) {
    uint32_t n = 0;

    *bytes = 0;
    for (uint32_t i = 0; i < EVAL_KEPT_MAX; i++) {
        n += client.eval->kept[i].emission != 0;
        *bytes += client.eval->kept[i].bytes;
    }
    return n;
}

/* Its agreement comes before its model: those in force are the ones that may permit the placement. */
static bool is_agreed(void) {
    const struct eval *e = client.eval;
    const struct eval_emission all = {.emission = e->emission};
    const uint32_t deal = city_client_deal(), place = city_place(deal);
    size_t bytes;
    const uint32_t kept = kept_count(&bytes);

    /* What is confirmed frees the places of agreements that are over. */
    if (kept > EVAL_KEPT_MAX / 2 || bytes > EVAL_KEPT_BYTES / 2 ||
        (place == EVAL_AGREEMENTS_MAX && deal != 0 && kept != 0))
        (void)due(EVAL_CONFIRM, &all, sizeof(all));
    else if (place == EVAL_AGREEMENTS_MAX)
        (void)due_agreement(deal);
    else
        return true;
    return false;
}

static int due_ready(void) {
    const struct eval *e = client.eval;
    const uint32_t deal = city_client_deal(), place = city_place(deal);
    uint32_t session = 0;

    if (!is_agreed())
        return -1;
    if (stub.uptime_ns - e->agreements[place].heard_ns > city_terms(deal)->limit_s / 2 * CITY_SECOND) {
        const struct eval_beacon beacon = city_beacon(place, 0, city_now_ns());
        return due(EVAL_BEACON, &beacon, sizeof(beacon));
    }
    while (session < EVAL_SESSIONS_MAX && !(e->sessions[session].open && e->sessions[session].agreement == place))
        session++;
    if (session == EVAL_SESSIONS_MAX)
        return due_session(place);
    const struct session *s = &e->sessions[session];
    if (s->number == UINT64_MAX && !s->unfinished) { /* no number is left: the camera asks for new keys */
        struct eval_session_open ask = {.agreement = place};
        memcpy(ask.camera, s->camera, sizeof(ask.camera));
        return due(EVAL_SESSION_OPEN, &ask, sizeof(ask));
    }
    if (client.ahead && client.persons != 0 && e->network.placement != EVAL_ENCLAVE &&
        prepared_count(client.persons) == 0) {
        const struct eval_prepare_open ask = {.persons = client.persons};
        return due(EVAL_PREPARE_OPEN, &ask, sizeof(ask));
    }
    return due_clip(session);
}

static void compute(uint32_t product) {
    const struct layer *l = network_product(&(struct network){.model = &shape}, product);
    const struct network *n = &client.eval->network;

    accelerator_convolve(&l->outside, l->rows, l->frames_out, n->persons, wbar[product], xbar[product],
                         n->prepared ? ahead[n->invocation % EVAL_PREPARED_MAX][product] : NULL, ybar[product]);
}

static int due_step(void) {
    const struct eval *e = client.eval;
    const struct flow *f = &e->flow;
    const bool window = (e->clip.flags & EVAL_CLIP_WINDOW) != 0, enclave = e->network.placement == EVAL_ENCLAVE;
    const struct eval_index ask = {.index = e->step};

    if (window && !enclave)
        for (uint32_t p = e->model.step_product[e->step]; p < e->model.step_product[e->step + 1]; p++) {
            uint64_t x, y;
            window_offsets(e, p, &x, &y);
            memcpy(xbar[p], stub.window + x, object_bytes(FLOW_X, p, e->network.persons));
            compute(p);
            memcpy(stub.window + y, ybar[p], object_bytes(FLOW_Y, p, e->network.persons));
        }
    if (window || enclave || (e->taking && f->product == f->end))
        return due(EVAL_STEP, &ask, sizeof(ask));
    if (!e->taking)
        return due_bulk(EVAL_STEP_READ, f->product, f->offset, NULL, 0);
    if (f->offset == 0)
        compute(f->product);
    return due_bulk(EVAL_STEP_WRITE, f->product, f->offset, (const uint8_t *)ybar[f->product] + f->offset,
                    object_bytes(FLOW_Y, f->product, e->network.persons) - (size_t)f->offset);
}

int client_due(void) {
    const struct eval *e = client.eval;
    const struct flow *f = &e->flow;
    const uint32_t window_bytes = 1 << 20;
    const bool window = client.window && e->window_bytes >= window_bytes;
    const struct eval_index product = {.index = f->product};

    switch (e->state) {
    case STATE_EMPTY: {
        if (!is_agreed())
            return -1;
        if (client.window && !window) {
            const struct eval_window w = {.bytes = window_bytes};
            (void)due(EVAL_WINDOW, &w, sizeof(w));
            return CLIENT_WINDOW_HANDLE;
        }
        const struct eval_load_open ask = {
            .slot = client.forged ? CLIENT_FORGED_SLOT : 0,
            .placement = client.placement,
            .envelope_bytes = packages[client.forged].envelope_bytes};
        return due(EVAL_LOAD_OPEN, &ask, sizeof(ask));
    }
    case STATE_ENVELOPE:
        return due_bulk(EVAL_LOAD_ENVELOPE, 0, e->loading->have,
                        packages[client.forged].envelope + e->loading->have,
                        e->loading->envelope_bytes - e->loading->have);
    case STATE_CHUNKS: {
        const size_t each = EVAL_SEAL_BYTES + EVAL_TAG_BYTES, at = e->loading->have * each;
        if (e->loading->have == e->model.chunks)
            return due(EVAL_LOAD_COMMIT, NULL, 0);
        const size_t left = packages[client.forged].sealed_bytes - at;
        return due_bulk(EVAL_LOAD_CHUNK, e->loading->have, 0, packages[client.forged].sealed + at,
                        left < each ? left : each);
    }
    case STATE_WEIGHTS:
        return window && f->offset == 0 ? due(EVAL_WEIGHTS_MAP, &product, sizeof(product))
                                        : due_bulk(EVAL_WEIGHTS_READ, f->product, f->offset, NULL, 0);
    case STATE_READY:
        return due_ready();
    case STATE_PREPARE:
        return window && f->offset == 0 ? due(EVAL_PREPARE_MAP, &product, sizeof(product))
                                        : due_bulk(EVAL_PREPARE_READ, f->product, f->offset, NULL, 0);
    case STATE_CLIP: {
        const struct session *s = &e->sessions[e->clip.session];
        size_t size;
        if (e->clip_have == e->clip.bytes)
            return due(EVAL_CLIP_BEGIN, NULL, 0);
        const uint32_t persons = (uint32_t)((e->clip.bytes - clip_bytes(0)) / (clip_bytes(1) - clip_bytes(0)));
        const uint8_t *bytes = seal_clip((uint32_t)(s - e->sessions), e->clip.number, persons, &size);
        return due_bulk(EVAL_CLIP_WRITE, 0, e->clip_have, bytes + e->clip_have, size - e->clip_have);
    }
    default:
        return due_step();
    }
}

void client_advance(uint32_t messages, uint32_t states) {
    while (messages-- != 0 && (client.eval->state & states) == 0) {
        const int handle = client_due();
        client_send(client.request, client.request_bytes, handle);
    }
}

void client_evaluate(void) {
    const uint32_t before = client.observations;

    for (uint32_t left = 20000; left != 0 && client.observations == before; left--) {
        const int handle = client_due();
        client_send(client.request, client.request_bytes, handle);
        if (client.status == EDGED_ERR_RATE)
            stub.uptime_ns += CITY_SECOND / 100; /* then the next one may come */
    }
    CHECK(client.observations == before + 1, "an honest client is served from any state");
}

void client_spoil(void) {
    client_advance(20000, STATE_STEP);
    while (client.eval->state == STATE_STEP) {
        const int handle = client_due();
        if (load_le16(client.request + offsetof(struct edged_hdr, cmd)) == EVAL_STEP_WRITE && client.eval->step == 1)
            client.request[client.request_bytes - 1] ^= 0x80;
        client_send(client.request, client.request_bytes, handle);
    }
}
