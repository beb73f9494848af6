/*
 * record.c - what leaves: one sealed record per finished or failed clip, all of
 * one size.
 *
 * Record key = HKDF(alert key, salt drawn at enclave start, recipient || agreement
 * digest); nonce = sequence number, counted here; the header is associated data.
 * Uniqueness of (key, nonce) so depends on nothing stored.
 */
#include "bytes.h"
#include "cbor.h"
#include "state.h"

#define BODY_QUANTUM 512u

static uint32_t body_bytes(uint32_t labels) {
    const uint32_t n = (uint32_t)sizeof(struct edged_scores) + labels * 8;
    return (n + BODY_QUANTUM - 1) / BODY_QUANTUM * BODY_QUANTUM;
}

static_assert(sizeof(struct edged_scores) + EVAL_LABELS_MAX * 8 <= RECORD_BODY_MAX &&
                  RECORD_BODY_MAX % BODY_QUANTUM == 0,
              "the scores of all labels fit the largest body");
static_assert(sizeof(struct edged_hdr) + sizeof(struct eval_step) + RECORD_MAX <= EDGED_MESSAGE_BYTES,
              "a record fits a message");

static size_t write_header(const struct eval *e, const struct session *s, uint64_t seq,
                           enum edged_record_kind kind, uint8_t out[RECORD_HEADER_MAX]) {
    struct cbor_writer w = {.data = out, .size = RECORD_HEADER_MAX};

    cbor_write_map(&w, 8);
    cbor_write_text(&w, "v");
    cbor_write_uint(&w, 1);
    cbor_write_text(&w, "kid");
    cbor_write_bytes(&w, s->record.key_id, sizeof(s->record.key_id));
    cbor_write_text(&w, "seq");
    cbor_write_uint(&w, seq);
    cbor_write_text(&w, "kind");
    cbor_write_uint(&w, kind);
    cbor_write_text(&w, "node");
    cbor_write_bytes(&w, s->record.node, sizeof(s->record.node));
    cbor_write_text(&w, "rcpt");
    cbor_write_bytes(&w, s->recipient, sizeof(s->recipient));
    cbor_write_text(&w, "salt");
    cbor_write_bytes(&w, e->salt, sizeof(e->salt));
    cbor_write_text(&w, "epoch");
    cbor_write_bytes(&w, e->epoch, sizeof(e->epoch));
    return w.at;
}

uint32_t record_bytes(uint32_t labels) {
    return (uint32_t)sizeof(struct edged_record) + RECORD_HEADER_MAX + body_bytes(labels) + CRYPTO_TAG_BYTES;
}

int record_seal(struct eval *e, uint32_t session, enum edged_record_kind kind, const int32_t *logits,
                const uint32_t *probabilities) {
    struct session *s = &e->sessions[session];
    struct kept *kept = &e->kept[session];
    const uint32_t labels = s->labels;
    const uint64_t seq = ++e->sequence[s->alert_slot]; /* spent, whatever follows */
    struct edged_scores scores = {.version = 1,
                                  .kind = kind,
                                  .labels = labels,
                                  .persons = s->persons,
                                  .number = s->number,
                                  .claimed_ns = s->claimed_ns};
    uint8_t *header = kept->record + sizeof(struct edged_record), *plain, nonce[12] = {0};
    struct edged_record r;
    uint32_t body;

    /* A header grows with seq; the body fills what it leaves, so that all records have one size. */
    r.header_bytes = (uint32_t)write_header(e, s, seq, kind, header);
    body = body_bytes(labels) + RECORD_HEADER_MAX - r.header_bytes;
    r.body_bytes = body + CRYPTO_TAG_BYTES;
    memcpy(kept->record, &r, sizeof(r));
    memcpy(scores.tracks, s->tracks, sizeof(scores.tracks));
    memcpy(scores.camera, s->camera, sizeof(scores.camera));
    memcpy(scores.model, s->model, sizeof(scores.model));
    plain = header + r.header_bytes;
    memset(plain, 0, body);
    memcpy(plain, &scores, sizeof(scores));
    if (logits != NULL) {
        memcpy(plain + sizeof(scores), logits, labels * 4);
        memcpy(plain + sizeof(scores) + labels * 4, probabilities, labels * 4);
    }
    store_le64(nonce, seq);
    if (crypto_gcm_seal(s->record.key, s->record.key_bytes, nonce, header, r.header_bytes, plain, body,
                        plain) != 0) {
        crypto_wipe(kept, sizeof(*kept));
        return -1;
    }
    kept->bytes = sizeof(r) + r.header_bytes + r.body_bytes;
    s->unfinished = false;
    e->stats.records++;
    return 0;
}
