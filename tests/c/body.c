#include "body.h"

#include <string.h>

#include "bytes.h"
#include "client.h"
#include "port_stub.h"
#include "vector.h"

struct knowledge now;

static uint32_t labels;
static uint8_t model[32]; /* digest of the manifest */

void body_init(void) {
    size_t size, manifest_bytes;
    const uint8_t *manifest = vector_get("package/manifest", &manifest_bytes);

    (void)vector_get("logits/0", &size);
    labels = (uint32_t)(size / 4);
    CHECK(crypto_sha256(manifest, manifest_bytes, model) == 0, "digest");
}

static uint64_t time_ns(const struct in_force *f) {
    return f->told_ns == 0 ? 0 : f->told_ns + (stub.uptime_ns - f->heard_ns);
}

uint64_t body_since(uint64_t time_ns, uint64_t at_ns) {
    const uint64_t passed = stub.uptime_ns - at_ns;
    return time_ns == 0 ? 0 : time_ns + passed - passed / 1024;
}

struct remembered *body_remembered(const uint8_t rcpt[16], const uint8_t qdo[32]) {
    for (uint32_t i = 0; i < EVAL_PASTS_MAX; i++) {
        struct remembered *r = &now.remembered[i];
        if (r->known && memcmp(r->past.rcpt, rcpt, sizeof(r->past.rcpt)) == 0 &&
            memcmp(r->past.qdo, qdo, sizeof(r->past.qdo)) == 0)
            return r;
    }
    return NULL;
}

static void hear(struct in_force *f, uint64_t beacon_ns) {
    const uint64_t least = body_since(f->told_ns, f->heard_ns), bound = body_since(f->least_ns, f->least_at_ns);

    if (least > beacon_ns && least - beacon_ns > f->terms->limit_s * CITY_SECOND)
        return;
    if (bound > beacon_ns && bound - beacon_ns > f->terms->limit_s * CITY_SECOND)
        return;
    f->told_ns = beacon_ns > least ? beacon_ns : least;
    f->heard_ns = stub.uptime_ns;
}

static bool in_schedule(const struct in_force *f, const struct terms_rule *rule) {
    const uint64_t t = time_ns(f);
    const uint32_t minute = (uint32_t)(t / (60 * CITY_SECOND) % 1440);

    if (t == 0 || rule->first_minute == rule->end_minute)
        return true;
    if (rule->first_minute > rule->end_minute)
        return !(minute >= rule->end_minute && minute < rule->first_minute);
    return minute >= rule->first_minute && minute < rule->end_minute;
}

static uint32_t message_of(struct happened *past, const struct terms_rule *rule, bool holds, uint64_t number) {
    const bool recent = stub.uptime_ns - past->held_ns < rule->cooldown_s * CITY_SECOND;

    if (holds) {
        const bool lately = stub.uptime_ns - past->held_ns < EDGED_PAUSE_S * CITY_SECOND;
        const bool goes_on = past->active && ((past->held && lately) || recent);
        if (!goes_on)
            past->number = number;
        *past = (struct happened){true, true, past->number, stub.uptime_ns};
        return goes_on ? EDGED_MESSAGE_UPDATE : EDGED_MESSAGE_ALERT;
    }
    past->held = false;
    if (!past->active || recent)
        return EDGED_MESSAGE_NONE;
    past->active = false;
    return EDGED_MESSAGE_CANCEL;
}

static uint32_t rounded(uint32_t score, uint32_t bits) {
    const uint32_t unit = 65536u >> bits;
    return (score + unit / 2) / unit * unit;
}

/* Messages of a finished clip; the events go on. */
static void decide(const struct session *s, struct camera *c, const uint32_t *probabilities, struct edged_alert *out) {
    const struct in_force *f = &now.places[c->place];

    for (uint32_t i = 0; i < f->terms->rules; i++) {
        const struct terms_rule *rule = &f->terms->rule[i];
        const uint32_t score = probabilities[rule->label];
        out[i].message =
            message_of(&c->past[i], rule, in_schedule(f, rule) && score >= rule->threshold, s->number);
        out[i].score = rounded(score, f->terms->score_bits);
        out[i].event = c->past[i].number;
        city.messages[i] = out[i].message;
    }
}

/* x and y of the clip of so many persons. */
static void expect_skeletons(uint32_t persons, uint8_t *at) {
    const struct edged_skeleton s = {persons, client.eval->model.frames, client.eval->model.joints, 0};
    char name[16];
    size_t size;

    snprintf(name, sizeof(name), "clip/%u", persons);
    const uint8_t *clip = vector_get(name, &size);
    CHECK(size == 6u * s.persons * s.frames * s.joints, "a clip of %zu bytes", size);
    memcpy(at, &s, sizeof(s));
    at += sizeof(s);
    for (size_t i = 0; i < size; i += 6, at += 4)
        memcpy(at, clip + i, 4);
}

