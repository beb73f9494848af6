/*
 * succession.c - one agreement follows another of the same owners: its recipients' last
 * records under the old keys name the new one, and nothing is sealed under it any more.
 *
 * Both are in force until the normal world says that no camera is left under the old one. It
 * hides nothing by that: a camera's clips are judged under the next one, or are missing there
 * as they would be missing here, and the sequence of each recipient goes on.
 */
#include "bytes.h"
#include "state.h"

static_assert(sizeof(struct edged_succession) <= 512, "a succession fits the smallest body");

static bool same_owners(const struct agreement *a, const struct agreement *b) {
    return memcmp(a->mo, b->mo, sizeof(a->mo)) == 0 && memcmp(a->qdo, b->qdo, sizeof(a->qdo)) == 0;
}

bool succession_may(const struct agreement *next, const struct agreement *before) {
    return same_owners(next, before) && next->number > before->number;
}

bool succession_is_over(const struct eval *e, const struct agreement *a) {
    for (uint32_t i = 0; i < EVAL_AGREEMENTS_MAX; i++)
        if (e->agreements[i].open && same_owners(&e->agreements[i], a) && a->number < e->agreements[i].least_number)
            return true;
    return false;
}

static const struct recipient *find_recipient(const struct agreement *a, const uint8_t rcpt[16]) {
    for (uint32_t i = 0; i < a->recipient_count; i++)
        if (memcmp(a->recipients[i].rcpt, rcpt, sizeof(a->recipients[i].rcpt)) == 0)
            return &a->recipients[i];
    return NULL;
}

enum edged_status succession_begin(struct eval *e, const struct eval_succeed *ask) {
    struct agreement *a = &e->agreements[ask->agreement % EVAL_AGREEMENTS_MAX];
    struct agreement *next = &e->agreements[ask->successor % EVAL_AGREEMENTS_MAX];
    struct edged_succession body = {
        .version = EDGED_BODY_VERSION, .kind = EDGED_SUCCESSION, .number = next->number};
    const uint64_t since = e->emission + 1;

    if (ask->agreement >= EVAL_AGREEMENTS_MAX || ask->successor >= EVAL_AGREEMENTS_MAX || !a->open || !next->open ||
        !succession_may(next, a))
        return EDGED_ERR_ARGUMENT;
    for (uint32_t i = 0; i < EVAL_SESSIONS_MAX; i++)
        if (e->sessions[i].open && e->sessions[i].agreement == ask->agreement)
            return EDGED_ERR_ORDER; /* its clips are judged under it still */
    if (!record_room(e, a, a->recipient_count))
        return EDGED_ERR_FULL;
    memcpy(body.successor, next->digest, sizeof(body.successor));
    for (uint32_t i = 0; i < a->recipient_count; i++) {
        const struct recipient *there = find_recipient(next, a->recipients[i].rcpt);
        memset(body.next_key, 0, sizeof(body.next_key));
        if (there != NULL)
            memcpy(body.next_key, there->key_id, sizeof(body.next_key));
        uint8_t *const out = record_body(e, ask->agreement, since);
        if (out == NULL)
            return EDGED_ERR_UNAVAILABLE;
        memcpy(out, &body, sizeof(body));
        if (record_seal(e, ask->agreement, i, EDGED_SUCCESSION, since) != 0)
            return EDGED_ERR_UNAVAILABLE;
    }
    for (uint32_t i = 0; i < a->recipient_count; i++) { /* nothing is sealed or believed under them any more */
        crypto_wipe(&a->recipients[i].record, sizeof(a->recipients[i].record));
        crypto_wipe(&a->recipients[i].beacon, sizeof(a->recipients[i].beacon));
    }
    a->open = false;
    a->over = true;
    allowance_keep(e, a);
    if (next->least_number <= a->number) /* whatever follows the next one is above it: one bound forgets none */
        next->least_number = a->number + 1;
    return EDGED_OK;
}

void succession_release(struct eval *e) {
    for (uint32_t i = 0; i < EVAL_AGREEMENTS_MAX; i++) {
        bool kept = false;
        for (uint32_t k = 0; k < EVAL_KEPT_MAX; k++)
            kept = kept || (e->kept[k].emission != 0 && e->kept[k].agreement == i);
        if (e->agreements[i].over && !kept)
            crypto_wipe(&e->agreements[i], sizeof(e->agreements[i]));
    }
}

/* The rule of the same label in the agreement before, seen there by all who see this one; or EDGED_RULES_MAX. */
static uint32_t rule_before(const struct agreement *next, uint32_t rule, const struct agreement *before) {
    uint32_t of = 0;

    while (of < before->rule_count &&
           memcmp(&before->rules[of].label, &next->rules[rule].label, sizeof(next->rules[rule].label)) != 0)
        of++;
    if (of >= before->rule_count)
        return EDGED_RULES_MAX;
    for (uint32_t i = 0; i < next->recipient_count; i++) {
        const struct recipient *to = &next->recipients[i], *was = find_recipient(before, to->rcpt);
        if ((to->sees_rule[rule] & EDGED_SEES_LABEL) != 0 &&
            (was == NULL || (was->sees_rule[of] & EDGED_SEES_LABEL) == 0))
            return EDGED_RULES_MAX;
    }
    return of;
}

void succession_events(const struct agreement *next, const struct agreement *before,
                       struct event events[EDGED_RULES_MAX], struct event out[EDGED_RULES_MAX]) {
    for (uint32_t i = 0; i < next->rule_count && next->status == before->status; i++) {
        const uint32_t of = rule_before(next, i, before);
        if (of < EDGED_RULES_MAX) { /* the terms alone decide; what happened is only moved */
            out[i] = events[of];
            memset(&events[of], 0, sizeof(events[of])); /* one event ends once */
        }
    }
}
