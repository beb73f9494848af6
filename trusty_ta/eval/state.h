/*
 * state.h - everything that the evaluation application remembers. All counters
 * live here, in enclave memory, and start anew with a fresh key at every start.
 */
#ifndef EDGED_STATE_H
#define EDGED_STATE_H

#include "crypto.h"
#include "eval.h"
#include "keylink.h"
#include "network.h"

/** enum eval_state - what is permitted, see the table in dispatch.c */
enum eval_state {
    STATE_EMPTY = 1 << 0,    /* no model */
    STATE_ENVELOPE = 1 << 1, /* taking the signed manifest */
    STATE_CHUNKS = 1 << 2,   /* taking sealed chunks */
    STATE_WEIGHTS = 1 << 3,  /* wbar is due, once */
    STATE_READY = 1 << 4,
    STATE_PREPARE = 1 << 5, /* U + pad is due */
    STATE_CLIP = 1 << 6,    /* taking a sealed clip */
    STATE_STEP = 1 << 7     /* products of a step are due */
};
#define STATE_ANY 0xffu

/* The largest record: struct edged_record, header, body and tag (record.c). */
#define RECORD_HEADER_MAX 192u
#define RECORD_BODY_MAX 3584u
#define RECORD_MAX (sizeof(struct edged_record) + RECORD_HEADER_MAX + RECORD_BODY_MAX + EVAL_TAG_BYTES)

/** struct flow - bulk data on its way in messages: strictly sequential */
struct flow {
    uint32_t product;  /* object under way */
    uint32_t end;      /* one past the last */
    uint64_t offset;   /* bytes of it that have crossed */
    uint32_t tile;     /* tile under way */
    size_t tile_bytes; /* its size, 0 when the next tile is still to be made */
    size_t tile_at;    /* bytes of it that have crossed */
    const uint8_t *bytes;
};

/** struct loading - a package on its way in; NULL when there is none */
struct loading {
    uint32_t slot;
    uint32_t placement;
    uint32_t envelope_bytes;
    uint32_t have; /* bytes of the envelope, then chunks */
    struct tensor_stream stream;
    struct crypto_hash *hash;
    struct key_material key;
    uint8_t chunk[EVAL_SEAL_BYTES];
    uint8_t envelope[EVAL_ENVELOPE_MAX];
};

/** struct prepared - an invocation whose U + pad is outside, waiting for its clip */
struct prepared {
    uint64_t invocation; /* 0: free */
    uint32_t persons;
};

/** struct session - one camera; outlives the client, so that no clip counts twice */
struct session {
    bool open;
    bool unfinished; /* the clip `number` was accepted and has no record yet */
    uint32_t attempts;
    uint32_t data_slot;
    uint32_t alert_slot;
    uint64_t number; /* the last accepted clip */
    uint8_t tag[EVAL_TAG_BYTES]; /* its seal's */
    uint8_t model[32]; /* of its last attempt: digest of the manifest */
    uint32_t labels;   /* likewise: it fixes the size of the record */
    uint64_t claimed_ns;
    uint32_t persons;
    uint32_t tracks[8];
    uint8_t camera[32];
    uint8_t key[32];
    uint8_t recipient[16];
    struct key_material record; /* key, key id, node */
};

/** struct kept - a session's last record, for a client that did not get it */
struct kept {
    size_t bytes; /* 0: none yet */
    uint8_t record[RECORD_MAX];
};

struct eval {
    const struct kernel *kernel;
    struct prg *prg;
    struct keylink keylink;
    uint8_t epoch[16];
    uint8_t salt[32]; /* of the record keys */
    uint64_t sequence[KEY_SLOTS]; /* of the records, per alert slot */

    enum eval_state state;
    uint64_t loads;
    uint64_t invocations;
    struct model model;
    uint8_t model_digest[32]; /* SHA-256 of its manifest */
    struct network network;
    struct loading *loading;
    struct prepared prepared[EVAL_PREPARED_MAX];
    uint64_t preparing; /* invocation whose U + pad is going out */
    uint32_t preparing_persons;

    uint8_t *window;
    size_t window_bytes;

    struct session sessions[EVAL_SESSIONS_MAX];
    struct kept kept[EVAL_SESSIONS_MAX];
    struct eval_clip_open clip; /* the one under way */
    uint32_t clip_have;
    uint32_t step;
    bool taking; /* of the step: all xbar read, ybar due */
    struct flow flow;

    struct eval_stats stats;
};

/* load.c: a package, from its envelope to a model in memory */
enum edged_status load_open(struct eval *e, const struct eval_load_open *ask);
enum edged_status load_envelope(struct eval *e, const struct edged_chunk *at, const uint8_t *bytes, size_t size);
enum edged_status load_chunk(struct eval *e, const struct edged_chunk *at, const uint8_t *bytes, size_t size);
enum edged_status load_commit(struct eval *e);
void load_drop(struct eval *e); /* model, masks, prepared invocations: all gone */

/* session.c: which clips are accepted, and how often */
enum edged_status session_open(struct eval *e, const struct eval_session_open *ask, struct eval_session *out);
enum edged_status session_admits(const struct eval *e, const struct eval_clip_open *ask);
enum edged_status session_close(struct eval *e, const struct eval_index *ask);
/* Open the sealed clip at the network's g in place and make its first activations. */
enum edged_status session_accept(struct eval *e, uint32_t *persons);

/* record.c: seal what was decided and keep it as session's last record. 0, or -1: the clip is unfinished still */
int record_seal(struct eval *e, uint32_t session, enum edged_record_kind kind, const int32_t *logits,
                const uint32_t *probabilities);
uint32_t record_bytes(uint32_t labels);

#endif
