/*
 * record.c - what leaves: sealed records, all of one agreement of one size, kept
 * until the normal world has stored them.
 *
 * Record key = HKDF(alert key, salt drawn at the epoch's begin, recipient || agreement
 * digest); nonce = sequence number, counted here; the header is associated data.
 * Uniqueness of (key, nonce) so depends on nothing stored, nor on which agreements are in
 * force: a recipient's sequence goes on until the epoch ends.
 */
#include "bytes.h"
#include "cbor.h"
#include "state.h"

static_assert(sizeof(struct edged_hdr) + sizeof(struct eval_step) + RECORD_MAX <= EDGED_MESSAGE_BYTES,
              "a record fits a message");
static_assert(sizeof(struct edged_scores) + EDGED_RULES_MAX * sizeof(struct edged_alert) + EVAL_LABELS_MAX * 8 <=
                  EDGED_BODY_MAX,
              "the scores of all labels fit the largest body");
static_assert(sizeof(struct edged_heartbeat) + EVAL_SESSIONS_MAX * sizeof(struct edged_camera_count) <= 512 &&
                  sizeof(struct edged_claim) + EDGED_CLAIM_MAX <= 512 &&
                  sizeof(struct edged_scores) + EDGED_RULES_MAX * sizeof(struct edged_alert) <= 512,
              "everything else fits the smallest body");

static size_t write_header(const struct eval *e, const struct recipient *to, uint64_t seq,
                           enum edged_record_kind kind, uint8_t out[EDGED_RECORD_HEADER_MAX]) {
    struct cbor_writer w = {.data = out, .size = EDGED_RECORD_HEADER_MAX};

    cbor_write_map(&w, 8);
    cbor_write_text(&w, "v");
    cbor_write_uint(&w, 1);
    cbor_write_text(&w, "kid");
    cbor_write_bytes(&w, to->key_id, sizeof(to->key_id));
    cbor_write_text(&w, "seq");
    cbor_write_uint(&w, seq);
    cbor_write_text(&w, "kind");
    cbor_write_uint(&w, kind);
    cbor_write_text(&w, "node");
    cbor_write_bytes(&w, to->record.node, sizeof(to->record.node));
    cbor_write_text(&w, "rcpt");
    cbor_write_bytes(&w, to->rcpt, sizeof(to->rcpt));
    cbor_write_text(&w, "salt");
    cbor_write_bytes(&w, e->salt, sizeof(e->salt));
    cbor_write_text(&w, "epoch");
    cbor_write_bytes(&w, e->epoch, sizeof(e->epoch));
    return w.at;
}

bool record_room(const struct eval *e, uint32_t records) {
    uint32_t free_slots = 0;

    for (uint32_t i = 0; i < EVAL_KEPT_MAX; i++)
        free_slots += e->kept[i].emission == 0;
    for (uint32_t i = 0; i < EVAL_SESSIONS_MAX; i++) {
        const bool announced = e->state == STATE_CLIP && e->clip.session == i;
        if (e->sessions[i].open && (e->sessions[i].unfinished || announced))
            records += e->agreements[e->sessions[i].agreement].recipient_count;
    }
    return records <= free_slots;
}

const struct sequence *record_find(const struct eval *e, const uint8_t rcpt[16]) {
    for (uint32_t i = 0; i < EVAL_RECIPIENTS_MAX; i++)
        if (e->sequences[i].seq != 0 && memcmp(e->sequences[i].rcpt, rcpt, sizeof(e->sequences[i].rcpt)) == 0)
            return &e->sequences[i];
    return NULL;
}

enum edged_status record_admits(const struct eval *e, const struct agreement *a) {
    uint32_t left = 0;

    for (uint32_t i = 0; i < EVAL_RECIPIENTS_MAX; i++)
        left += e->sequences[i].seq == 0;
    for (uint32_t i = 0; i < a->recipient_count; i++) {
        const struct sequence *s = record_find(e, a->recipients[i].rcpt);
        /* Numbers that are spent on somebody else's records would be gaps, which look like records withheld. */
        if (s != NULL && memcmp(s->qdo, a->qdo, sizeof(s->qdo)) != 0)
            return EDGED_ERR_RECIPIENT;
        if (s == NULL && left-- == 0)
            return EDGED_ERR_MEMORY;
    }
    return EDGED_OK;
}

struct sequence *record_sequence(struct eval *e, const uint8_t rcpt[16]) {
    const struct sequence *known = record_find(e, rcpt);
    uint32_t place = 0;

