#include "city.h"

#include <string.h>

#include "body.h"
#include "bytes.h"
#include "cbor.h"
#include "client.h"
#include "port_stub.h"
#include "vector.h"

struct city city;

/** struct held - a record that was not confirmed yet */
struct held {
    uint64_t emission, seq;
    uint32_t place, recipient;
    size_t bytes;
    uint8_t *record;
};

static struct terms deals[CITY_DEALS];
static uint8_t node[32]; /* its name */

static uint64_t emission;
static struct held kept[EVAL_KEPT_MAX]; /* by emission, rising */
static uint32_t kept_count;

void city_init(void) {
    char name[32];
    size_t size;

    body_init();
    for (uint32_t i = 0; i < CITY_DEALS; i++) {
        snprintf(name, sizeof(name), "terms/%u", i);
        const void *terms = vector_get(name, &size);
        CHECK(size == sizeof(deals[i]), "%s: %zu bytes", name, size);
        memcpy(&deals[i], terms, size);
    }
    CHECK(port_device_key("edged node v1", node) == 0, "node");
}

static void forget(uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        free(kept[i].record);
    kept_count -= count;
    memmove(kept, kept + count, kept_count * sizeof(kept[0]));
}

static void begin_epoch(void) {
    memset(now.cameras, 0, sizeof(now.cameras));
    memset(now.places, 0, sizeof(now.places));
    memset(now.sequences, 0, sizeof(now.sequences));
    memset(now.least, 0, sizeof(now.least));
    CHECK(memcmp(now.name, client.eval->epoch, sizeof(now.name)) != 0 &&
              memcmp(now.salt, client.eval->salt, sizeof(now.salt)) != 0,
          "a name and keys of its own");
    memcpy(now.name, client.eval->epoch, sizeof(now.name));
    memcpy(now.salt, client.eval->salt, sizeof(now.salt));
    now.counter++;
}

void city_restart(void) {
    forget(kept_count);
    emission = 0;
    memset(&now, 0, sizeof(now));
    begin_epoch();
}

void city_start(void) {
    memset(&city, 0, sizeof(city));
    city_restart();
}

const struct terms *city_terms(uint32_t deal) {
    return &deals[deal];
}

uint32_t city_place(uint32_t deal) {
    uint32_t place = 0;

    while (place < EVAL_AGREEMENTS_MAX && (now.places[place].terms != &deals[deal] || now.places[place].over))
        place++;
    return place;
}

uint32_t city_client_deal(void) {
    static const uint32_t order[] = {0, CITY_SAME, CITY_CHANGED, CITY_DRAWN};
    uint32_t first = 0, empty = 0;

    for (uint32_t i = 0; i < EVAL_AGREEMENTS_MAX; i++)
        empty += now.places[i].terms == NULL;
    while (deals[order[first]].number < now.least[deals[0].data_slot])
        first++;
    /* Not the preferred one where there is no place for it. */
    if (city.drawn ? empty != 0 : empty == 0 && city_place(order[first]) == EVAL_AGREEMENTS_MAX)
        return CITY_DRAWN;
    return city.drawn && city_place(CITY_DRAWN) != EVAL_AGREEMENTS_MAX ? CITY_DRAWN : order[first];
}

static uint64_t clock_ns(void) {
    return CITY_BEGIN_S * CITY_SECOND + city.ahead_ns + stub.uptime_ns;
}

uint64_t city_now_ns(void) {
    return clock_ns() > city.sent_ns ? clock_ns() : city.sent_ns + 1;
}

void city_pass_s(uint64_t seconds) {
    stub.uptime_ns += seconds * CITY_SECOND;
}

/* ------------------------------------------------------------------ keys --- */

static uint64_t u64_of(const uint8_t *p) {
    return load_le32(p) | (uint64_t)load_le32(p + 4) << 32;
}

static void derive(const struct terms *t, const struct terms_recipient *to, const char *label, uint8_t key[32]) {
    uint8_t info[15 + 16 + 32];

    memcpy(info, label, 15);
    memcpy(info + 15, to->rcpt, 16);
    memcpy(info + 31, t->digest, 32);
    CHECK(crypto_hkdf_sha256(to->key, to->key_bytes, client.eval->salt, 32, info, sizeof(info), key, to->key_bytes) ==
              0,
          "%s", label);
}