/* The body of a clip's or an exercise's record. */
static void expect_scores(const struct in_force *f, uint32_t recipient, struct edged_scores s,
                          const struct edged_alert *alerts, const uint8_t *logits, const uint8_t *probabilities,
                          uint8_t *plain) {
    const uint32_t persons = s.persons;
    const struct terms_recipient *to = &f->terms->recipient[recipient];
    uint8_t *at = plain + sizeof(s);
    bool holds = false, drawn = false;

    s.version = EDGED_BODY_VERSION;
    s.rules = f->terms->rules;
    s.sees = to->sees;
    s.time_ns = time_ns(f);
    for (uint32_t i = 0; i < s.rules; i++, at += sizeof(*alerts)) {
        struct edged_alert shown = alerts[i];
        if ((to->sees_rule[i] & EDGED_SEES_LABEL) == 0 || shown.message == EDGED_MESSAGE_NONE)
            continue;
        if ((to->sees_rule[i] & EDGED_SEES_SCORE) == 0)
            shown.score = 0;
        s.kind = EDGED_ALERT;
        holds = holds || shown.message != EDGED_MESSAGE_CANCEL;
        drawn = drawn || (shown.message != EDGED_MESSAGE_CANCEL && (to->sees_rule[i] & EDGED_SEES_SKELETON) != 0);
        memcpy(at, &shown, sizeof(shown));
    }
    if (to->sees == 0 && !holds) {
        s.persons = 0;
        memset(s.tracks, 0, sizeof(s.tracks));
    }
    if (to->sees != 0 && logits != NULL) {
        memcpy(at, logits, labels * 4);
        memcpy(at + labels * 4, probabilities, labels * 4);
    }
    if (drawn && logits != NULL && persons != 0)
        expect_skeletons(persons, at + (to->sees != 0 ? labels * 8 : 0));
    memcpy(plain, &s, sizeof(s));
}

static void expect_clip(const struct about *k, uint32_t session, bool failed, uint8_t *plain) {
    static struct edged_alert alerts[EDGED_RULES_MAX];
    const struct session *s = &client.eval->sessions[session];
    struct camera *c = &now.cameras[session];
    const struct in_force *f = &now.places[c->place];
    struct edged_scores scores = {.kind = failed ? EDGED_FAILED : EDGED_OBSERVATION,
                                  .status = f->terms->status,
                                  .labels = labels,
                                  .persons = s->persons,
                                  .number = s->number,
                                  .claimed_ns = CLIENT_CLAIMED_NS};
    char name[2][32];

    CHECK(k->place == c->place && s->persons <= 2, "the camera's agreement");
    for (uint32_t i = 0; i < s->persons; i++)
        scores.tracks[i] = i + 1;
    memcpy(scores.camera, c->name, sizeof(scores.camera));
    memcpy(scores.model, model, sizeof(scores.model));
    snprintf(name[0], sizeof(name[0]), "logits/%u", s->persons);
    snprintf(name[1], sizeof(name[1]), "probabilities/%u", s->persons);
    const void *logits = vector_get(name[0], NULL), *probabilities = vector_get(name[1], NULL);
    if (k->recipient == 0) { /* once for all */
        memset(alerts, 0, sizeof(alerts));
        if (failed)
            c->failed++;
        else
            decide(s, c, probabilities, alerts);
        c->finished += !failed;
        client.observations += !failed;
        client.failures += failed;
    }
    expect_scores(f, k->recipient, scores, alerts, failed ? NULL : logits, probabilities, plain);
}

static void expect_epoch(const struct about *k, uint8_t *plain) {
    const struct terms *t = now.places[k->place].terms;
    struct edged_epoch e = {.version = EDGED_BODY_VERSION, .kind = EDGED_EPOCH, .counter = now.counter};

    const struct remembered *r = body_remembered(t->recipient[k->recipient].rcpt, t->qdo);
    CHECK(r != NULL, "a recipient has a past");
    e.unclean = !now.before_known || now.before_closed == 0;
    memcpy(e.previous, now.before_name, sizeof(e.previous));
    if (r->past.seq != 0) {
        e.unclean = e.unclean != 0 || r->past.closed == 0;
        e.previous_seq = r->past.seq;
        memcpy(e.previous, r->past.epoch, sizeof(e.previous));
    }
    memcpy(e.agreement, t->digest, sizeof(e.agreement));
    memcpy(plain, &e, sizeof(e));
    city.epoch = e;
}

