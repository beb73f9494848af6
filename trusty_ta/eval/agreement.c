#include "agreement.h"

#include <string.h>

#include "cbor.h"
#include "cose.h"
#include "crypto.h"

#define NS_PER_S 1000000000u
#define HOUR_NS ((uint64_t)3600 * NS_PER_S)
#define DAY_MINUTES 1440u
#define BODY_QUANTUM 512u

static uint32_t read_range(struct cbor_reader *r, uint32_t least, uint32_t most) {
    const uint32_t v = (uint32_t)cbor_read_uint(r, most);

    if (v < least)
        r->failed = true;
    return v;
}

static void read_rule(struct cbor_reader *r, struct agreement *a, uint32_t index) {
    struct rule *rule = &a->rules[index];
    size_t n;
    const uint8_t *s;

    (void)cbor_read_array(r, 5, 5);
    s = cbor_read_text(r, 1, EDGED_LABEL_MAX, &n);
    memcpy(rule->label.text, s, n);
    rule->label.bytes = (uint8_t)n;
    rule->threshold = read_range(r, 1, 65536);
    rule->cooldown_ns = (uint64_t)read_range(r, 0, 86400) * NS_PER_S;
    rule->first_minute = read_range(r, 0, DAY_MINUTES - 1);
    rule->end_minute = read_range(r, 0, DAY_MINUTES - 1);
    for (uint32_t i = 0; i < index; i++)
        if (memcmp(&a->rules[i].label, &rule->label, sizeof(rule->label)) == 0)
            r->failed = true;
}

static void read_recipient(struct cbor_reader *r, struct agreement *a, uint32_t index) {
    struct recipient *to = &a->recipients[index];

    (void)cbor_read_array(r, 4, 4);
    cbor_read_fixed(r, to->rcpt, sizeof(to->rcpt));
    cbor_read_fixed(r, to->key_id, sizeof(to->key_id));
    to->sees = read_range(r, 0, EDGED_SEES_SCORES);
    (void)cbor_read_array(r, a->rule_count, a->rule_count);
    for (uint32_t i = 0; i < a->rule_count; i++) {
        to->sees_rule[i] = read_range(r, 0, EDGED_SEES_LABEL | EDGED_SEES_SCORE | EDGED_SEES_SKELETON);
        if (to->sees_rule[i] != 0 && (to->sees_rule[i] & EDGED_SEES_LABEL) == 0)
            r->failed = true; /* a score or skeletons of nothing */
    }
    for (uint32_t i = 0; i < index; i++)
        if (memcmp(a->recipients[i].rcpt, to->rcpt, sizeof(to->rcpt)) == 0)
            r->failed = true;
}

bool agreement_shows_skeletons(const struct agreement *a, const struct recipient *to) {
    uint32_t any = 0;

    for (uint32_t i = 0; i < a->rule_count; i++)
        any |= to->sees_rule[i];
    return (any & EDGED_SEES_SKELETON) != 0;
}

/* One size where skeletons are agreed, and it for nothing else. */
static bool body_is_due(const struct agreement *a) {
    bool skeletons = false;

    for (uint32_t i = 0; i < a->recipient_count; i++)
        skeletons = skeletons || agreement_shows_skeletons(a, &a->recipients[i]);
    return skeletons ? a->body_bytes == EDGED_BODY_SKELETONS
                     : a->body_bytes <= EDGED_BODY_MAX && a->body_bytes % BODY_QUANTUM == 0;
}

