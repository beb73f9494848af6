/*
 * state.h - everything that the evaluation application remembers. All counters
 * live here, in enclave memory, and start anew with a fresh key at every start.
 */
#ifndef EDGED_STATE_H
#define EDGED_STATE_H

#include "agreement.h"
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

/* A record: struct edged_record, header, body and tag. */
static inline size_t record_bytes(const struct agreement *a) {
    return sizeof(struct edged_record) + EDGED_RECORD_HEADER_MAX + a->body_bytes + EVAL_TAG_BYTES;
}

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

/** struct event - of one rule and camera, between its Alert and its Cancel; decided without a branch */
struct event {
    uint64_t active;  /* all ones, or 0 */
    uint64_t held;    /* likewise: the rule held for the last clip */
    uint64_t number;  /* of the clip that began it */
    uint64_t held_ns; /* uptime at the last clip for which the rule held */
};

/** struct session - one camera; outlives the client, so that no clip counts twice */
struct session {
    bool open;
    bool unfinished; /* the clip `number` was accepted and has no record yet */
    uint32_t attempts;
    uint32_t agreement;
    uint32_t accepted; /* clips, in this epoch */
    uint32_t failed;
    uint64_t number; /* the last accepted clip */
    uint8_t tag[EVAL_TAG_BYTES]; /* its seal's */
    uint8_t model[32]; /* of its last attempt: digest of the manifest */
    uint32_t labels;   /* likewise: it fixes the size of the record */
    uint64_t claimed_ns;
    uint32_t persons;
    uint32_t tracks[8];
    uint8_t camera[32];
    uint32_t key_bytes;
    uint8_t key[32];
    struct event events[EDGED_RULES_MAX];
};

/** struct kept - a record that is not confirmed yet; its bytes lie in kept_bytes */
struct kept {
    uint64_t emission; /* 0: free */
    uint32_t agreement;
    uint32_t recipient;
    uint64_t seq;
    size_t at;
    size_t bytes;
};

/** struct skeletons - x and y of the clip under way, where its agreement tells them */
struct skeletons {
    uint32_t persons;
    uint32_t frames;
    uint32_t joints;
    int16_t *xy; /* [persons][frames][joints][2]; NULL where nobody may see them, or nobody is there */
};

/** struct sequence - of one recipient in this epoch, whichever agreements of its query data owner come and go */
struct sequence {
    uint8_t rcpt[16];
    uint8_t qdo[32];
    uint64_t seq;       /* of the last record sealed, 0: free */
    uint64_t confirmed; /* of the last one stored outside */
};

/** struct past - of one query data owner's recipient, in whichever agreements and epochs */
struct past {
    bool known;
    bool closed; /* that epoch ended by EVAL_CLOSE, and none after it had records for him */
    uint8_t rcpt[16];
    uint8_t qdo[32];
    uint8_t epoch[16];  /* the last one of which a record of his was confirmed, before this one */
    uint64_t seq;       /* the last such record; 0: none */
    uint64_t told_ns;   /* the highest time of his beacons; 0: none */
    struct bound least; /* by all of them */
};

#define EVAL_PASTS_MAX EVAL_RECIPIENTS_MAX

/** struct past_end - likewise, sealed, at the end of this epoch; of nobody where seq and told_ns are 0 */
struct past_end {
    uint8_t rcpt[16];
    uint8_t qdo[32];
    uint8_t epoch[16];
    uint64_t seq;
    uint64_t closed;
    uint64_t told_ns;
    uint64_t least_ns; /* the earliest that it could be then */
};

/** struct epoch_summary - an epoch as sealed state and the next epoch's first records know it */
struct epoch_summary {
    uint64_t counter;
    uint64_t closed; /* by EVAL_CLOSE */
    struct past_end pasts[EVAL_PASTS_MAX];
};

/** struct allowance - of an agreement that is or was in force, in this or another epoch of this start */
struct allowance {
    bool known;
    bool over; /* another followed it */
    uint8_t agreement[32];
    uint64_t rate_ns;  /* these two as it had them when it began, or was in force last */
    uint64_t heard_ns;
};

#define EVAL_ALLOWANCES_MAX 32u