static void expect_heartbeat(const struct about *k, const struct eval_beacon *ask, uint8_t *plain) {
    struct edged_heartbeat h = {.version = EDGED_BODY_VERSION,
                                .kind = EDGED_HEARTBEAT,
                                .time_ns = ask->beacon.time_ns,
                                .uptime_ns = stub.uptime_ns,
                                .seq = k->seq,
                                .counter = now.counter};

    for (uint32_t i = 0; i < EVAL_SESSIONS_MAX; i++) {
        const struct camera *c = &now.cameras[i];
        uint8_t digest[32];
        struct edged_camera_count count = {.failed = c->failed};
        if (!c->known || c->place != k->place)
            continue;
        count.accepted = c->finished + c->failed + client.eval->sessions[i].unfinished;
        CHECK(crypto_sha256(c->name, sizeof(c->name), digest) == 0, "camera");
        memcpy(count.camera, digest, sizeof(count.camera));
        memcpy(plain + sizeof(h) + h.cameras++ * sizeof(count), &count, sizeof(count));
    }
    memcpy(h.nonce, ask->beacon.nonce, sizeof(h.nonce));
    memcpy(h.config, ask->config, sizeof(h.config));
    memcpy(plain, &h, sizeof(h));
    city.heartbeat = h;
    hear(&now.places[k->place], ask->beacon.time_ns);
    now.places[k->place].beacon_ns[k->recipient] = ask->beacon.time_ns;
    const uint64_t time_ns = ask->beacon.time_ns;
    const uint8_t *qdo = now.places[k->place].terms->qdo;
    struct remembered *r = body_remembered(ask->beacon.rcpt, qdo);
    CHECK(r != NULL, "a recipient has a past");
    if (body_since(r->past.least_ns, r->at_ns) < time_ns) {
        r->past.least_ns = time_ns;
        r->at_ns = stub.uptime_ns;
    }
    r->past.told_ns = r->past.told_ns > time_ns ? r->past.told_ns : time_ns;
}

static void expect_exercise(const struct about *k, const struct eval_exercise *ask, uint8_t *plain) {
    struct edged_alert alerts[EDGED_RULES_MAX] = {{0}};
    const struct edged_scores scores = {.kind = EDGED_OBSERVATION, .status = EDGED_EXERCISE};

    alerts[ask->rule] = (struct edged_alert){.message = EDGED_MESSAGE_ALERT, .score = 65536};
    CHECK(ask->agreement == k->place, "of that agreement");
    expect_scores(&now.places[k->place], k->recipient, scores, alerts, NULL, NULL, plain);
}

static void expect_claim(const struct eval_claim *ask, const uint8_t *bytes, uint8_t *plain) {
    const struct edged_claim c = {.version = EDGED_BODY_VERSION, .kind = ask->kind, .bytes = ask->bytes};

    memcpy(plain, &c, sizeof(c));
    memcpy(plain + sizeof(c), bytes, ask->bytes);
}

static void expect_succession(const struct about *k, const struct eval_succeed *ask, uint8_t *plain) {
    const struct terms *next = now.places[ask->successor].terms;
    struct edged_succession s = {.version = EDGED_BODY_VERSION, .kind = EDGED_SUCCESSION, .number = next->number};

    CHECK(ask->agreement == k->place, "of that agreement");
    for (uint32_t i = 0; i < next->recipients; i++)
        if (memcmp(next->recipient[i].rcpt, now.places[k->place].terms->recipient[k->recipient].rcpt, 16) == 0)
            memcpy(s.next_key, next->recipient[i].key_id, sizeof(s.next_key));
    memcpy(s.successor, next->digest, sizeof(s.successor));
    memcpy(plain, &s, sizeof(s));
}

void body_expect(const struct edged_hdr *ask, const uint8_t *request, enum edged_status status,
                   const struct about *k, uint8_t *plain) {
    union {
        struct eval_beacon beacon;
        struct eval_exercise exercise;
        struct eval_claim claim;
        struct eval_succeed succeed;
        struct eval_index index;
    } in;

    memset(plain, 0, CITY_PLAIN_MAX);
    memcpy(&in, request, ask->len < sizeof(in) ? ask->len : sizeof(in));
    switch (ask->cmd) {
    case EVAL_AGREEMENT:
        expect_epoch(k, plain);
        break;
    case EVAL_BEACON:
        expect_heartbeat(k, &in.beacon, plain);
        break;
    case EVAL_EXERCISE:
        expect_exercise(k, &in.exercise, plain);
        break;
    case EVAL_CLAIM:
        expect_claim(&in.claim, request + sizeof(in.claim), plain);
        break;
    case EVAL_SUCCEED:
        expect_succession(k, &in.succeed, plain);
        break;
    case EVAL_CLIP_ABORT:
        expect_clip(k, in.index.index, true, plain);
        break;
    default:
        CHECK(ask->cmd == EVAL_CLIP_OPEN || ask->cmd == EVAL_CLIP_BEGIN || ask->cmd == EVAL_STEP,
              "command %u seals no record", ask->cmd);
        expect_clip(k, client.eval->clip.session, status == EDGED_ERR_VERIFICATION, plain);
    }
}