static void read_payload(struct cbor_reader *r, struct agreement *a) {
    size_t n;
    const uint8_t *s;

    cbor_expect_map(r, 16);
    cbor_expect_text(r, "v");
    (void)read_range(r, 1, 1);
    cbor_expect_text(r, "mo");
    cbor_read_fixed(r, a->mo, sizeof(a->mo));
    cbor_expect_text(r, "qdo");
    cbor_read_fixed(r, a->qdo, sizeof(a->qdo));
    cbor_expect_text(r, "body");
    a->body_bytes = read_range(r, BODY_QUANTUM, EDGED_BODY_SKELETONS);
    cbor_expect_text(r, "from");
    a->from_s = read_range(r, 0, UINT32_MAX);
    cbor_expect_text(r, "model");
    (void)cbor_read_array(r, 3, 3);
    s = cbor_read_text(r, 1, sizeof(a->model_id), &n);
    memcpy(a->model_id, s, n);
    a->model_id_bytes = (uint32_t)n;
    a->model_version = read_range(r, 0, UINT32_MAX);
    cbor_read_fixed(r, a->model_key, sizeof(a->model_key));
    cbor_expect_text(r, "rules");
    a->rule_count = (uint32_t)cbor_read_array(r, 0, EDGED_RULES_MAX);
    for (uint32_t i = 0; i < a->rule_count && !r->failed; i++)
        read_rule(r, a, i);
    cbor_expect_text(r, "until");
    a->until_s = read_range(r, 0, UINT32_MAX);
    cbor_expect_text(r, "number");
    a->number = read_range(r, 0, UINT32_MAX);
    cbor_expect_text(r, "status");
    a->status = read_range(r, 0, EDGED_TEST);
    cbor_expect_text(r, "beacons");
    (void)cbor_read_array(r, 2, 2);
    a->beacon_period_s = read_range(r, 1, 86400);
    a->beacon_limit_s = read_range(r, a->beacon_period_s, INT32_MAX);
    cbor_expect_text(r, "data_key");
    cbor_read_fixed(r, a->data_key, sizeof(a->data_key));
    cbor_expect_text(r, "placements");
    a->placements = read_range(r, 1, 7);
    cbor_expect_text(r, "recipients");
    a->recipient_count = (uint32_t)cbor_read_array(r, 1, EDGED_RECIPIENTS_MAX);
    for (uint32_t i = 0; i < a->recipient_count && !r->failed; i++)
        read_recipient(r, a, i);
    cbor_expect_text(r, "score_bits");
    a->score_bits = read_range(r, 0, 16);
    cbor_expect_text(r, "clips_per_hour");
    a->clips_per_hour = read_range(r, 1, 1000000);
    if (!body_is_due(a) || a->from_s >= a->until_s || a->status == EDGED_EXERCISE)
        r->failed = true;
}

/* Nothing of the payload is believed before both signatures hold. */
enum edged_status agreement_read(struct agreement *a, const uint8_t *bytes, size_t size_bytes) {
    /* COSE_Sign, tagged; no protected and no unprotected header of the body. */
    static const uint8_t sign[] = {0xd8, 0x62, 0x84, 0x40, 0xa0};
    static const char structure[] = "Signature", context[] = "edged agreement";
    struct cbor_reader r = {.data = bytes, .size = size_bytes};
    const uint8_t *payload, *signatures[2];
    size_t n, signature_bytes;

    memset(a, 0, sizeof(*a));
    cbor_expect(&r, sign, sizeof(sign));
    payload = cbor_read_bytes(&r, 1, EDGED_MESSAGE_BYTES, &n);
    (void)cbor_read_array(&r, 2, 2);
    for (uint32_t i = 0; i < 2; i++) {
        (void)cbor_read_array(&r, 3, 3);
        cose_expect_headers(&r);
        signatures[i] = cbor_read_bytes(&r, 64, 64, &signature_bytes);
    }
    if (!cbor_done(&r))
        return EDGED_ERR_AGREEMENT;
    struct cbor_reader body = {.data = payload, .size = n};
    read_payload(&body, a);
    if (!cbor_done(&body) || !cose_holds(a->mo, structure, context, payload, n, signatures[0]) ||
        !cose_holds(a->qdo, structure, context, payload, n, signatures[1]))
        return EDGED_ERR_AGREEMENT;
    return crypto_sha256(payload, n, a->digest) == 0 ? EDGED_OK : EDGED_ERR_UNAVAILABLE;
}

uint64_t agreement_time_ns(const struct agreement *a, uint64_t uptime_ns) {
    return a->time_ns == 0 ? 0 : a->time_ns + (uptime_ns - a->heard_ns);
}

static uint64_t beacon_limit_ns(const struct agreement *a) {
    return (uint64_t)a->beacon_limit_s * NS_PER_S;
}

uint64_t bound_now_ns(const struct bound *b, uint64_t uptime_ns) {
    const uint64_t passed_ns = uptime_ns - b->at_ns;

    return b->time_ns == 0 ? 0 : b->time_ns + passed_ns - passed_ns / 1024;
}

void bound_raise(struct bound *b, uint64_t time_ns, uint64_t uptime_ns) {
    if (bound_now_ns(b, uptime_ns) < time_ns)
        *b = (struct bound){time_ns, uptime_ns};
}

enum edged_status agreement_raise(struct agreement *a, const struct key_material *m, bool model, uint64_t uptime_ns) {
    /* As late as beacons can be, where it is later. */
    const uint64_t time_ns = m->time_s > INT64_MAX / NS_PER_S ? INT64_MAX : m->time_s * NS_PER_S;

    if (a->number < m->least_agreement)
        return EDGED_ERR_AGREEMENT;
    if (model && a->model_version < m->least_model)
        a->model_version = m->least_model;
    bound_raise(&a->least, time_ns, uptime_ns);
    return EDGED_OK;
}

/*
 * Beacons can be hoarded and handed in later, one by one, the first one too: so the time never goes back, but for
 * what the enclave's clock may have gained, and one that lags too far was held back.
 */
