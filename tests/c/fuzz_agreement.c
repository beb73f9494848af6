/*
 * fuzz_agreement.c - what arrives signed or sealed, as if its signatures and its seal
 * held: an agreement is read whole and in one form only, or refused; a sealed state is
 * taken whole or refused.
 *
 * First byte, modulo 4: 0 a COSE_Sign as it stands, 1 its payload, 2 numbers of which a
 * payload is made (accepted just where each is in its range), 3 the plaintext of a state.
 */
#include <string.h>

#include "bytes.h"
#include "cbor.h"
#include "cose.h"
#include "fuzz_input.h"
#include "state.h"
#include "vector.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
bool __wrap_cose_holds(const uint8_t verifier[32], const char *structure, const char *context,
                       const uint8_t *payload, size_t size_bytes, const uint8_t signature[64]);

enum { AS_IT_STANDS = 0, PAYLOAD = 1, NUMBERS = 2, STATE = 3 };

static const uint8_t *signed_payload; /* what the last signatures were about */
static size_t signed_bytes;

bool __wrap_cose_holds(const uint8_t verifier[32], const char *structure, const char *context,
                       const uint8_t *payload, size_t size_bytes, const uint8_t signature[64]) {
    CHECK(verifier != NULL && signature != NULL && strcmp(structure, "Signature") == 0 &&
              strcmp(context, "edged agreement") == 0,
          "what is signed");
    signed_payload = payload;
    signed_bytes = size_bytes;
    return true;
}

static void write_label(struct cbor_writer *w, const uint8_t *text, size_t n) {
    char copy[65] = {0};

    CHECK(n <= 64 && memchr(text, 0, n) == NULL, "text");
    memcpy(copy, text, n);
    cbor_write_text(w, copy);
}

static void write_array(struct cbor_writer *w, uint64_t n) {
    cbor_write_head(w, 4, n);
}

/* The payload that says what was read; labels must have no NUL. */
static size_t encode(const struct agreement *a, uint8_t *out, size_t room) {
    struct cbor_writer w = {.data = out, .size = room};

    cbor_write_map(&w, 16);
    cbor_write_text(&w, "v");
    cbor_write_uint(&w, 1);
    cbor_write_text(&w, "mo");
    cbor_write_bytes(&w, a->mo, 32);
    cbor_write_text(&w, "qdo");
    cbor_write_bytes(&w, a->qdo, 32);
    cbor_write_text(&w, "body");
    cbor_write_uint(&w, a->body_bytes);
    cbor_write_text(&w, "from");
    cbor_write_uint(&w, a->from_s);
    cbor_write_text(&w, "model");
    write_array(&w, 3);
    write_label(&w, a->model_id, a->model_id_bytes);
    cbor_write_uint(&w, a->model_version);
    cbor_write_bytes(&w, a->model_key, 16);
    cbor_write_text(&w, "rules");
    write_array(&w, a->rule_count);
    for (uint32_t i = 0; i < a->rule_count; i++) {
        const struct rule *rule = &a->rules[i];
        write_array(&w, 5);
        write_label(&w, rule->label.text, rule->label.bytes);
        cbor_write_uint(&w, rule->threshold);
        cbor_write_uint(&w, rule->cooldown_ns / 1000000000);
        cbor_write_uint(&w, rule->first_minute);
        cbor_write_uint(&w, rule->end_minute);
    }
    cbor_write_text(&w, "until");
    cbor_write_uint(&w, a->until_s);
    cbor_write_text(&w, "number");
    cbor_write_uint(&w, a->number);
    cbor_write_text(&w, "status");
    cbor_write_uint(&w, a->status);
    cbor_write_text(&w, "beacons");
    write_array(&w, 2);
    cbor_write_uint(&w, a->beacon_period_s);
    cbor_write_uint(&w, a->beacon_limit_s);
    cbor_write_text(&w, "data_key");
    cbor_write_bytes(&w, a->data_key, 16);
    cbor_write_text(&w, "placements");
    cbor_write_uint(&w, a->placements);
    cbor_write_text(&w, "recipients");
    write_array(&w, a->recipient_count);
    for (uint32_t i = 0; i < a->recipient_count; i++) {
        const struct recipient *to = &a->recipients[i];
        write_array(&w, 4);
        cbor_write_bytes(&w, to->rcpt, 16);
        cbor_write_bytes(&w, to->key_id, 16);
        cbor_write_uint(&w, to->sees);
        write_array(&w, a->rule_count);
        for (uint32_t k = 0; k < a->rule_count; k++)
            cbor_write_uint(&w, to->sees_rule[k]);
    }
    cbor_write_text(&w, "score_bits");
    cbor_write_uint(&w, a->score_bits);
    cbor_write_text(&w, "clips_per_hour");
    cbor_write_uint(&w, a->clips_per_hour);
    return w.failed ? 0 : w.at;
}