struct eval_beacon city_beacon(uint32_t place, uint32_t recipient, uint64_t time_ns) {
    const struct terms *t = now.places[place].terms;
    struct eval_beacon b = {.beacon = {.version = 1, .time_ns = time_ns}, .config = "zones and privacy masks"};
    uint8_t key[32];

    CHECK(t != NULL && recipient < t->recipients, "recipient %u", recipient);
    if (time_ns > city.sent_ns && time_ns <= INT64_MAX)
        city.sent_ns = time_ns;
    if (city.sent_ns > clock_ns()) /* what it told is its time */
        city.ahead_ns += city.sent_ns - clock_ns();
    memcpy(b.beacon.rcpt, t->recipient[recipient].rcpt, 16);
    store_le64(b.beacon.nonce, time_ns);
    derive(t, &t->recipient[recipient], "edged beacon v1", key);
    CHECK(crypto_hmac_sha256(key, t->recipient[recipient].key_bytes, (const uint8_t *)&b.beacon,
                             sizeof(b.beacon) - sizeof(b.beacon.tag), b.beacon.tag) == 0,
          "beacon");
    return b;
}

/* --------------------------------------------------------------- records --- */

static struct sequence *sequence_of(const uint8_t rcpt[16]) {
    uint32_t i = 0;

    while (i < EVAL_RECIPIENTS_MAX && now.sequences[i].seq != 0 && memcmp(now.sequences[i].rcpt, rcpt, 16) != 0)
        i++;
    CHECK(i < EVAL_RECIPIENTS_MAX, "too many recipients");
    memcpy(now.sequences[i].rcpt, rcpt, 16);
    return &now.sequences[i];
}

static size_t expect_header(const struct terms_recipient *to, uint64_t seq, uint32_t kind, uint8_t *out) {
    struct cbor_writer w = {.data = out, .size = EDGED_RECORD_HEADER_MAX};

    cbor_write_map(&w, 8);
    cbor_write_text(&w, "v");
    cbor_write_uint(&w, 1);
    cbor_write_text(&w, "kid");
    cbor_write_bytes(&w, to->key_id, 16);
    cbor_write_text(&w, "seq");
    cbor_write_uint(&w, seq);
    cbor_write_text(&w, "kind");
    cbor_write_uint(&w, kind);
    cbor_write_text(&w, "node");
    cbor_write_bytes(&w, node, 16);
    cbor_write_text(&w, "rcpt");
    cbor_write_bytes(&w, to->rcpt, 16);
    cbor_write_text(&w, "salt");
    cbor_write_bytes(&w, client.eval->salt, 32);
    cbor_write_text(&w, "epoch");
    cbor_write_bytes(&w, client.eval->epoch, 16);
    CHECK(!w.failed, "a header has room");
    return w.at;
}

/* Opens with the recipient's own key; says what it must, byte for byte. */
static void judge_record(const struct held *k, const uint8_t *plain) {
    const struct terms *t = now.places[k->place].terms;
    const struct terms_recipient *to = &t->recipient[k->recipient];
    const uint32_t kind = load_le32(plain + 4);
    uint8_t header[EDGED_RECORD_HEADER_MAX], key[32], nonce[12] = {0};
    static uint8_t opened[CITY_PLAIN_MAX];
    const size_t n = expect_header(to, k->seq, kind == EDGED_ALERT ? EDGED_OBSERVATION : kind, header);
    struct edged_record head;

    CHECK(k->bytes == sizeof(head) + EDGED_RECORD_HEADER_MAX + t->body + EVAL_TAG_BYTES, "a record of %zu bytes",
          k->bytes);
    memcpy(&head, k->record, sizeof(head));
    CHECK(head.header_bytes == n && sizeof(head) + n + head.body_bytes == k->bytes, "a record of %u + %u",
          head.header_bytes, head.body_bytes);
    CHECK(memcmp(k->record + sizeof(head), header, n) == 0, "header of kind %u", kind);
    derive(t, to, "edged record v1", key);
    store_le64(nonce, k->seq);
    CHECK(crypto_gcm_open(key, to->key_bytes, nonce, header, n, k->record + sizeof(head) + n,
                          head.body_bytes - EVAL_TAG_BYTES, opened) == 0,
          "the recipient's key opens its record");
    const size_t size = head.body_bytes - EVAL_TAG_BYTES;
    for (size_t i = memcmp(opened, plain, size) == 0 ? size : 0; i < size; i++)
        CHECK(opened[i] == plain[i], "byte %zu of kind %u is %u, not %u", i, kind, opened[i], plain[i]);
    city.kinds[k->recipient] = kind;
}