void agreement_hear(struct agreement *a, uint64_t time_ns, uint64_t uptime_ns) {
    const struct bound told = {a->time_ns, a->heard_ns};
    const uint64_t least = bound_now_ns(&told, uptime_ns);

    if (time_ns + beacon_limit_ns(a) < least || time_ns + beacon_limit_ns(a) < bound_now_ns(&a->least, uptime_ns))
        return;
    a->time_ns = time_ns < least ? least : time_ns;
    a->heard_ns = uptime_ns;
}

bool agreement_rule_holds(const struct agreement *a, const struct rule *rule, uint64_t uptime_ns) {
    const uint64_t now = agreement_time_ns(a, uptime_ns);
    const uint32_t minute = (uint32_t)(now / NS_PER_S / 60 % DAY_MINUTES);

    if (now == 0 || rule->first_minute == rule->end_minute)
        return true;
    if (rule->first_minute < rule->end_minute)
        return minute >= rule->first_minute && minute < rule->end_minute;
    return minute >= rule->first_minute || minute < rule->end_minute;
}

uint32_t agreement_label(const struct rule *rule, const struct model *m) {
    for (uint32_t i = 0; i < m->labels; i++)
        if (memcmp(&m->label[i], &rule->label, sizeof(rule->label)) == 0)
            return i;
    return EVAL_LABELS_MAX;
}

bool agreement_is_valid(const struct agreement *a, uint64_t uptime_ns) {
    const uint64_t told_ns = agreement_time_ns(a, uptime_ns);

    return (told_ns == 0 || told_ns / NS_PER_S >= a->from_s) && told_ns / NS_PER_S < a->until_s &&
           bound_now_ns(&a->least, uptime_ns) / NS_PER_S < a->until_s;
}

/* The scores that a recipient sees, and the skeletons of the largest clip, must fit the body that was agreed. */
static bool all_fits(const struct agreement *a, const struct model *m) {
    for (uint32_t i = 0; i < a->recipient_count; i++) {
        size_t n = sizeof(struct edged_scores) + a->rule_count * sizeof(struct edged_alert);
        if ((a->recipients[i].sees & EDGED_SEES_SCORES) != 0)
            n += (size_t)m->labels * 8;
        if (agreement_shows_skeletons(a, &a->recipients[i]))
            n += sizeof(struct edged_skeleton) + (size_t)m->persons * m->frames * m->joints * 4;
        if (n > a->body_bytes)
            return false;
    }
    return true;
}

enum edged_status agreement_admits(const struct agreement *a, const struct model *m, uint32_t placement,
                                   bool again, uint64_t uptime_ns) {
    const uint64_t interval = HOUR_NS / a->clips_per_hour;

    if (memcmp(m->owner, a->mo, sizeof(m->owner)) != 0 || m->id_bytes != a->model_id_bytes ||
        memcmp(m->id, a->model_id, m->id_bytes) != 0 ||
        m->version < a->model_version || memcmp(m->key_id, a->model_key, sizeof(m->key_id)) != 0 ||
        !all_fits(a, m))
        return EDGED_ERR_AGREEMENT;
    for (uint32_t i = 0; i < a->rule_count; i++)
        if (agreement_label(&a->rules[i], m) == EVAL_LABELS_MAX)
            return EDGED_ERR_AGREEMENT;
    if ((a->placements >> placement & 1) == 0)
        return EDGED_ERR_PLACEMENT;
    if (!agreement_is_valid(a, uptime_ns))
        return EDGED_ERR_AGREEMENT;
    if (uptime_ns - a->heard_ns > beacon_limit_ns(a))
        return EDGED_ERR_LOCKED;
    /* One in each interval; what was not used is saved up, an hour's at most. */
    if (!again && a->rate_ns > uptime_ns && a->rate_ns - uptime_ns > HOUR_NS - interval)
        return EDGED_ERR_RATE;
    return EDGED_OK;
}

/*
 * As if an hour's clips had just been taken, but for those of a second: else every start, which is root's to make,
 * would bring another hour's.
 */
uint64_t agreement_fresh_ns(uint64_t uptime_ns) {
    return agreement_spent_ns(uptime_ns) - NS_PER_S;
}

uint64_t agreement_spent_ns(uint64_t uptime_ns) {
    return uptime_ns + HOUR_NS;
}

uint64_t agreement_silent_ns(const struct agreement *a, uint64_t uptime_ns) {
    return uptime_ns - beacon_limit_ns(a) - 1; /* below 0 near the start: differences mod 2^64 alone count */
}

void agreement_count(struct agreement *a, uint64_t uptime_ns) {
    if (a->rate_ns < uptime_ns)
        a->rate_ns = uptime_ns;
    a->rate_ns += HOUR_NS / a->clips_per_hour;
}
