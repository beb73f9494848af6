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

#define ANSWER_BYTES (EDGED_MESSAGE_BYTES - sizeof(struct edged_hdr))

static_assert(sizeof(struct eval_step) + sizeof(struct edged_record) + EDGED_RECORD_HEADER_MAX + EDGED_BODY_MAX +
                      EVAL_TAG_BYTES <=
                  ANSWER_BYTES,
              "a record without skeletons fits a message");
static_assert(EVAL_KEPT_MAX * (sizeof(struct edged_record) + EDGED_RECORD_HEADER_MAX + EDGED_BODY_MAX +
                               EVAL_TAG_BYTES) <=
                  EVAL_KEPT_BYTES,
              "of records without skeletons the number alone is a limit");
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

static uint32_t count_kept(const struct eval *e) {
    uint32_t count = 0;

    while (count < EVAL_KEPT_MAX && e->kept[count].emission != 0)
        count++;
    return count;
}

/* Bytes of the first `count` kept records. */
static size_t end_of(const struct eval *e, uint32_t count) {
    return count == 0 ? 0 : e->kept[count - 1].at + e->kept[count - 1].bytes;
}

bool record_room(const struct eval *e, const struct agreement *a, uint32_t records) {
    size_t bytes = end_of(e, count_kept(e)) + records * record_bytes(a);

    records += count_kept(e);
    for (uint32_t i = 0; i < EVAL_SESSIONS_MAX; i++) {
        const struct agreement *of = &e->agreements[e->sessions[i].agreement];
        const bool announced = e->state == STATE_CLIP && e->clip.session == i;
        if (e->sessions[i].open && (e->sessions[i].unfinished || announced)) {
            records += of->recipient_count;
            bytes += of->recipient_count * record_bytes(of);
        }
    }
    return records <= EVAL_KEPT_MAX && bytes <= EVAL_KEPT_BYTES;
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

/* What was sealed since then never left: neither the records nor their numbers were ever there. */
static void withdraw(struct eval *e, uint64_t since) {
    uint32_t left = 0;

    for (uint32_t i = 0; i < EVAL_KEPT_MAX; i++) {
        struct kept *k = &e->kept[i];
        left += k->emission != 0 && k->emission < since;
        if (k->emission < since)
            continue;
        struct sequence *s = record_sequence(e, e->agreements[k->agreement].recipients[k->recipient].rcpt);
        if (s != NULL && s->seq >= k->seq)
            s->seq = k->seq - 1;
        crypto_wipe(k, sizeof(*k));
        e->stats.records--;
    }
    crypto_wipe(e->kept_bytes + end_of(e, left), sizeof(e->kept_bytes) - end_of(e, left)); /* a body not sealed, too */
    e->emission = since - 1;
}

void record_confirm(struct eval *e, uint64_t emission) {
    const uint32_t count = count_kept(e);
    const size_t end = end_of(e, count);
    uint32_t gone = 0;
    size_t bytes;

    for (; gone < count && e->kept[gone].emission <= emission; gone++) {
        const struct kept *k = &e->kept[gone];
        struct sequence *s = record_sequence(e, e->agreements[k->agreement].recipients[k->recipient].rcpt);
        if (s != NULL && s->confirmed < k->seq)
            s->confirmed = k->seq;
    }
    bytes = end_of(e, gone);
    memmove(e->kept_bytes, e->kept_bytes + bytes, end - bytes);
    crypto_wipe(e->kept_bytes + end - bytes, bytes);
    memmove(e->kept, e->kept + gone, (count - gone) * sizeof(e->kept[0]));
    memset(e->kept + count - gone, 0, gone * sizeof(e->kept[0]));
    for (uint32_t i = 0; i < count - gone; i++)
        e->kept[i].at -= bytes;
}

uint8_t *record_body(struct eval *e, uint32_t agreement, uint64_t since) {
    const uint32_t count = count_kept(e);
    const size_t at = end_of(e, count), bytes = record_bytes(&e->agreements[agreement]);

    if (count == EVAL_KEPT_MAX || bytes > sizeof(e->kept_bytes) - at) {
        withdraw(e, since);
        return NULL; /* cannot be: every caller asked record_room */
    }
    memset(e->kept_bytes + at, 0, bytes);
    return e->kept_bytes + at + sizeof(struct edged_record) + EDGED_RECORD_HEADER_MAX;
}

int record_seal(struct eval *e, uint32_t agreement, uint32_t recipient, enum edged_record_kind kind,
                uint64_t since) {
    const struct agreement *a = &e->agreements[agreement];
    const struct recipient *to = &a->recipients[recipient];
    const uint32_t count = count_kept(e);
    struct kept *kept = &e->kept[count % EVAL_KEPT_MAX];
    struct sequence *sequence = record_sequence(e, to->rcpt);
    const size_t at = end_of(e, count);
    uint8_t *const record = e->kept_bytes + at, *const header = record + sizeof(struct edged_record);
    uint8_t *sealed, nonce[12] = {0};
    struct edged_record r;
    uint64_t seq;
    uint32_t plain;

    if (sequence == NULL) {
        withdraw(e, since);
        return -1; /* cannot be: epoch_agree asked record_admits */
    }
    seq = sequence->seq + 1;
    /* A header grows with seq; the body fills what it leaves, so that all records have one size. */
    r.header_bytes = (uint32_t)write_header(e, to, seq, kind, header);
    plain = EDGED_RECORD_HEADER_MAX + a->body_bytes - r.header_bytes;
    r.body_bytes = plain + CRYPTO_TAG_BYTES;
    memcpy(record, &r, sizeof(r));
    sealed = header + r.header_bytes;
    memmove(sealed, header + EDGED_RECORD_HEADER_MAX, a->body_bytes); /* from where record_body had it written */
    memset(sealed + a->body_bytes, 0, plain - a->body_bytes);
    store_le64(nonce, seq);
    if (crypto_gcm_seal(to->record.key, to->record.key_bytes, nonce, header, r.header_bytes, sealed, plain,
                        sealed) != 0) {
        withdraw(e, since);
        return -1;
    }
    sequence->seq = seq;
    memcpy(sequence->qdo, a->qdo, sizeof(sequence->qdo));
    kept->emission = ++e->emission;
    kept->agreement = agreement;
    kept->recipient = recipient;
    kept->seq = seq;
    kept->at = at;
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
    struct eval_step s = {.step = step, .emission = e->emission, .records = (uint32_t)(e->emission + 1 - since)};
    size_t at = sizeof(s);

    for (const struct kept *k = first_from(e, since); k != NULL && k->bytes <= ANSWER_BYTES - at;
         k = first_from(e, k->emission + 1)) {
        memcpy(out + at, e->kept_bytes + k->at, k->bytes);
        at += k->bytes;
    }
    s.record_bytes = (uint32_t)(at - sizeof(s));
    memcpy(out, &s, sizeof(s));
    *size = at;
    return EDGED_OK;
}

enum edged_status record_again(const struct eval *e, const struct eval_record *ask, uint8_t *out, size_t *size) {
    const struct kept *k = first_from(e, ask->emission);
    struct eval_step s = {.step = e->model.step_count, .emission = e->emission};

    if (ask->offset != 0 && (k == NULL || k->emission != ask->emission || ask->offset >= k->bytes))
        return EDGED_ERR_OBJECT;
    if (k != NULL) {
        const size_t left = k->bytes - ask->offset, room = ANSWER_BYTES - sizeof(s);
        s.emission = k->emission;
        s.record_bytes = (uint32_t)(left < room ? left : room);
        memcpy(out + sizeof(s), e->kept_bytes + k->at + ask->offset, s.record_bytes);
    }
    memcpy(out, &s, sizeof(s));
    *size = sizeof(s) + s.record_bytes;
    return EDGED_OK;
}