/* COSE_Sign around a payload. */
static size_t envelop(const uint8_t *payload, size_t size, uint8_t *out, size_t room) {
    static const uint8_t head[] = {0xd8, 0x62, 0x84, 0x40, 0xa0}, protected[] = {0xa1, 0x01, 0x27}, signature[64] = {7};
    struct cbor_writer w = {.data = out, .size = room};

    memcpy(out, head, sizeof(head));
    w.at = sizeof(head);
    cbor_write_bytes(&w, payload, size);
    write_array(&w, 2);
    for (uint32_t i = 0; i < 2; i++) {
        write_array(&w, 3);
        cbor_write_bytes(&w, protected, sizeof(protected));
        cbor_write_map(&w, 0);
        cbor_write_bytes(&w, signature, sizeof(signature));
    }
    return w.failed ? 0 : w.at;
}

static bool has_nul(const struct agreement *a) {
    bool has = memchr(a->model_id, 0, a->model_id_bytes) != NULL;
    for (uint32_t i = 0; i < a->rule_count; i++)
        has = has || memchr(a->rules[i].label.text, 0, a->rules[i].label.bytes) != NULL;
    return has;
}

static uint64_t bound_of(const struct agreement *a, uint64_t uptime_ns) {
    const uint64_t passed = uptime_ns - a->least.at_ns;
    return a->least.time_ns == 0 ? 0 : a->least.time_ns + passed - passed / 1024;
}

/* What follows from it at any time: nothing overflows, and every refusal has its reason. */
static void use(struct agreement *a, struct fuzz_input *in) {
    static struct model m;
    uint64_t uptime_ns = 0;
    bool covers = true;

    a->rate_ns = agreement_fresh_ns(uptime_ns);
    memset(&m, 0, sizeof(m));
    m.labels = fuzz_byte(in);
    m.version = a->model_version;
    m.id_bytes = a->model_id_bytes;
    memcpy(m.id, a->model_id, sizeof(m.id));
    memcpy(m.key_id, a->model_key, sizeof(m.key_id));
    memcpy(m.owner, a->mo, sizeof(m.owner));
    for (uint32_t i = 0; i < a->rule_count; i++)
        m.label[i * 7] = a->rules[i].label;
    for (uint32_t i = 0; i < a->rule_count; i++)
        covers = covers && (i * 7 < m.labels);
    m.persons = 1 + fuzz_byte(in) % EVAL_PERSONS_MAX;
    m.frames = 1 + fuzz_short(in) % EVAL_FRAMES_MAX;
    m.joints = 1 + fuzz_byte(in) % EVAL_JOINTS_MAX;
    for (uint32_t i = 0; i < a->recipient_count; i++) {
        bool skeletons = false;
        for (uint32_t k = 0; k < a->rule_count; k++)
            skeletons = skeletons || a->recipients[i].sees_rule[k] >= EDGED_SEES_SKELETON;
        covers = covers && 152 + 16 * a->rule_count + (a->recipients[i].sees == 0 ? 0 : 8 * m.labels) +
                                   (skeletons ? 16 + 4 * m.persons * m.frames * m.joints : 0) <= a->body_bytes;
    }
    for (uint32_t clips = 0, i = 0; i < 24 && in->left != 0; i++) {
        uptime_ns += (uint64_t)fuzz_short(in) * fuzz_short(in) * 1000000;
        const uint8_t event = fuzz_byte(in);
        if (event % 16 == 1) { /* an owner's floors */
            const struct key_material f = {.least_agreement = fuzz_byte(in) == 255 ? a->number + 1 : a->number,
                                           .least_model = fuzz_byte(in),
                                           .time_s = (uint64_t)fuzz_short(in) << (event / 16 * 2)};
            const uint64_t before_ns = bound_of(a, uptime_ns);
            const bool allowed = f.least_agreement <= a->number;
            CHECK(agreement_raise(a, &f, true, uptime_ns) == (allowed ? EDGED_OK : EDGED_ERR_AGREEMENT),
                  "the least number");
            covers = covers && m.version >= a->model_version;
            const uint64_t after_ns = bound_of(a, uptime_ns);
            CHECK(after_ns >= before_ns && (!allowed || after_ns / 1000000000 >= f.time_s || after_ns >= INT64_MAX),
                  "its time");
        }
        if (event % 4 == 0)
            agreement_hear(a, (uint64_t)fuzz_short(in) << 47, uptime_ns);
        for (uint32_t rule = 0; rule < a->rule_count; rule++)
            (void)agreement_rule_holds(a, &a->rules[rule], uptime_ns);
        const enum edged_status status = agreement_admits(a, &m, i % 3, false, uptime_ns);
        CHECK(status == EDGED_OK || status == EDGED_ERR_AGREEMENT || status == EDGED_ERR_PLACEMENT ||
                  status == EDGED_ERR_LOCKED || status == EDGED_ERR_RATE,
              "status %u", status);
        const uint64_t told_s = agreement_time_ns(a, uptime_ns) / 1000000000;
        const uint64_t least_s = bound_of(a, uptime_ns) / 1000000000;
        const bool valid = (a->time_ns == 0 || told_s >= a->from_s) && told_s < a->until_s && least_s < a->until_s;
        if (!covers)
            CHECK(status == EDGED_ERR_AGREEMENT, "status %u", status);
        else if ((a->placements & 1u << i % 3) == 0)
            CHECK(status == EDGED_ERR_PLACEMENT, "status %u", status);
        else
            CHECK((status == EDGED_ERR_AGREEMENT) == !valid, "status %u", status);
        CHECK(status != EDGED_ERR_RATE || agreement_admits(a, &m, i % 3, true, uptime_ns) == EDGED_OK,
              "what comes again is not counted twice");
        if (status == EDGED_OK)
            agreement_count(a, uptime_ns);
        clips += status == EDGED_OK;
        CHECK(clips * (3600000000000u / a->clips_per_hour) <= uptime_ns + 1000000000, "the rate holds");
    }
}