/* Take what was sealed: one record for each recipient, in order; a heartbeat for who sent the beacon. */
static void take_new(const struct edged_hdr *ask, const uint8_t *request, enum edged_status status) {
    static uint8_t plain[CITY_PLAIN_MAX];
    uint32_t next = 0;

    for (; emission < client.eval->emission; next++) {
        const struct kept *from = client.eval->kept;
        while (from < client.eval->kept + EVAL_KEPT_MAX && from->emission != emission + 1)
            from++;
        CHECK(from < client.eval->kept + EVAL_KEPT_MAX && kept_count < EVAL_KEPT_MAX, "it is kept");
        struct held *k = &kept[kept_count++];
        *k = (struct held){++emission, from->seq, from->agreement, from->recipient, from->bytes, malloc(from->bytes)};
        CHECK(k->record != NULL && from->at + from->bytes <= EVAL_KEPT_BYTES, "room");
        memcpy(k->record, client.eval->kept_bytes + from->at, from->bytes);
        const struct terms *t = now.places[k->place].terms;
        CHECK(t != NULL && k->recipient < t->recipients, "recipient %u", k->recipient);
        CHECK(ask->cmd == EVAL_BEACON ? next == 0 : k->recipient == next, "one for each recipient");
        CHECK(!now.places[k->place].over, "nothing under one that is over");
        struct sequence *const sequence = sequence_of(t->recipient[k->recipient].rcpt);
        CHECK(k->seq == sequence->seq + 1, "number %llu after %llu", (unsigned long long)k->seq,
              (unsigned long long)sequence->seq);
        sequence->seq = k->seq;
        memcpy(sequence->qdo, t->qdo, sizeof(sequence->qdo));
        const struct about who = {k->place, k->recipient, k->seq};
        body_expect(ask, request, status, &who, plain);
        judge_record(k, plain);
    }
    CHECK(next == 0 || ask->cmd == EVAL_BEACON || next == now.places[kept[kept_count - 1].place].terms->recipients,
          "one for each recipient, not %u", next);
}

/* The answer carries the new records, as many as fit. */
static void judge_answer(const struct edged_hdr *ask, const uint8_t *request, uint64_t before, const uint8_t *body,
                         size_t size) {
    struct eval_step step;

    CHECK(size >= sizeof(step), "struct eval_step");
    memcpy(&step, body, sizeof(step));
    CHECK(step.record_bytes == size - sizeof(step), "records of %u bytes", step.record_bytes);
    size_t at = sizeof(step);
    uint32_t i = 0;
    while (i < kept_count && kept[i].emission < before)
        i++;
    if (ask->cmd == EVAL_RECORD) {
        const uint32_t room = EDGED_MESSAGE_BYTES - sizeof(struct edged_hdr) - sizeof(step);
        const uint32_t offset = load_le32(request + 8), left = i == kept_count ? 0 : (uint32_t)kept[i].bytes - offset;
        CHECK(step.emission == (i < kept_count ? kept[i].emission : emission) && step.records == 0, "emission");
        CHECK(offset == 0 || (step.emission == before && offset < kept[i].bytes), "an offset of a record that is kept");
        CHECK(step.record_bytes == (left < room ? left : room) &&
                  (left == 0 || memcmp(body + at, kept[i].record + offset, step.record_bytes) == 0),
              "the record again, byte for byte");
        return;
    }
    CHECK(step.emission == emission && step.records == emission + 1 - before && step.reserved == 0, "emission");
    for (; i < kept_count && at + kept[i].bytes <= EDGED_MESSAGE_BYTES - sizeof(struct edged_hdr); i++) {
        CHECK(at + kept[i].bytes <= size && memcmp(body + at, kept[i].record, kept[i].bytes) == 0,
              "a new record is in the answer");
        at += kept[i].bytes;
    }
    CHECK(at == size, "nothing else is in the answer");
}