struct eval {
    const struct kernel *kernel;
    struct prg *prg;
    struct keylink keylink;
    uint8_t epoch[16];
    uint8_t salt[32]; /* of the record keys */
    uint8_t state_key[32];
    uint64_t states; /* sealed in this epoch */
    uint64_t counter; /* of epochs */
    bool previous_known;
    uint8_t previous_epoch[16];
    bool previous_closed;
    struct agreement agreements[EVAL_AGREEMENTS_MAX];
    struct agreement reading; /* one that is not believed yet */
    struct sequence sequences[EVAL_RECIPIENTS_MAX];
    struct past pasts[EVAL_PASTS_MAX]; /* these go on when the epoch ends, and so do the allowances */
    struct allowance allowances[EVAL_ALLOWANCES_MAX];

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
    uint64_t emission; /* of the last record sealed */
    struct kept kept[EVAL_KEPT_MAX]; /* by emission, rising; the free ones last */
    uint8_t kept_bytes[EVAL_KEPT_BYTES]; /* one record behind the other */
    struct eval_clip_open clip; /* the one under way */
    struct skeletons skeletons; /* its own, until its evaluation ends */
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
/* The evaluation under way is over: nothing is left of its skeletons. */
void session_forget(struct eval *e);

/* epoch.c: agreements that begin, beacons, claims, sealed state */
enum edged_status epoch_begin(struct eval *e); /* random names, nothing before */
enum edged_status epoch_restore(struct eval *e, const struct edged_state *sealed);
enum edged_status epoch_agree(struct eval *e, const struct eval_agreement *ask, const uint8_t *bytes, size_t size,
                              uint32_t *index);
enum edged_status epoch_confirm(struct eval *e, uint64_t emission, struct edged_state *out);
enum edged_status epoch_close(struct eval *e, struct edged_state *out);
enum edged_status epoch_beacon(struct eval *e, const struct eval_beacon *ask);
enum edged_status epoch_claim(struct eval *e, const struct eval_claim *ask, const uint8_t *bytes, size_t size);

/* past.c: what is remembered of recipients over the epochs */
const struct past *past_find(const struct eval *e, const uint8_t rcpt[16], const uint8_t qdo[32]); /* NULL: nothing */
/* Is there a place for each of its recipients? MEMORY: others' stand there, which nobody may forget */
enum edged_status past_admits(const struct eval *e, const struct agreement *a);
/* Its recipients have a place; it begins no earlier than they told, in any other agreement or before this epoch. */
void past_resume(struct eval *e, struct agreement *a, uint64_t uptime_ns);
/* A beacon of one of the agreement's recipients was taken. */
void past_hear(struct eval *e, const struct agreement *a, const struct recipient *from, uint64_t time_ns,
               uint64_t uptime_ns);
void past_summarise(const struct eval *e, bool closed, uint64_t uptime_ns, struct past_end out[EVAL_PASTS_MAX]);
void past_restore(struct eval *e, const struct past_end ends[EVAL_PASTS_MAX], uint64_t uptime_ns);

/* allowance.c: clips an hour, and time without a beacon, whatever begins anew */
/* It begins, with what it had before; where that is forgotten, perhaps, with nothing, and locked until a beacon. */
void allowance_resume(struct eval *e, struct agreement *a, uint64_t uptime_ns);
/* It is in force no more, for the moment perhaps. */
void allowance_keep(struct eval *e, const struct agreement *a);

/* succession.c: one agreement follows another */
enum edged_status succession_begin(struct eval *e, const struct eval_succeed *ask);
/* May it follow that one: of the same owners, with a higher number? */
bool succession_may(const struct agreement *next, const struct agreement *before);
/* Did another one follow it already, or one of a higher number? */
bool succession_is_over(const struct eval *e, const struct agreement *a);
/* Free the places of those that are over and have nothing kept. */
void succession_release(struct eval *e);
/* A camera goes on under the next one: the events that all who will hear of them know move there. */
void succession_events(const struct agreement *next, const struct agreement *before,
                       struct event events[EDGED_RULES_MAX], struct event out[EDGED_RULES_MAX]);

/* verdict.c: what a finished or failed clip says to each recipient. OK, or UNAVAILABLE: the clip is unfinished still */
enum edged_status verdict_finished(struct eval *e, uint32_t session, const int32_t *logits,
                                   const uint32_t *probabilities);
enum edged_status verdict_failed(struct eval *e, uint32_t session);
enum edged_status verdict_exercise(struct eval *e, const struct eval_exercise *ask);

/* record.c: sealed records, kept until they are confirmed */
/* Room for so many more records of the agreement, beside those that announced and unfinished clips will need? */
bool record_room(const struct eval *e, const struct agreement *a, uint32_t records);
/* Is there a sequence for each recipient of the agreement, or room for one? MEMORY; RECIPIENT: another city's is one */
enum edged_status record_admits(const struct eval *e, const struct agreement *a);
const struct sequence *record_find(const struct eval *e, const uint8_t rcpt[16]); /* NULL: none */
/* A recipient has one sequence, in however many agreements: who stores records knows them by it. */
struct sequence *record_sequence(struct eval *e, const uint8_t rcpt[16]); /* NULL: none, and no room for one */
uint64_t record_next_seq(const struct eval *e, const uint8_t rcpt[16]);
/*
 * Where the body of the next record is written: as many zeros as the agreement says, in the place of the record itself.
 * NULL where there is no room; then all records from `since` on are withdrawn.
 */
uint8_t *record_body(struct eval *e, uint32_t agreement, uint64_t since);
/* Seal it for a recipient, in place. 0, or -1; then likewise, and nothing is left of it. */
int record_seal(struct eval *e, uint32_t agreement, uint32_t recipient, enum edged_record_kind kind, uint64_t since);
/* Those up to this emission are stored outside. */
void record_confirm(struct eval *e, uint64_t emission);
/* struct eval_step and the kept records from `since` on, as many as fit a message. */
enum edged_status record_answer(const struct eval *e, uint32_t step, uint64_t since, uint8_t *out, size_t *size);
/* A kept record, from an offset on. */
enum edged_status record_again(const struct eval *e, const struct eval_record *ask, uint8_t *out, size_t *size);

#endif
