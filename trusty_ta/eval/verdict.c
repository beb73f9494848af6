/*
 * verdict.c - what a clip says to each recipient of its agreement.
 *
 * A rule holds where its label's probability reaches the threshold:
 *
 *   holds, no event                            -> ALERT, the event begins
 *   holds, held for the clip before, lately    -> UPDATE
 *   holds, last within its cool-down           -> UPDATE
 *   holds, last before that                    -> ALERT, another event begins
 *   does not, an event, not for its cool-down  -> CANCEL, the event ends
 *
 * so a cool-down turns further alerts into updates and never silences one, nor do
 * clips that never came. All of it is arithmetic on masks: neither time nor memory accesses tell what was decided.
 */
#include "bytes.h"
#include "port.h"
#include "state.h"

/* All ones where a >= b; both below 2^63. */
static uint64_t mask_ge(uint64_t a, uint64_t b) {
    return ~sign_mask64((int64_t)a - (int64_t)b);
}

static uint32_t select_u32(uint64_t mask, uint32_t a, uint32_t b) {
    return (uint32_t)select_u64(mask, a, b);
}

/** struct finding - one rule's outcome for one clip */
struct finding {
    uint32_t message; /* enum edged_message_type */
    uint32_t score;
    uint64_t event;
};

static struct finding judge(const struct rule *rule, uint64_t holds_now, uint32_t score, uint64_t number,
                            uint64_t uptime_ns, struct event *event) {
    const uint64_t holds = holds_now & mask_ge(score, rule->threshold);
    const uint64_t cooled = mask_ge(uptime_ns - event->held_ns, rule->cooldown_ns);
    /* After a pause in which nobody looked, what holds now is another event. */
    const uint64_t lately = ~mask_ge(uptime_ns - event->held_ns, EDGED_PAUSE_S * 1000000000ull);
    const uint64_t same = event->active & ((event->held & lately) | ~cooled);
    const uint64_t over = event->active & ~holds & cooled;
    struct finding f = {.score = score};

    f.message = select_u32(holds, select_u32(same, EDGED_MESSAGE_UPDATE, EDGED_MESSAGE_ALERT),
                           select_u32(over, EDGED_MESSAGE_CANCEL, EDGED_MESSAGE_NONE));
    event->number = select_u64(holds & ~same, number, event->number);
    event->held_ns = select_u64(holds, uptime_ns, event->held_ns);
    event->active = holds | (event->active & ~over);
    event->held = holds;
    f.event = event->number;
    return f;
}

/* To the nearest multiple of 2^-bits. */
static uint32_t round_score(uint32_t score, uint32_t bits) {
    const uint32_t drop = 16 - bits;
    return drop == 0 ? score : (score + (1u << (drop - 1))) >> drop << drop;
}

/** struct said - what the records of one request say. findings, logits, skeletons NULL: none */
struct said {
    const struct edged_scores *scores;
    const struct finding *findings;
    const int32_t *logits;
    const uint32_t *probabilities;
    const struct skeletons *skeletons;
};

/* All of it where the mask is all ones, else as many zeros. */
static void write_skeletons(const struct skeletons *s, uint64_t mask, uint8_t *out) {
    const size_t words = (size_t)s->persons * s->frames * s->joints * 2;
    const struct edged_skeleton head = {.persons = s->persons & (uint32_t)mask,
                                        .frames = s->frames & (uint32_t)mask,
                                        .joints = s->joints & (uint32_t)mask};

    memcpy(out, &head, sizeof(head));
    out += sizeof(head);
    for (size_t i = 0; i < words; i++) {
        const int16_t word = (int16_t)(s->xy[i] & (int16_t)mask);
        memcpy(out + 2 * i, &word, sizeof(word));
    }
}

/* The body for one recipient, at zeros. */
static void write_body(const struct agreement *a, const struct recipient *to, const struct said *said, uint8_t *out) {
    const struct edged_scores *scores = said->scores;
    struct edged_scores s = *scores;
    struct edged_alert alert;
    const bool all = (to->sees & EDGED_SEES_SCORES) != 0;
    uint64_t any = 0, shown = all ? ~(uint64_t)0 : 0, drawn = 0;
    uint8_t *at = out + sizeof(s);

    for (uint32_t i = 0; i < a->rule_count; i++) {
        memset(&alert, 0, sizeof(alert));
        if (said->findings != NULL && (to->sees_rule[i] & EDGED_SEES_LABEL) != 0) {
            const struct finding *f = &said->findings[i];
            const uint64_t speaks = mask_ge(f->message, 1), holds = speaks & mask_ge(EDGED_MESSAGE_UPDATE, f->message);
            const uint32_t score =
                (to->sees_rule[i] & EDGED_SEES_SCORE) != 0 ? round_score(f->score, a->score_bits) : 0;
            alert = (struct edged_alert){.message = f->message,
                                         .score = select_u32(speaks, score, 0),
                                         .event = select_u64(speaks, f->event, 0)};
            any |= speaks;
            shown |= holds;
            drawn |= (to->sees_rule[i] & EDGED_SEES_SKELETON) != 0 ? holds : 0;
        }
        memcpy(at, &alert, sizeof(alert));
        at += sizeof(alert);
    }
    s.kind = select_u32(any, EDGED_ALERT, scores->kind);
    s.sees = all ? EDGED_SEES_SCORES : 0;
    /* Who was seen: to those who see all, and where a rule holds; of a Cancel it is nobody. */
    s.persons &= (uint32_t)shown;
    for (uint32_t i = 0; i < 8; i++)
        s.tracks[i] &= (uint32_t)shown;
    memcpy(out, &s, sizeof(s));
    crypto_wipe(&s, sizeof(s));
    crypto_wipe(&alert, sizeof(alert));
    if (all && said->logits != NULL) {
        memcpy(at, said->logits, scores->labels * 4);
        memcpy(at + scores->labels * 4, said->probabilities, scores->labels * 4);
    }
    at += all ? scores->labels * 8 : 0;
    if (said->skeletons != NULL && said->skeletons->xy != NULL && agreement_shows_skeletons(a, to))
        write_skeletons(said->skeletons, drawn, at);
}