/* ---------------------------------------------------------- sealed state --- */

static void open_state(const struct edged_state *s, struct summary *out) {
    uint8_t device[32], key[32], salt[32] = {0}, nonce[12] = {0}, aad[24];

    memcpy(salt, s->epoch, 16);
    memcpy(aad, s->epoch, 16);
    store_le64(aad + 16, s->count);
    store_le64(nonce, s->count);
    CHECK(sizeof(*out) + EVAL_TAG_BYTES == sizeof(s->sealed) && port_device_key("edged state v1", device) == 0 &&
              crypto_hkdf_sha256(device, 32, salt, 32, (const uint8_t *)"edged state v1", 14, key, 32) == 0 &&
              crypto_gcm_open(key, 32, nonce, aad, sizeof(aad), s->sealed, sizeof(*out), (uint8_t *)out) == 0,
          "a sealed state");
}

static void remember(const struct summary *told) {
    memset(now.remembered, 0, sizeof(now.remembered));
    for (uint32_t i = 0; i < EVAL_PASTS_MAX; i++) {
        now.remembered[i] = (struct remembered){.past = told->past[i], .at_ns = stub.uptime_ns};
        now.remembered[i].known = told->past[i].seq != 0 || told->past[i].told_ns != 0;
    }
    now.before_closed = told->closed;
}

/* What the next epoch must know of a recipient. */
static bool summarise(const struct remembered *r, bool closed, struct summary_past *out) {
    const struct sequence *s = NULL;

    for (uint32_t i = 0; i < EVAL_RECIPIENTS_MAX && now.sequences[i].seq != 0; i++)
        if (memcmp(now.sequences[i].rcpt, r->past.rcpt, 16) == 0 && memcmp(now.sequences[i].qdo, r->past.qdo, 32) == 0)
            s = &now.sequences[i];
    *out = r->past;
    out->least_ns = body_since(r->past.least_ns, r->at_ns);
    if (s != NULL && s->confirmed != 0) { /* he may have read of this one */
        memcpy(out->epoch, now.name, sizeof(out->epoch));
        out->seq = s->confirmed;
        out->closed = closed;
    } else if (s != NULL) {
        out->closed = 0;
    }
    return r->known && (out->seq != 0 || out->told_ns != 0);
}

static void judge_state(const uint8_t *body, size_t size, bool closed) {
    struct summary told;
    struct edged_state s;
    uint32_t there = 0, right = 0;

    CHECK(size == sizeof(s), "struct edged_state");
    memcpy(&s, body, sizeof(s));
    CHECK(memcmp(s.epoch, now.name, sizeof(s.epoch)) == 0 &&
              (!city.has_state || memcmp(s.epoch, city.state.epoch, 16) != 0 || s.count > city.state.count),
          "a nonce seals one state");
    open_state(&s, &told);
    CHECK(told.counter == now.counter && told.closed == closed, "the epoch");
    for (uint32_t i = 0; i < EVAL_PASTS_MAX; i++)
        there += told.past[i].seq != 0 || told.past[i].told_ns != 0;
    for (uint32_t i = 0; i < EVAL_PASTS_MAX; i++) {
        struct summary_past past;
        uint32_t at = 0;
        if (!summarise(&now.remembered[i], closed, &past))
            continue;
        while (at < EVAL_PASTS_MAX && memcmp(&told.past[at], &past, sizeof(past)) != 0)
            at++;
        CHECK(at < EVAL_PASTS_MAX, "the state tells where a sequence and a clock stand");
        right++;
    }
    CHECK(there == right, "the state tells of %u recipients, not %u", there, right);
    city.state = s;
    city.has_state = true;
    if (!closed)
        return;
    remember(&told);
    now.before_known = true;
    memcpy(now.before_name, s.epoch, sizeof(s.epoch));
    begin_epoch();
}

