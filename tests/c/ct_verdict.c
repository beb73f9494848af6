/*
 * ct_verdict.c - the alert decision of eval/verdict.c on scores that nobody may learn:
 * whether a rule holds, what message that makes, who is shown what. The records'
 * plaintexts are secret; their seal (AES in the crypto library) is not judged here.
 */
#include "ct_verdict.h"

#include <string.h>
#include <valgrind/memcheck.h>

#include "bytes.h"
#include "city.h"
#include "port.h"
#include "vector.h"

enum { NONE, ALERT, UPDATE, CANCEL };

/* Clips of so many persons, so many seconds after the one before, and what becomes of the first two rules. */
static const struct round {
    uint32_t persons, after_s, first, second;
} ROUNDS[] = {
    {0, 1, NONE, NONE},   {1, 1, ALERT, NONE},   {1, 1, UPDATE, NONE}, {2, 1, NONE, ALERT}, {2, 1, NONE, UPDATE},
    {1, 1, UPDATE, CANCEL}, {0, 60, CANCEL, NONE}, {0, 1, NONE, NONE},   {1, 1, ALERT, NONE},
};

static struct eval e;
static uint64_t uptime_ns = CITY_SECOND;
static const struct round *now_round;
static uint32_t records;

uint64_t port_uptime_ns(void) {
    return uptime_ns;
}

bool record_room(const struct eval *of, const struct agreement *a, uint32_t count) {
    (void)of;
    (void)a;
    return count <= EVAL_KEPT_MAX;
}

/* Of agreement_read, which is not called here. */
int crypto_ed25519_verify(const uint8_t public_key[32], const uint8_t *message, size_t size_bytes,
                          const uint8_t signature[64]) {
    CHECK(public_key == NULL || message == NULL || size_bytes == 0 || signature == NULL, "no agreement is read");
    return -1;
}

int crypto_sha256(const void *data, size_t size_bytes, uint8_t out[32]) {
    CHECK(data == NULL || size_bytes == 0 || out == NULL, "no agreement is read");
    return -1;
}

static bool is_secret(const void *p, size_t size_bytes) {
    uint8_t unknown[64] = {0}, any = 0;

    CHECK(size_bytes <= sizeof(unknown), "size");
    if (RUNNING_ON_VALGRIND == 0)
        return true;
    (void)VALGRIND_GET_VBITS(p, unknown, size_bytes);
    for (size_t i = 0; i < size_bytes; i++)
        any |= unknown[i];
    return any != 0;
}

static uint8_t body[EDGED_BODY_SKELETONS];

uint8_t *record_body(struct eval *of, uint32_t agreement, uint64_t since) {
    CHECK(of == &e && agreement == 0 && since == 1, "the clip's agreement");
    memset(body, 0, sizeof(body));
    return body;
}

/* They are there where a rule of theirs holds, and nothing but the plaintext tells. */
static void judge_skeletons(const struct recipient *to, const uint8_t *at) {
    const struct skeletons *s = &e.skeletons;
    const uint32_t said[] = {now_round->first, now_round->second};
    bool drawn = false;

    for (uint32_t i = 0; i < 2; i++)
        drawn = drawn || ((to->sees_rule[i] & EDGED_SEES_SKELETON) != 0 && (said[i] == ALERT || said[i] == UPDATE));
    if (s->xy == NULL) {
        CHECK(is_zero(at, 64), "nobody is there");
        return;
    }
    struct edged_skeleton head;
    uint8_t words[64];
    CHECK(is_secret(at, sizeof(head)) && is_secret(at + sizeof(head), sizeof(words)), "whether they are there");
    memcpy(&head, at, sizeof(head));
    memcpy(words, at + sizeof(head), sizeof(words));
    (void)VALGRIND_MAKE_MEM_DEFINED(&head, sizeof(head));
    (void)VALGRIND_MAKE_MEM_DEFINED(words, sizeof(words));
    CHECK(drawn ? head.persons == s->persons && head.frames == s->frames && head.joints == s->joints
                : is_zero((const uint8_t *)&head, sizeof(head)),
          "round %zu: skeletons of %u", (size_t)(now_round - ROUNDS), head.persons);
    CHECK(drawn ? memcmp(words, s->xy, sizeof(words)) == 0 : is_zero(words, sizeof(words)), "coordinates");
}