static bool read(const uint8_t *bytes, size_t size, struct agreement *a) {
    static uint8_t again[EDGED_MESSAGE_BYTES];
    uint8_t *copy = malloc(size + (size == 0));

    CHECK(copy != NULL, "copy");
    if (size != 0)
        memcpy(copy, bytes, size);
    const enum edged_status status = agreement_read(a, copy, size);
    CHECK(status == EDGED_OK || status == EDGED_ERR_AGREEMENT, "status %u", status);
    if (status == EDGED_OK && !has_nul(a)) {
        const size_t n = encode(a, again, sizeof(again));
        CHECK(n == signed_bytes && memcmp(again, signed_payload, n) == 0, "there is one form only, and it is all read");
    }
    free(copy);
    return status == EDGED_OK;
}

/* A number that is mostly in its range, and often at its ends. */
static uint32_t number(struct fuzz_input *in, uint32_t least, uint32_t most, bool *valid) {
    const uint32_t choice = fuzz_byte(in);
    uint32_t v = least + (fuzz_short(in) * 65537u) % (most - least + 1 == 0 ? UINT32_MAX : most - least + 1);

    if (choice % 16 == 1)
        v = least;
    if (choice % 16 == 2)
        v = most;
    if (choice == 255)
        v = least - 1;
    if (choice == 254)
        v = most + 1;
    *valid = *valid && v >= least && v <= most;
    return v;
}