static void confirm(uint64_t up_to) {
    uint32_t gone = 0;

    for (; gone < kept_count && kept[gone].emission <= up_to; gone++)
        sequence_of(now.places[kept[gone].place].terms->recipient[kept[gone].recipient].rcpt)->confirmed =
            kept[gone].seq;
    forget(gone);
    for (uint32_t i = 0; i < EVAL_AGREEMENTS_MAX; i++) {
        uint32_t of = 0;
        for (uint32_t k = 0; k < kept_count; k++)
            of += kept[k].place == i;
        if (now.places[i].over && of == 0)
            memset(&now.places[i], 0, sizeof(now.places[i]));
    }
}

/* ---------------------------------------------------- what else it knows --- */

static void restored(const uint8_t *request) {
    struct edged_state s;

    memcpy(&s, request, sizeof(s));
    CHECK(!now.before_known && memcmp(s.epoch, now.name, sizeof(s.epoch)) != 0, "once, of an epoch before");
    struct summary told;
    open_state(&s, &told);
    remember(&told);
    memcpy(now.before_name, s.epoch, sizeof(s.epoch));
    now.before_known = true;
    now.counter = told.counter + 1;
}

static void not_before(struct in_force *f, uint64_t time_ns, uint64_t at_ns) {
    if (body_since(f->least_ns, f->least_at_ns) < body_since(time_ns, at_ns)) {
        f->least_ns = body_since(time_ns, at_ns);
        f->least_at_ns = stub.uptime_ns;
    }
}

/* A recipient's clock goes on where it stood, under his city's other agreements and in the epochs before. */
static void resume(struct in_force *f, uint32_t recipient) {
    const uint8_t *rcpt = f->terms->recipient[recipient].rcpt;
    struct remembered *r = body_remembered(rcpt, f->terms->qdo);

    if (r == NULL) {
        for (r = now.remembered; r->known; r++)
            CHECK(r < now.remembered + EVAL_PASTS_MAX - 1, "too many recipients");
        *r = (struct remembered){.known = true};
        memcpy(r->past.rcpt, rcpt, sizeof(r->past.rcpt));
        memcpy(r->past.qdo, f->terms->qdo, sizeof(r->past.qdo));
    }
    f->beacon_ns[recipient] = r->past.told_ns;
    not_before(f, r->past.least_ns, r->at_ns);
}

static void agreed(uint32_t place) {
    struct in_force *f = &now.places[place];

    CHECK(place < EVAL_AGREEMENTS_MAX, "place %u", place);
    for (uint32_t i = 0; i < CITY_DEALS; i++)
        if (memcmp(client.eval->agreements[place].digest, deals[i].digest, 32) == 0) {
            CHECK(f->terms == NULL || f->terms == &deals[i], "one agreement in a place");
            CHECK(!f->over && deals[i].number >= now.least[deals[i].data_slot], "what is over does not come back");
            if (f->terms != NULL)
                break;
            *f = (struct in_force){.terms = &deals[i], .heard_ns = stub.uptime_ns};
            for (uint32_t r = 0; r < f->terms->recipients; r++)
                resume(f, r);
        }
    CHECK(f->terms != NULL, "what nobody signed is not in force");
}

static bool follows(const struct terms *next, const struct terms *before) {
    return next->data_slot == before->data_slot && next->number > before->number;
}

static void followed(const uint8_t *request) {
    struct eval_succeed ask;

    memcpy(&ask, request, sizeof(ask));
    CHECK(ask.agreement < EVAL_AGREEMENTS_MAX && ask.successor < EVAL_AGREEMENTS_MAX, "places");
    struct in_force *f = &now.places[ask.agreement], *next = &now.places[ask.successor];
    CHECK(f->terms != NULL && next->terms != NULL && !f->over && !next->over && follows(next->terms, f->terms),
          "a later agreement of the same owners");
    for (uint32_t i = 0; i < EVAL_SESSIONS_MAX; i++)
        CHECK(!now.cameras[i].known || now.cameras[i].place != ask.agreement, "a camera is left");
    f->over = true;
    if (now.least[f->terms->data_slot] <= f->terms->number)
        now.least[f->terms->data_slot] = f->terms->number + 1;
}