/* One record for each recipient, or none at all. */
static enum edged_status tell(struct eval *e, uint32_t agreement, enum edged_record_kind kind,
                              const struct said *said) {
    const struct agreement *a = &e->agreements[agreement];
    const uint64_t since = e->emission + 1;

    for (uint32_t i = 0; i < a->recipient_count; i++) {
        uint8_t *const out = record_body(e, agreement, since);
        if (out == NULL)
            return EDGED_ERR_UNAVAILABLE;
        write_body(a, &a->recipients[i], said, out);
        if (record_seal(e, agreement, i, kind, since) != 0)
            return EDGED_ERR_UNAVAILABLE;
    }
    return EDGED_OK;
}

static struct edged_scores of_session(const struct eval *e, const struct session *s, enum edged_record_kind kind,
                                      uint64_t uptime_ns) {
    const struct agreement *a = &e->agreements[s->agreement];
    struct edged_scores scores = {.version = EDGED_BODY_VERSION,
                                  .kind = kind,
                                  .status = a->status,
                                  .labels = s->labels,
                                  .rules = a->rule_count,
                                  .persons = s->persons,
                                  .number = s->number,
                                  .claimed_ns = s->claimed_ns,
                                  .time_ns = agreement_time_ns(a, uptime_ns)};
    memcpy(scores.tracks, s->tracks, sizeof(scores.tracks));
    memcpy(scores.camera, s->camera, sizeof(scores.camera));
    memcpy(scores.model, s->model, sizeof(scores.model));
    return scores;
}

enum edged_status verdict_finished(struct eval *e, uint32_t session, const int32_t *logits,
                                   const uint32_t *probabilities) {
    struct session *s = &e->sessions[session];
    const struct agreement *a = &e->agreements[s->agreement];
    const uint64_t uptime_ns = port_uptime_ns();
    const struct edged_scores scores = of_session(e, s, EDGED_OBSERVATION, uptime_ns);
    struct finding findings[EDGED_RULES_MAX];
    struct event events[EDGED_RULES_MAX];
    enum edged_status status;

    memset(findings, 0, sizeof(findings));
    memcpy(events, s->events, sizeof(events));
    for (uint32_t i = 0; i < a->rule_count; i++) {
        const uint32_t label = agreement_label(&a->rules[i], &e->model);
        const uint64_t holds = agreement_rule_holds(a, &a->rules[i], uptime_ns) ? ~(uint64_t)0 : 0;
        if (label < EVAL_LABELS_MAX) /* agreement_admits saw to it */
            findings[i] = judge(&a->rules[i], holds, probabilities[label], s->number, uptime_ns, &events[i]);
    }
    status = tell(e, s->agreement, EDGED_OBSERVATION,
                  &(struct said){&scores, findings, logits, probabilities, &e->skeletons});
    if (status == EDGED_OK) {
        memcpy(s->events, events, sizeof(s->events));
        s->unfinished = false;
    }
    crypto_wipe(findings, sizeof(findings));
    crypto_wipe(events, sizeof(events));
    return status;
}

enum edged_status verdict_failed(struct eval *e, uint32_t session) {
    struct session *s = &e->sessions[session];
    const struct edged_scores scores = of_session(e, s, EDGED_FAILED, port_uptime_ns());
    const enum edged_status status = tell(e, s->agreement, EDGED_FAILED, &(struct said){.scores = &scores});

    if (status == EDGED_OK) {
        s->unfinished = false;
        s->failed++;
    }
    return status;
}

enum edged_status verdict_exercise(struct eval *e, const struct eval_exercise *ask) {
    const struct agreement *a = &e->agreements[ask->agreement % EVAL_AGREEMENTS_MAX];
    struct finding findings[EDGED_RULES_MAX];
    struct edged_scores scores = {
        .version = EDGED_BODY_VERSION, .kind = EDGED_OBSERVATION, .status = EDGED_EXERCISE};

    if (ask->agreement >= EVAL_AGREEMENTS_MAX || !a->open || ask->rule >= a->rule_count)
        return EDGED_ERR_ARGUMENT;
    if (!record_room(e, a, a->recipient_count))
        return EDGED_ERR_FULL;
    memset(findings, 0, sizeof(findings));
    findings[ask->rule] = (struct finding){.message = EDGED_MESSAGE_ALERT, .score = 65536};
    scores.rules = a->rule_count;
    scores.time_ns = agreement_time_ns(a, port_uptime_ns());
    return tell(e, ask->agreement, EDGED_OBSERVATION, &(struct said){.scores = &scores, .findings = findings});
}