/* In place of eval/record.c: what was to be sealed is right, and follows from secrets where it tells of an alert. */
int record_seal(struct eval *of, uint32_t agreement, uint32_t recipient, enum edged_record_kind kind, uint64_t since) {
    const struct recipient *to = &of->agreements[agreement].recipients[recipient];
    struct edged_alert alert[2];
    struct edged_scores scores;

    CHECK(kind == EDGED_OBSERVATION && since == 1, "the header tells a finished clip, no more");
    for (uint32_t i = 0; i < 2; i++) {
        const uint8_t *at = body + sizeof(scores) + i * sizeof(alert[i]);
        const bool seen = to->sees_rule[i] != 0, scored = (to->sees_rule[i] & EDGED_SEES_SCORE) != 0;
        CHECK(!seen || (is_secret(at, 4) && is_secret(at + 8, 8) && (!scored || is_secret(at + 4, 4))),
              "recipient %u, rule %u: is a secret", recipient, i);
        memcpy(&alert[i], at, sizeof(alert[i]));
        (void)VALGRIND_MAKE_MEM_DEFINED(&alert[i], sizeof(alert[i]));
        CHECK(alert[i].message == (seen ? i == 0 ? now_round->first : now_round->second : NONE),
              "round %zu, recipient %u, rule %u: message %u", (size_t)(now_round - ROUNDS), recipient, i,
              alert[i].message);
        CHECK(scored && alert[i].message != NONE ? alert[i].score % 256 == 0 : alert[i].score == 0, "score %u",
              alert[i].score);
    }
    CHECK(is_secret(body + offsetof(struct edged_scores, kind), 4), "its kind is a secret");
    if (recipient != 0 && now_round->persons != 0)
        CHECK(is_secret(body + offsetof(struct edged_scores, persons), 4), "persons are shown with an alert");
    memcpy(&scores, body, sizeof(scores));
    (void)VALGRIND_MAKE_MEM_DEFINED(&scores, sizeof(scores));
    CHECK(scores.number == of->sessions[0].number && scores.version == EDGED_BODY_VERSION, "the clip");
    judge_skeletons(to, body + sizeof(scores) + of->agreements[agreement].rule_count * sizeof(alert[0]) +
                            (to->sees != 0 ? scores.labels * 8 : 0));
    records++;
    return 0;
}

static void agree(void) {
    const struct terms *t = vector_get("terms/7", NULL);
    struct agreement *a = &e.agreements[0];

    a->open = true;
    a->rule_count = t->rules;
    a->recipient_count = t->recipients;
    a->score_bits = t->score_bits;
    a->body_bytes = t->body;
    for (uint32_t i = 0; i < t->rules; i++)
        a->rules[i] = (struct rule){.label = e.model.label[t->rule[i].label],
                                    .threshold = t->rule[i].threshold,
                                    .cooldown_ns = t->rule[i].cooldown_s * CITY_SECOND};
    for (uint32_t i = 0; i < t->recipients; i++) {
        a->recipients[i].sees = t->recipient[i].sees;
        memcpy(a->recipients[i].sees_rule, t->recipient[i].sees_rule, sizeof(t->recipient[i].sees_rule));
    }
}

/* Of a clip of so many persons; itself public here, so that what is secret of it in a record is the decision. */
static void draw(uint32_t persons) {
    static int16_t xy[2 * EVAL_FRAMES_MAX * EVAL_JOINTS_MAX];

    for (size_t i = 0; i < sizeof(xy) / sizeof(xy[0]); i++)
        xy[i] = (int16_t)(i * 7 + persons);
    e.skeletons = (struct skeletons){persons, e.model.frames, e.model.joints, persons == 0 ? NULL : xy};
}

void ct_verdict(void) {
    int32_t logits[EVAL_LABELS_MAX];
    uint32_t probabilities[EVAL_LABELS_MAX];
    size_t size;
    char name[32];
    const void *manifest = vector_get("package/manifest", &size);

    CHECK(model_read_manifest(&e.model, manifest, size) == EDGED_OK, "manifest");
    agree();
    e.sessions[0] = (struct session){.open = true, .unfinished = true, .labels = e.model.labels};
    for (now_round = ROUNDS; now_round < ROUNDS + sizeof(ROUNDS) / sizeof(ROUNDS[0]); now_round++) {
        snprintf(name, sizeof(name), "logits/%u", now_round->persons);
        memcpy(logits, vector_get(name, NULL), e.model.labels * 4);
        snprintf(name, sizeof(name), "probabilities/%u", now_round->persons);
        memcpy(probabilities, vector_get(name, NULL), e.model.labels * 4);
        (void)VALGRIND_MAKE_MEM_UNDEFINED(logits, sizeof(logits));
        (void)VALGRIND_MAKE_MEM_UNDEFINED(probabilities, sizeof(probabilities));
        uptime_ns += now_round->after_s * CITY_SECOND;
        e.sessions[0].number++;
        e.sessions[0].persons = now_round->persons;
        draw(now_round->persons);
        CHECK(verdict_finished(&e, 0, logits, probabilities) == EDGED_OK, "verdict");
    }
    CHECK(records == 2 * sizeof(ROUNDS) / sizeof(ROUNDS[0]), "%u records", records);
    CHECK(is_secret(e.sessions[0].events, sizeof(e.sessions[0].events[0])), "what goes on is a secret");
}