/* Whoever sees the rule now saw it before, by its label. */
static bool was_told(const struct terms *next, uint32_t rule, const struct terms *before, uint32_t of) {
    if (next->status != before->status || next->rule[rule].label != before->rule[of].label)
        return false;
    for (uint32_t i = 0; i < next->recipients; i++) {
        bool saw = false;
        for (uint32_t k = 0; k < before->recipients; k++)
            saw = saw || (memcmp(next->recipient[i].rcpt, before->recipient[k].rcpt, 16) == 0 &&
                          before->recipient[k].sees_rule[of] != 0);
        if (next->recipient[i].sees_rule[rule] != 0 && !saw)
            return false;
    }
    return true;
}

static void opened(const uint8_t *request, uint32_t session) {
    struct eval_session_open ask;
    struct camera *c = &now.cameras[session], *from = NULL, fresh = {.known = true};

    CHECK(session < EVAL_SESSIONS_MAX, "session %u", session);
    memcpy(&ask, request, sizeof(ask));
    const struct terms *next = now.places[ask.agreement].terms, *before = NULL;
    CHECK(next->number >= now.least[next->data_slot], "no camera begins under what is over");
    for (uint32_t i = 0; i < EVAL_SESSIONS_MAX; i++)
        CHECK(i == session || !now.cameras[i].known || now.cameras[i].place != ask.agreement ||
                  memcmp(now.cameras[i].name, ask.camera, 32) != 0,
              "a camera has one session");
    CHECK(!c->known || (c->place == ask.agreement && memcmp(c->name, ask.camera, 32) == 0), "session %u", session);
    if (c->known)
        fresh = *c;
    for (uint32_t i = 0; i < EVAL_SESSIONS_MAX && !c->known; i++) {
        struct camera *former = &now.cameras[i];
        if (!former->known || memcmp(former->name, ask.camera, 32) != 0 ||
            !follows(next, now.places[former->place].terms) ||
            (from != NULL && now.places[former->place].terms->number < before->number))
            continue;
        from = former;
        before = now.places[from->place].terms;
    }
    for (uint32_t r = 0; from != NULL && r < next->rules; r++)
        for (uint32_t k = 0; k < before->rules; k++)
            if (was_told(next, r, before, k)) {
                fresh.past[r] = from->past[k];
                memset(&from->past[k], 0, sizeof(from->past[k])); /* it ends once */
            }
    fresh.place = ask.agreement;
    memcpy(fresh.name, ask.camera, sizeof(fresh.name));
    *c = fresh;
}

void city_judge(const struct edged_hdr *ask, const uint8_t *request, enum edged_status status, const uint8_t *body,
                size_t size_bytes) {
    const bool ok = status == EDGED_OK;
    const uint64_t before = ok && ask->cmd == EVAL_RECORD ? u64_of(request) : emission + 1;

    if (ok && ask->cmd == EVAL_AGREEMENT)
        agreed(load_le32(body));
    take_new(ask, request, status);
    if (size_bytes != 0 &&
        (ask->cmd == EVAL_CLIP_OPEN || ask->cmd == EVAL_CLIP_BEGIN || ask->cmd == EVAL_STEP ||
         ask->cmd == EVAL_CLIP_ABORT || ask->cmd == EVAL_RECORD || ask->cmd == EVAL_AGREEMENT ||
         ask->cmd == EVAL_BEACON || ask->cmd == EVAL_EXERCISE || ask->cmd == EVAL_CLAIM ||
         ask->cmd == EVAL_SUCCEED))
        judge_answer(ask, request, before, body, size_bytes);
    if (ask->cmd == EVAL_CONFIRM && (ok || status == EDGED_ERR_UNAVAILABLE)) /* they are gone where its seal failed */
        confirm(u64_of(request));
    if (ok && (ask->cmd == EVAL_CONFIRM || ask->cmd == EVAL_CLOSE))
        judge_state(body, size_bytes, ask->cmd == EVAL_CLOSE);
    if (ok && ask->cmd == EVAL_SUCCEED)
        followed(request);
    if (ok && ask->cmd == EVAL_RESTORE)
        restored(request);
    if (ok && ask->cmd == EVAL_SESSION_OPEN)
        opened(request, load_le32(body));
    if (ok && ask->cmd == EVAL_SESSION_CLOSE)
        memset(&now.cameras[load_le32(request)], 0, sizeof(now.cameras[0]));
}