    if (known != NULL)
        return &e->sequences[known - e->sequences];
    while (place < EVAL_RECIPIENTS_MAX && e->sequences[place].seq != 0)
        place++;
    if (place == EVAL_RECIPIENTS_MAX)
        return NULL;
    e->sequences[place] = (struct sequence){.seq = 0};
    memcpy(e->sequences[place].rcpt, rcpt, sizeof(e->sequences[place].rcpt));
    return &e->sequences[place];
}

uint64_t record_next_seq(const struct eval *e, const uint8_t rcpt[16]) {
    const struct sequence *s = record_find(e, rcpt);
    return s == NULL ? 1 : s->seq + 1;
}

static struct kept *find_kept(struct eval *e) {
    for (uint32_t i = 0; i < EVAL_KEPT_MAX; i++)
        if (e->kept[i].emission == 0)
            return &e->kept[i];
    return NULL;
}

/* What was sealed since then never left: neither the records nor their numbers were ever there. */
static void withdraw(struct eval *e, uint64_t since) {
    for (uint32_t i = 0; i < EVAL_KEPT_MAX; i++) {
        struct kept *k = &e->kept[i];
        if (k->emission < since)
            continue;
        struct sequence *s = record_sequence(e, e->agreements[k->agreement].recipients[k->recipient].rcpt);
        if (s != NULL && s->seq >= k->seq)
            s->seq = k->seq - 1;
        crypto_wipe(k, sizeof(*k));
        e->stats.records--;
    }
    e->emission = since - 1;
}

int record_seal(struct eval *e, uint32_t agreement, uint32_t recipient, enum edged_record_kind kind,
                uint64_t since) {
    const struct agreement *a = &e->agreements[agreement];
    const struct recipient *to = &a->recipients[recipient];
    struct kept *kept = find_kept(e);
    struct sequence *sequence = record_sequence(e, to->rcpt);
    uint8_t *header, nonce[12] = {0};
    struct edged_record r;
    uint64_t seq;
    uint32_t plain;

    if (kept == NULL || sequence == NULL) {
        withdraw(e, since);
        return -1; /* cannot be: every caller asked record_room, and epoch_agree record_admits */
    }
    seq = sequence->seq + 1;
    /* A header grows with seq; the body fills what it leaves, so that all records have one size. */
    header = kept->record + sizeof(r);
    r.header_bytes = (uint32_t)write_header(e, to, seq, kind, header);
    plain = EDGED_RECORD_HEADER_MAX + a->body_bytes - r.header_bytes;
    r.body_bytes = plain + CRYPTO_TAG_BYTES;
    memcpy(kept->record, &r, sizeof(r));
    store_le64(nonce, seq);
    if (crypto_gcm_seal(to->record.key, to->record.key_bytes, nonce, header, r.header_bytes, e->plain, plain,
                        header + r.header_bytes) != 0) {
        withdraw(e, since);
        return -1;
    }
    sequence->seq = seq;
    memcpy(sequence->qdo, a->qdo, sizeof(sequence->qdo));
    kept->emission = ++e->emission;
    kept->agreement = agreement;
    kept->recipient = recipient;
    kept->seq = seq;
    kept->bytes = sizeof(r) + r.header_bytes + r.body_bytes;
    e->stats.records++;
    return 0;
}

static const struct kept *first_from(const struct eval *e, uint64_t since) {
    const struct kept *first = NULL;

    for (uint32_t i = 0; i < EVAL_KEPT_MAX; i++) {
        const struct kept *k = &e->kept[i];
        if (k->emission != 0 && k->emission >= since && (first == NULL || k->emission < first->emission))
            first = k;
    }
    return first;
}

enum edged_status record_answer(const struct eval *e, uint32_t step, uint64_t since, uint8_t *out, size_t *size) {
    const size_t capacity = EDGED_MESSAGE_BYTES - sizeof(struct edged_hdr);
    struct eval_step s = {.step = step, .emission = e->emission};
    size_t at = sizeof(s);

    for (const struct kept *k = first_from(e, since); k != NULL && k->bytes <= capacity - at;
         k = first_from(e, k->emission + 1)) {
        memcpy(out + at, k->record, k->bytes);
        at += k->bytes;
    }
    s.record_bytes = (uint32_t)(at - sizeof(s));
    memcpy(out, &s, sizeof(s));
    *size = at;
    return EDGED_OK;
}

enum edged_status record_again(const struct eval *e, uint64_t since, uint8_t *out, size_t *size) {
    const struct kept *k = first_from(e, since);
    struct eval_step s = {.step = e->model.step_count, .emission = e->emission};

    if (k != NULL) {
        s.emission = k->emission;
        s.record_bytes = (uint32_t)k->bytes;
        memcpy(out + sizeof(s), k->record, k->bytes);
    }
    memcpy(out, &s, sizeof(s));
    *size = sizeof(s) + s.record_bytes;
    return EDGED_OK;
}