static void make(struct fuzz_input *in) {
    static uint8_t payload[EDGED_MESSAGE_BYTES], signed_form[EDGED_MESSAGE_BYTES];
    static struct agreement a, out;
    bool valid = true, skeletons = false, any = true;

    memset(&a, 0, sizeof(a));
    a.mo[0] = 1;
    a.qdo[31] = 2;
    a.body_bytes = number(in, 1, 7, &any) * 512 + (fuzz_byte(in) == 255);
    a.from_s = number(in, 0, UINT32_MAX, &valid);
    a.until_s = number(in, 0, UINT32_MAX, &valid);
    a.model_id_bytes = 1 + fuzz_byte(in) % 64u;
    memset(a.model_id, 'm', a.model_id_bytes);
    a.model_version = number(in, 0, UINT32_MAX, &valid);
    a.rule_count = fuzz_byte(in) % (EDGED_RULES_MAX + 1);
    for (uint32_t i = 0; i < a.rule_count; i++) {
        struct rule *rule = &a.rules[i];
        rule->label.bytes = (uint8_t)(1 + fuzz_byte(in) % EDGED_LABEL_MAX);
        memset(rule->label.text, 'a' + (int)i, rule->label.bytes);
        if (i != 0 && fuzz_byte(in) == 255) { /* a label twice */
            rule->label = a.rules[i - 1].label;
            valid = false;
        }
        rule->threshold = number(in, 1, 65536, &valid);
        rule->cooldown_ns = (uint64_t)number(in, 0, 86400, &valid) * 1000000000;
        rule->first_minute = number(in, 0, 1439, &valid);
        rule->end_minute = number(in, 0, 1439, &valid);
    }
    a.number = number(in, 0, UINT32_MAX, &valid);
    a.status = number(in, 0, EDGED_TEST, &valid);
    a.beacon_period_s = number(in, 1, 86400, &valid);
    a.beacon_limit_s = number(in, a.beacon_period_s, INT32_MAX, &valid);
    a.placements = number(in, 1, 7, &valid);
    a.recipient_count = 1 + fuzz_byte(in) % EDGED_RECIPIENTS_MAX;
    for (uint32_t i = 0; i < a.recipient_count; i++) {
        struct recipient *to = &a.recipients[i];
        to->rcpt[0] = (uint8_t)i;
        if (i != 0 && fuzz_byte(in) == 255) { /* a recipient twice */
            to->rcpt[0] = (uint8_t)(i - 1);
            valid = false;
        }
        to->sees = number(in, 0, EDGED_SEES_SCORES, &valid);
        for (uint32_t k = 0; k < a.rule_count; k++) {
            to->sees_rule[k] = number(in, 0, 7, &valid);
            if (fuzz_byte(in) < 128 && to->sees_rule[k] <= 7)
                to->sees_rule[k] &= EDGED_SEES_LABEL | EDGED_SEES_SCORE;
            valid = valid && (to->sees_rule[k] == 0 || (to->sees_rule[k] & EDGED_SEES_LABEL) != 0);
            skeletons = skeletons || (to->sees_rule[k] & EDGED_SEES_SKELETON) != 0;
        }
    }
    a.score_bits = number(in, 0, 16, &valid);
    a.clips_per_hour = number(in, 1, 1000000, &valid);
    if (skeletons != (fuzz_byte(in) == 255))
        a.body_bytes = EDGED_BODY_SKELETONS;
    valid = valid &&
            (skeletons ? a.body_bytes == EDGED_BODY_SKELETONS
                       : a.body_bytes >= 512 && a.body_bytes <= EDGED_BODY_MAX && a.body_bytes % 512 == 0) &&
            a.from_s < a.until_s && a.status != EDGED_EXERCISE;
    const size_t n = encode(&a, payload, sizeof(payload)), all = envelop(payload, n, signed_form, sizeof(signed_form));
    CHECK(n != 0 && all != 0, "the largest agreement fits a message");
    CHECK(read(signed_form, all, &out) == valid, "valid: %d", valid);
    if (valid)
        use(&out, in);
}

static void state(struct fuzz_input *in) {
    static struct eval e;
    struct edged_state sealed = {.count = fuzz_byte(in)};
    uint8_t key[32], salt[32] = {0}, nonce[12] = {0}, aad[24] = {0};
    struct epoch_summary plain = {0};

    memset(&e, 0, sizeof(e));
    sealed.epoch[0] = fuzz_byte(in) % 4; /* 0: that of the present one */
    (void)fuzz_bytes(in, (uint8_t *)&plain, sizeof(plain), sizeof(plain));
    memcpy(salt, sealed.epoch, 16);
    memcpy(aad, sealed.epoch, 16);
    store_le64(aad + 16, sealed.count);
    store_le64(nonce, sealed.count);
    CHECK(crypto_hkdf_sha256(e.state_key, 32, salt, 32, (const uint8_t *)"edged state v1", 14, key, 32) == 0 &&
              crypto_gcm_seal(key, 32, nonce, aad, sizeof(aad), (const uint8_t *)&plain, sizeof(plain),
                              sealed.sealed) == 0,
          "seal");
    const enum edged_status status = epoch_restore(&e, &sealed);
    const enum edged_status right = sealed.epoch[0] == 0 ? EDGED_ERR_ORDER : EDGED_OK;
    CHECK(status == right, "status %u", status);
    CHECK(e.previous_known == (status == EDGED_OK), "whole, or not at all");
    if (status == EDGED_OK)
        CHECK(e.previous_closed == (plain.closed != 0) && e.counter == plain.counter + 1, "what was sealed");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t signed_form[EDGED_MESSAGE_BYTES];
    struct fuzz_input in = {.data = data, .left = size};
    struct agreement a;

    switch (fuzz_byte(&in) % 4) {
    case AS_IT_STANDS:
        if (read(in.data, in.left, &a))
            use(&a, &in);
        break;
    case PAYLOAD: {
        const size_t n = envelop(in.data, in.left, signed_form, sizeof(signed_form));
        if (n != 0 && read(signed_form, n, &a))
            use(&a, &in);
        break;
    }
    case NUMBERS:
        make(&in);
        break;
    default:
        state(&in);
    }
    return 0;
}
