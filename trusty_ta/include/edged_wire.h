/*
 * edged_wire.h - every byte that crosses the boundary of the two trusted
 * applications. Messages are the structs below; what they carry that is no
 * struct (a sealed package, a record's header) is described beside them, with the
 * file that reads or writes it. Nothing else enters. Each application judges and
 * dispatches in one table: eval/dispatch.c, key/key.c.
 *
 * It is the only definition. edged/enclave/wire.py mirrors it, and
 * tests/test_wire.py compiles it and compares every offset and constant.
 *
 * All integers are little-endian. Requests are even, answers are the request
 * plus one. Every field named `reserved` must be 0. Sizes never come from the
 * caller: a length that the enclave's own model does not call for is refused.
 */
#ifndef EDGED_WIRE_H
#define EDGED_WIRE_H

#include <assert.h>
#include <stdint.h>

#define EDGED_WIRE_VERSION 1u

/* A Trusty channel moves at most 4096 bytes in one message. */
#define EDGED_MESSAGE_BYTES 4096u

/*
 * Rises with every release whose predecessor must no longer be trusted. Evidence tells it of both
 * applications, and what the key application sealed opens in no older one. A build of a test sets another.
 */
#ifndef EDGED_SECURITY_VERSION
#define EDGED_SECURITY_VERSION 1u
#endif

/* Requests that a client may send before it reads an answer: the channel's
 * receive buffers (at most 32 on Trusty), which count as enclave memory. */
#define EDGED_QUEUE 8u

#define EVAL_PORT "com.edged.eval"         /* normal world -> evaluation */
#define KEY_PORT "com.edged.key"           /* normal world -> key */
#define KEY_EVAL_PORT "com.edged.key.eval" /* evaluation -> key, UUID checked */

/**
 * struct edged_hdr - starts every message, both ways
 * @version:  EDGED_WIRE_VERSION
 * @cmd:      enum eval_cmd or enum key_cmd; odd in an answer
 * @len:      bytes after this header, exactly
 * @seq:      chosen by the client, echoed in the answer
 * @status:   0 in a request; enum edged_status in an answer
 * @reserved: must be 0
 */
struct edged_hdr {
    uint16_t version;
    uint16_t cmd;
    uint32_t len;
    uint32_t seq;
    uint32_t status;
    uint64_t reserved;
};
static_assert(sizeof(struct edged_hdr) == 2 + 2 + 4 + 4 + 4 + 8, "edged_hdr");

/**
 * enum edged_status - the answer's verdict; an answer other than OK has no body
 * (but see struct eval_step)
 *
 * All but VERIFICATION follow from public bytes (framing, order, sizes) and may be
 * told at once. VERIFICATION is the single answer to everything that depends
 * on weights, activations, masks or keys; it is given at one point only.
 */
enum edged_status {
    EDGED_OK = 0,
    EDGED_ERR_VERSION = 1,      /* wire version differs */
    EDGED_ERR_COMMAND = 2,      /* no such command on this port */
    EDGED_ERR_LENGTH = 3,       /* too short, too long, or len disagrees */
    EDGED_ERR_RESERVED = 4,     /* a reserved or must-be-zero field is not 0 */
    EDGED_ERR_ORDER = 5,        /* not permitted in the present state */
    EDGED_ERR_OBJECT = 6,       /* object or offset is not the expected one */
    EDGED_ERR_ARGUMENT = 7,     /* a public argument is out of its range */
    EDGED_ERR_MEMORY = 8,       /* the heap limit does not hold this model */
    EDGED_ERR_WINDOW = 9,       /* no, or too small, shared memory */
    EDGED_ERR_PACKAGE = 10,     /* package refused: form, bound, signature, seal */
    EDGED_ERR_PLACEMENT = 11,   /* placement not permitted by the owner */
    EDGED_ERR_KEY = 12,         /* key slot empty, of another kind, or refused */
    EDGED_ERR_UNAVAILABLE = 13, /* key application or random source is away */
    EDGED_ERR_CLIP = 14,        /* clip refused: seal, replay, form */
    EDGED_ERR_VERIFICATION = 15, /* a product failed its check: invocation dead */
    EDGED_ERR_AGREEMENT = 16,   /* not signed by both, not covered by it, or not valid now */
    EDGED_ERR_RATE = 17,        /* the agreement's clips of this hour are used up */
    EDGED_ERR_LOCKED = 18,      /* no beacon within the agreement's limit; a granted key that wants its owner's floor */
    EDGED_ERR_FULL = 19,        /* too many records are kept: fetch and confirm them first */
    EDGED_ERR_STATE = 20,       /* what is sealed is not this device's, altered, older, or of a newer application */
    EDGED_ERR_GRANT = 21,       /* grant or floor: malformed, for another device, not signed by whom it names, shut */
    EDGED_ERR_REPLAY = 22,      /* a grant no newer than one that was taken; likewise a floor, or of another start */
    EDGED_ERR_RECIPIENT = 23    /* a recipient's id is one of another query data owner's in this epoch */
};

/* ---------------------------------------------------------------- eval --- */

/** enum eval_cmd - commands of EVAL_PORT, in the order of their use */
enum eval_cmd {
    EVAL_INFO = 2,           /* -                       -> eval_info */
    EVAL_STATS = 4,          /* -                       -> eval_stats */
    EVAL_WINDOW = 6,         /* eval_window [+ handle]  -> - */
    EVAL_LOAD_OPEN = 8,      /* eval_load_open          -> - */
    EVAL_LOAD_ENVELOPE = 10, /* edged_chunk + bytes     -> - */
    EVAL_LOAD_CHUNK = 12,    /* edged_chunk + bytes     -> - */
    EVAL_LOAD_COMMIT = 14,   /* -                       -> eval_model */
    EVAL_UNLOAD = 16,        /* -                       -> - */
    EVAL_PRODUCT = 18,       /* eval_index              -> eval_product */
    EVAL_WEIGHTS_READ = 20,  /* edged_chunk             -> edged_chunk + bytes */
    EVAL_WEIGHTS_MAP = 22,   /* eval_index              -> - (in the window) */
    EVAL_SESSION_OPEN = 24,  /* eval_session_open       -> eval_session */
    EVAL_PREPARE_OPEN = 26,  /* eval_prepare_open       -> eval_invocation */
    EVAL_PREPARE_READ = 28,  /* edged_chunk             -> edged_chunk + bytes */
    EVAL_PREPARE_MAP = 30,   /* eval_index              -> - (in the window) */
    EVAL_PREPARE_DROP = 32,  /* eval_invocation         -> - */
    EVAL_CLIP_OPEN = 34,     /* eval_clip_open          -> eval_step */
    EVAL_CLIP_WRITE = 36,    /* edged_chunk + bytes     -> - */
    EVAL_CLIP_BEGIN = 38,    /* -                       -> eval_step [+ record] */
    EVAL_STEP_READ = 40,     /* edged_chunk             -> edged_chunk + bytes */
    EVAL_STEP_WRITE = 42,    /* edged_chunk + bytes     -> - */
    EVAL_STEP = 44,          /* eval_index              -> eval_step [+ record] */
    EVAL_CLIP_ABORT = 46,    /* eval_index (session)    -> eval_step + record */
    EVAL_RECORD = 48,        /* eval_record             -> eval_step [+ record] */
    EVAL_SESSION_CLOSE = 50, /* eval_index (session)    -> - */
    EVAL_RESTORE = 52,       /* edged_state             -> - */
    EVAL_AGREEMENT = 54,     /* eval_agreement + bytes  -> eval_step + epoch records */
    EVAL_CONFIRM = 56,       /* eval_emission           -> edged_state */
    EVAL_BEACON = 58,        /* eval_beacon             -> eval_step + heartbeat */
    EVAL_EXERCISE = 60,      /* eval_exercise           -> eval_step + records */
    EVAL_CLAIM = 62,         /* eval_claim + bytes      -> eval_step + records */
    EVAL_CLOSE = 64,         /* -                       -> edged_state */
    EVAL_SUCCEED = 66        /* eval_succeed            -> eval_step + last records */
};

/** enum eval_placement - where the linear products are computed */
enum eval_placement {
    EVAL_MASKED = 0,  /* weights and activations masked, outside */
    EVAL_INPUTS = 1,  /* activations masked, weights in clear, outside */
    EVAL_ENCLAVE = 2  /* inside */
};

/**
 * struct edged_chunk - head of bulk data in messages
 * @object: what the bytes belong to (product or chunk index; 0 where only one)
 * @offset: of the first byte within the object; bulk data is strictly
 *          sequential: objects rise from the first that is due, offsets are
 *          exactly the next byte, nothing is read or written twice
 *
 * A READ request is this head alone; its answer is the head and as many bytes
 * as fit, a multiple of 4, or fewer at the end of the object. Words written
 * (EVAL_STEP_WRITE) come whole: a multiple of 4 bytes.
 */
struct edged_chunk {
    uint32_t object;
    uint32_t reserved;
    uint64_t offset;
};
static_assert(sizeof(struct edged_chunk) == 4 + 4 + 8, "edged_chunk");

#define EDGED_CHUNK_BYTES \
    (EDGED_MESSAGE_BYTES - (uint32_t)sizeof(struct edged_hdr) - (uint32_t)sizeof(struct edged_chunk))

/** struct eval_index - names a product or a step */
struct eval_index {
    uint32_t index;
    uint32_t reserved;
};
static_assert(sizeof(struct eval_index) == 4 + 4, "eval_index");

#define EVAL_FLAG_EMULATED 1u /* this port protects nothing */
#define EVAL_FLAG_WINDOW 2u   /* the port has shared memory */

/**
 * struct eval_info - answer to EVAL_INFO
 * @flags:         EVAL_FLAG_*
 * @message_bytes: largest message, both ways
 * @epoch:         random, drawn at enclave start and by EVAL_CLOSE
 * @agreements:    how many are in force
 * @kept:          records that wait for EVAL_CONFIRM
 * @emission:      of the last record sealed, 0: none yet
 */
struct eval_info {
    uint32_t flags;
    uint32_t message_bytes;
    uint8_t epoch[16];
    uint32_t agreements;
    uint32_t kept;
    uint64_t emission;
};
static_assert(sizeof(struct eval_info) == 4 + 4 + 16 + 4 + 4 + 8, "eval_info");

/**
 * struct edged_memory - the memory of one application, in bytes
 * @heap_limit, @heap_peak:   the manifest's min_heap, and the most ever used
 * @stack_limit, @stack_peak: likewise min_stack
 * @image:                    code, constants and static data
 * @channels:                 receive buffers of all channels at their limit
 * @window:                   shared memory mapped now: the normal world's
 *                            memory, not part of the enclave's own
 *
 * A port that cannot measure answers 0.
 */
struct edged_memory {
    uint64_t heap_limit;
    uint64_t heap_peak;
    uint64_t stack_limit;
    uint64_t stack_peak;
    uint64_t image;
    uint64_t channels;
    uint64_t window;
};
static_assert(sizeof(struct edged_memory) == 7 * 8, "edged_memory");

/** struct eval_stats - answer to EVAL_STATS; counts since enclave start */
struct eval_stats {
    struct edged_memory memory;
    uint64_t clips;            /* invocations begun */
    uint64_t records;          /* records emitted */
    uint64_t products_checked; /* products that passed Freivalds */
    uint64_t rejections;       /* steps refused */
};
static_assert(sizeof(struct eval_stats) == 7 * 8 + 4 * 8, "eval_stats");

/**
 * struct eval_window - attach the client's shared memory (one handle), or
 * detach it (@bytes 0, no handle). What was attached before is detached in any
 * case. Refused while a package, U + pad or a clip is under way.
 */
struct eval_window {
    uint64_t bytes;
};
static_assert(sizeof(struct eval_window) == 8, "eval_window");

/*
 * A package, as EVAL_LOAD_ENVELOPE and EVAL_LOAD_CHUNK carry it:
 *
 * Envelope (eval/load.c): COSE_Sign1 = D2 84 43 A10127 A0 bstr(manifest) bstr64(signature), Ed25519
 * by the model slot's verifier over ["Signature1", h'A10127', "edged package" as bstr, manifest].
 *
 * Manifest (eval/manifest.c): a map in deterministic CBOR (lib/cbor.c), keys in this order:
 *   form "clip", salt bstr32, chunks, digest bstr32, frames, joints, key_id bstr16, labels [text],
 *   layers [[13 numbers]], schema 1, persons, version, model_id text, skeleton text, partitions,
 *   placements (bit 1 << enum eval_placement). All numbers unsigned. A row of layers:
 *   kind, cin, cout, taps, stride, order, residual, in_max, out_max, shift, adj_max, adj_shift, nnz.
 *
 * Chunk i of n (eval/load.c): AES-256-GCM of EVAL_SEAL_BYTES of the plaintext (the last one: what is
 * left), ciphertext || tag, in edged_chunk with object i, offset 0; key HKDF(model key, salt,
 * "edged package v1"), nonce le32(i) || 0^8, associated data "edged chunk" || SHA-256(manifest)
 * || le32(i) || le32(n).
 *
 * Plaintext (eval/tensors.c; SHA-256 = digest): 32 random bytes, then the layers' tensors,
 * little-endian, each zero-padded to a multiple of 8:
 *   INPUT     mult i32[v][3], bias i32[v][3]
 *   GRAPH     nnz x {u8 k, u8 v, u8 w, u8 0, i32 a}, weights i16[rows][depth], bias i32[v][cout], mult i32[cout]
 *   RESIDUAL  weights i16[cout][cin], bias i32[cout], mult i32[cout]
 *   TEMPORAL  weights i16[cout][taps][cin], bias i32[cout], mult i32[cout], res_mult i32
 *   POOL      empty i32[cin], mult i32
 *   FC        weights i16[labels][cin], bias i32[labels], mult i32[labels]
 */
#define EVAL_ENVELOPE_MAX 32768u
#define EVAL_SEAL_BYTES 4032u    /* plaintext of one package chunk */
#define EVAL_TAG_BYTES 16u

/**
 * struct eval_load_open - begin to load a package; drops the present model
 *
 * Its owner's signature has to permit the placement (PLACEMENT). Where agreements are in force, the key has to be
 * granted for one of them (KEY), and where products leave the enclave, one of those for which it was has to permit the
 * placement, too, and inputs not after its end (PLACEMENT). Where there is none, a granted key loads for placement
 * enclave alone (AGREEMENT). A version below the floor of the key's owner is AGREEMENT.
 * @slot:           key slot of kind KEY_MODEL
 * @placement:      enum eval_placement
 * @envelope_bytes: size of the signed manifest, sent next
 */
struct eval_load_open {
    uint32_t slot;
    uint32_t placement;
    uint32_t envelope_bytes;
    uint32_t reserved;
};
static_assert(sizeof(struct eval_load_open) == 4 * 4, "eval_load_open");

/**
 * struct eval_model - answer to EVAL_LOAD_COMMIT: public shapes
 * @load:         rises with every load since enclave start
 * @products:     products handed to the accelerator per clip, masked or inputs
 * @steps:        EVAL_STEP calls per clip
 * @window_bytes: shared memory that this model and placement need
 */
struct eval_model {
    uint64_t load;
    uint32_t placement;
    uint32_t products;
    uint32_t steps;
    uint32_t persons;
    uint32_t frames;
    uint32_t joints;
    uint32_t labels;
    uint32_t reserved;
    uint64_t window_bytes;
};
static_assert(sizeof(struct eval_model) == 8 + 8 * 4 + 8, "eval_model");

/**
 * struct eval_product - answer to EVAL_PRODUCT: one product's public shape
 *
 *   ybar[m][t'][v][r] = sum_{tap, c} wbar[r][tap][c] xbar[m][t'*stride + tap - pad][v][c]
 *
 * in Z mod 2^32, xbar = 0 outside its frames; then minus (U + pad) where the
 * invocation was prepared.
 * wbar (rows, taps, channels), xbar (persons, frames_in, joints, channels),
 * ybar and U + pad (persons, frames_out, joints, rows): little-endian words of
 * @element_bytes, 4. The offsets say where xbar and ybar lie in the window.
 */
struct eval_product {
    uint32_t step;
    uint32_t rows;
    uint32_t taps;
    uint32_t stride;
    uint32_t pad;
    uint32_t channels;
    uint32_t frames_in;
    uint32_t frames_out;
    uint32_t joints;
    uint32_t element_bytes;
    uint64_t x_offset;
    uint64_t y_offset;
};
static_assert(sizeof(struct eval_product) == 10 * 4 + 2 * 8, "eval_product");

/* EVAL_WEIGHTS_MAP and EVAL_PREPARE_MAP write at the window's first byte. */

/**
 * struct eval_session_open - bind one camera to an agreement. A camera of an
 * agreement has one session: opening it again replaces it, under a fresh key; its events go on.
 * Where the camera has none under this agreement yet, but under one that this may follow (struct
 * eval_succeed; the last of them), the events of that one move here: of a rule whose label has
 * a rule there that all who see it here saw, with the same status. Any other begins anew: an alert
 * told twice is better than an update of one never told.
 * @agreement: from EVAL_AGREEMENT; it names owner, data key and recipients. AGREEMENT: one above it was followed, or
 *             the data key's owner put a floor above it
 * @nonce:     the camera's
 */
struct eval_session_open {
    uint32_t agreement;
    uint32_t reserved;
    uint8_t camera[32];
    uint8_t nonce[32];
};
static_assert(sizeof(struct eval_session_open) == 4 + 4 + 32 + 32, "eval_session_open");

#define EVAL_SESSIONS_MAX 16u /* cameras of one node */

/**
 * struct eval_session - answer to EVAL_SESSION_OPEN
 *
 *   camera key  = HKDF(data key, salt = "", "edged camera v1" || camera)    (in the key application)
 *   session key = HKDF(camera key, salt = nonce || nonce', "edged session v1")
 *
 * Both are as long as the data key: 16 bytes (clips are sealed by AES-128-GCM) or 32 (AES-256-GCM).
 */
struct eval_session {
    uint32_t session;
    uint32_t reserved;
    uint8_t nonce[32];
};
static_assert(sizeof(struct eval_session) == 4 + 4 + 32, "eval_session");

/** struct eval_prepare_open - compute U + pad ahead, for so many persons (not in placement enclave) */
struct eval_prepare_open {
    uint32_t persons;
    uint32_t reserved;
};
static_assert(sizeof(struct eval_prepare_open) == 4 + 4, "eval_prepare_open");

#define EVAL_PREPARED_MAX 8u

/** struct eval_invocation - an invocation number, counted inside */
struct eval_invocation {
    uint64_t invocation;
};
static_assert(sizeof(struct eval_invocation) == 8, "eval_invocation");

#define EVAL_ATTEMPTS_MAX 3u /* of one sealed clip */

#define EVAL_CLIP_WINDOW 1u /* the bulk data of this clip goes by the window */

/**
 * struct eval_clip_open - announce a sealed clip
 * @session:    who sealed it; selects owner, camera and recipient
 * @flags:      EVAL_CLIP_WINDOW or 0
 * @number:     rises strictly within the session; it is the nonce of the seal
 * @invocation: a prepared one, or 0: U is computed on line
 * @bytes:      size of the sealed clip, tag included
 *
 * Without EVAL_CLIP_WINDOW: EVAL_CLIP_WRITE until all bytes are in, then
 * EVAL_CLIP_BEGIN. With it the sealed clip lies at the window's first byte and
 * the answer to EVAL_CLIP_OPEN is that of EVAL_CLIP_BEGIN.
 *
 * The same sealed clip (number and tag) may come again after a refusal or a
 * disconnect, at most twice; the third refusal emits the record `failed`.
 * Until an accepted clip has its record the session takes no other one: whatever
 * ended its evaluation (a refusal, UNAVAILABLE, a disconnect), the client sends it
 * again, or gives it up by EVAL_CLIP_ABORT; then its invocation, if any is left,
 * dies and it becomes `failed`.
 *
 * A clip is taken only where its agreement covers it: the model's owner, id, key,
 * version and labels, the placement, validity, rate (AGREEMENT, PLACEMENT, RATE), a
 * beacon within the limit (LOCKED), and room for its records (FULL). One that comes
 * again has its room, and counted already; all else is asked of it anew. So it is at EVAL_CLIP_BEGIN, but for the
 * room, which is reserved: a clip that was announced in time may come when that is over. Where somebody sees
 * skeletons the model's largest clip must fit the body (AGREEMENT), and x and y of this one are kept until its
 * evaluation ends; without memory for that it is refused before it counts (MEMORY).
 */
struct eval_clip_open {
    uint32_t session;
    uint32_t flags;
    uint64_t number;
    uint64_t invocation;
    uint32_t bytes;
    uint32_t reserved;
};
static_assert(sizeof(struct eval_clip_open) == 4 + 4 + 8 + 8 + 4 + 4, "eval_clip_open");

/**
 * struct edged_clip - head of a clip's plaintext; coordinates follow:
 * int16 [persons][frames][joints][3], value * 16384 (x, y, confidence)
 * @claimed_ns: the camera's own time, claimed by the node
 * @tracks:     one id per person, the rest 0
 * Associated data of the seal: "edged clip v1" || session le32 || number le64.
 */
struct edged_clip {
    uint32_t version; /* 1 */
    uint32_t persons;
    uint32_t frames;
    uint32_t joints;
    uint64_t claimed_ns;
    uint32_t tracks[8];
    uint8_t camera[32];
};
static_assert(sizeof(struct edged_clip) == 4 * 4 + 8 + 8 * 4 + 32, "edged_clip");

/**
 * struct eval_step - where the evaluation stands, and records
 * @step:         the step whose products are due; past the last one beside records.
 *                Of EVAL_AGREEMENT: the agreement's index
 * @record_bytes: bytes of the sealed records that follow, 0 while not done
 * @emission:     of the last record sealed so far
 * @records:      how many the request sealed, whether they follow or not; 0 while not done
 *
 * Due: read xbar of every product of the step, only then write their ybar, then
 * EVAL_STEP. In placement enclave nothing is read or written.
 * With EVAL_CLIP_WINDOW xbar lies in the window and ybar is taken from it.
 * An answer with status VERIFICATION carries this struct and the records too
 * when it was the last permitted attempt (the records `failed`), else nothing.
 *
 * Records that the request sealed follow one after the other, as many as fit, in order of
 * emission; the others are fetched by EVAL_RECORD. One with EDGED_BODY_SKELETONS never fits.
 */
struct eval_step {
    uint32_t step;
    uint32_t record_bytes;
    uint64_t emission;
    uint32_t records;
    uint32_t reserved;
};
static_assert(sizeof(struct eval_step) == 4 + 4 + 8 + 4 + 4, "eval_step");

/* ------------------------------------------------------------- agreement --- */

#define EVAL_AGREEMENTS_MAX 4u
#define EDGED_RECIPIENTS_MAX 4u /* of one agreement */
#define EVAL_RECIPIENTS_MAX 32u /* of one epoch: their sequences go on whichever agreements they are in */
#define EDGED_RULES_MAX 8u      /* of one agreement */
#define EDGED_LABEL_MAX 32u     /* bytes of a rule's label */

/**
 * struct eval_agreement - the agreement in force, and the slots of the keys that it
 * names; unused alert slots are 0. The signed agreement follows. Put again it gives the
 * same index and no record; else its records `epoch` begin every recipient's sequence.
 * One who is a recipient of several agreements has one sequence: seq rises over all of them.
 * One that another follows (EVAL_SUCCEED) is refused (AGREEMENT) until the epoch ends, and so is any of the same
 * owners with no higher number; where one of these is in force still, no session opens under it any more
 * (AGREEMENT). Further recipients are refused (MEMORY) where the epoch had EVAL_RECIPIENTS_MAX of them or so many of
 * other query data owners are remembered (struct edged_state), and one who was a recipient of another query data
 * owner's agreement in this epoch (RECIPIENT): each city names its own.
 *
 * Signed (eval/agreement.c): COSE_Sign = D8 62 84 40 A0 bstr(payload) 82 (83 43 A10127 A0 bstr64)x2,
 * Ed25519 of the model owner, then of the query data owner, over ["Signature", h'', h'A10127',
 * "edged agreement" as bstr, payload]. Its digest is SHA-256(payload).
 *
 * Refused as AGREEMENT, too, where its number is below the floors' of the model's, the data's or an alert key's
 * owner (struct key_material); EVAL_SESSION_OPEN asks anew for the data key's. The floors' times, and those that the
 * recipients' beacons told before, under other agreements and in other epochs too, are bounds below its time, which
 * go on with the enclave's clock: it ends by them (that it has not begun only its own beacons tell), and a beacon
 * that lags too far behind them is late. The model owner's least version counts where it is above the agreement's,
 * and for every package that is loaded.
 *
 * Payload: a map in deterministic CBOR, keys in this order; numbers unsigned:
 *   v 1, mo bstr32, qdo bstr32 (verification keys; those of the model and of the data and alert slots),
 *   body (bytes of a record's body: EDGED_BODY_SKELETONS where anybody sees skeletons, and nowhere else; else
 *   512 .. 3584, a multiple of 512), from (Unix seconds, < until),
 *   model [id text 1..64, least version u32, key id bstr16],
 *   rules (0..8, no label twice) [[label text 1..32, threshold 1..65536 (Q16), cool-down 0..86400 s,
 *          first minute 0..1439, end minute 0..1439]],
 *   until (Unix seconds, u32 like from), number u32, status (enum edged_message_status: ACTUAL or TEST),
 *   beacons [period 1..86400 s, limit period..2^31-1 s], data_key bstr16 (key id), placements 1..7 (bits),
 *   recipients (1..4, no rcpt twice) [[rcpt bstr16, alert key id bstr16, sees (EDGED_SEES_SCORES or 0),
 *          [per rule: 0, or EDGED_SEES_LABEL, with or without EDGED_SEES_SCORE and EDGED_SEES_SKELETON]]],
 *   score_bits 0..16 (fractional bits that a rounded score keeps), clips_per_hour 1..1000000 (saved up, an
 *   hour's at most; a second's where it was not in force since the application's start)
 * What is left of these clips, and of the beacons' limit, goes on while it is not in force, also in the next epoch. 32
 * agreements are remembered so; later ones, which take the places of those that others followed, begin with no clip
 * saved up and LOCKED.
 * A rule holds from the first minute of the (UTC) day up to the end minute, over midnight
 * where that is less, always where they are equal or while no beacon has told the time.
 */
struct eval_agreement {
    uint32_t model_slot;
    uint32_t data_slot;
    uint32_t alert_slots[4];
    uint32_t bytes;
    uint32_t reserved;
};
static_assert(sizeof(struct eval_agreement) == 2 * 4 + 4 * 4 + 2 * 4, "eval_agreement");

#define EDGED_SEES_LABEL 1u  /* of a rule: that it holds, and of whom */
#define EDGED_SEES_SCORE 2u  /* of a rule: its score, rounded */
#define EDGED_SEES_SKELETON 4u /* of a rule: the clip's skeletons, where it says ALERT or UPDATE */
#define EDGED_SEES_SCORES 1u /* of every clip: all logits and probabilities */

/* --------------------------------------------------------------- records --- */

/** enum edged_record_kind - in a header, and in the body beneath it */
enum edged_record_kind {
    EDGED_OBSERVATION = 0, /* a finished clip; the body alone tells whether it is ALERT */
    EDGED_ALERT = 1,       /* in bodies only: traffic shall not tell it */
    EDGED_HEARTBEAT = 2,
    EDGED_EPOCH = 3,
    EDGED_FAILED = 4,
    EDGED_CAMERA = 5, /* up to EVICTED: claimed by the node (EVAL_CLAIM) */
    EDGED_HEALTH = 6,
    EDGED_STATISTICS = 7,
    EDGED_EVICTED = 8,
    EDGED_SUCCESSION = 9
};

/**
 * struct edged_record - head of a sealed record (eval/record.c); its header
 * follows, in clear, associated data of the seal, then ciphertext || tag
 *
 * Header: map in deterministic CBOR: v 1, kid bstr16, seq, kind, node bstr16, rcpt bstr16,
 * salt bstr32, epoch bstr16. AES-GCM under HKDF(alert key, salt, "edged record v1" || rcpt ||
 * agreement digest), nonce le64(seq) || 0^4. All records of an agreement have one size:
 * header and plaintext together have EDGED_RECORD_HEADER_MAX + body bytes; the plaintext is one of the
 * structs below, what follows it, and zeros.
 */
struct edged_record {
    uint32_t header_bytes;
    uint32_t body_bytes; /* ciphertext with tag */
};
static_assert(sizeof(struct edged_record) == 4 + 4, "edged_record");

#define EDGED_RECORD_HEADER_MAX 192u
#define EDGED_BODY_MAX 3584u        /* a record fits a message */
#define EDGED_BODY_SKELETONS 49152u /* where skeletons are agreed: 300 frames of two persons of 18 joints, all else */
#define EDGED_BODY_VERSION 2u /* first word of every body; the second is its kind */

/** enum edged_message_status - CAP's words */
enum edged_message_status {
    EDGED_ACTUAL = 0,
    EDGED_EXERCISE = 1,
    EDGED_TEST = 2
};

#define EDGED_PAUSE_S 30u /* between two clips of a camera: a rule that holds after it began anew */

/** enum edged_message_type - CAP's words, of one rule and camera */
enum edged_message_type {
    EDGED_MESSAGE_NONE = 0,
    EDGED_MESSAGE_ALERT = 1,  /* the rule began to hold */
    EDGED_MESSAGE_UPDATE = 2, /* it still holds (EDGED_PAUSE_S), or again within its cool-down */
    EDGED_MESSAGE_CANCEL = 3  /* it has not held for its cool-down: the event is over */
};

/**
 * struct edged_scores - body of a finished (OBSERVATION, ALERT) or FAILED clip; @rules times
 * struct edged_alert follow, then, where the recipient sees all scores, int32
 * logits[labels] (Q16), uint32 probabilities[labels] (Q16). All scores are 0 in FAILED.
 * Then, where a rule whose skeletons the recipient sees says ALERT or UPDATE of a clip in which
 * somebody is, struct edged_skeleton and its coordinates; never in FAILED or an exercise.
 * What the recipient may not see is 0.
 */
struct edged_scores {
    uint32_t version;
    uint32_t kind;
    uint32_t status; /* enum edged_message_status */
    uint32_t sees;   /* EDGED_SEES_SCORES or 0 */
    uint32_t labels;
    uint32_t rules;
    uint32_t persons;
    uint32_t reserved;
    uint64_t number;     /* the clip's, in its session */
    uint64_t claimed_ns; /* claimed by the node */
    uint64_t time_ns;    /* city's time by the last beacon and the enclave's clock, 0: none yet */
    uint32_t tracks[8];
    uint8_t camera[32];
    uint8_t model[32]; /* SHA-256 of the signed manifest of the model of its last attempt */
};
static_assert(sizeof(struct edged_scores) == 8 * 4 + 3 * 8 + 8 * 4 + 32 + 32, "edged_scores");

/**
 * struct edged_alert - one rule of the agreement, in its order
 * @message: enum edged_message_type
 * @score:   Q16, rounded as agreed
 * @event:   number of the clip whose ALERT began it
 */
struct edged_alert {
    uint32_t message;
    uint32_t score;
    uint64_t event;
};
static_assert(sizeof(struct edged_alert) == 4 + 4 + 8, "edged_alert");

/**
 * struct edged_skeleton - the skeletons of the clip; int16 [persons][frames][joints][2] follow, x and y
 * as the clip had them (value * 16384); confidences are not told
 */
struct edged_skeleton {
    uint32_t persons;
    uint32_t frames;
    uint32_t joints;
    uint32_t reserved;
};
static_assert(sizeof(struct edged_skeleton) == 4 * 4, "edged_skeleton");

/**
 * struct edged_epoch - body of EPOCH, the first record of every recipient
 * @unclean:      1 where @previous, the epoch before this one, or one that had records for him since did not end by
 *                EVAL_CLOSE, or none is known
 * @counter:      epochs of this device, as far as its sealed state tells
 * @previous:     the last one of which a record of this recipient's was confirmed, whatever epochs lie between; where
 *                none is known the epoch before, all 0: none is known either
 * @previous_seq: his last record of it that was confirmed
 */
struct edged_epoch {
    uint32_t version;
    uint32_t kind;
    uint32_t unclean;
    uint32_t reserved;
    uint64_t counter;
    uint64_t previous_seq;
    uint8_t previous[16];
    uint8_t agreement[32];
};
static_assert(sizeof(struct edged_epoch) == 4 * 4 + 2 * 8 + 16 + 32, "edged_epoch");

/**
 * struct edged_heartbeat - body of HEARTBEAT; @cameras times struct edged_camera_count follow
 * @nonce:  the beacon's; @time_ns: likewise
 * @seq:    the highest of this recipient: this record's own
 * @config: digest of the node's zones and privacy masks, claimed by the node
 */
struct edged_heartbeat {
    uint32_t version;
    uint32_t kind;
    uint32_t cameras;
    uint32_t reserved;
    uint8_t nonce[16];
    uint64_t time_ns;
    uint64_t uptime_ns;
    uint64_t seq;
    uint64_t counter; /* of epochs */
    uint8_t config[32];
};
static_assert(sizeof(struct edged_heartbeat) == 4 * 4 + 16 + 4 * 8 + 32, "edged_heartbeat");

/** struct edged_camera_count - clips of one camera of the agreement in this epoch, or since EVAL_SESSION_CLOSE */
struct edged_camera_count {
    uint8_t camera[16]; /* first half of SHA-256(camera id) */
    uint32_t accepted;
    uint32_t failed;
};
static_assert(sizeof(struct edged_camera_count) == 16 + 4 + 4, "edged_camera_count");

/** struct edged_claim - body of CAMERA, HEALTH, STATISTICS, EVICTED; @bytes of the node's own follow */
struct edged_claim {
    uint32_t version;
    uint32_t kind;
    uint32_t bytes;
    uint32_t reserved;
};
static_assert(sizeof(struct edged_claim) == 4 * 4, "edged_claim");

#define EDGED_CLAIM_MAX 384u

/**
 * struct edged_succession - body of SUCCESSION, a recipient's last record under its agreement, which another one of
 * the same two owners follows
 * @number:    of the agreement that follows
 * @next_key:  the recipient's alert key there; all 0: it is none of its recipients
 * @successor: digest of the agreement that follows
 */
struct edged_succession {
    uint32_t version;
    uint32_t kind;
    uint32_t number;
    uint32_t reserved;
    uint8_t next_key[16];
    uint8_t successor[32];
};
static_assert(sizeof(struct edged_succession) == 4 * 4 + 16 + 32, "edged_succession");

/**
 * struct eval_succeed - one agreement follows another: same owners, higher number (else ARGUMENT), both in force
 * (ARGUMENT), no session left under the old one (ORDER), room for its last records (FULL)
 *
 * Each of its recipients gets SUCCESSION as his last record under it. Then it is over: sessions, exercises, claims and
 * another succession of it are refused (ARGUMENT), its beacons (KEY), and it itself (AGREEMENT). Its records are kept
 * as any others; once they are confirmed its place is free.
 */
struct eval_succeed {
    uint32_t agreement;
    uint32_t successor;
};
static_assert(sizeof(struct eval_succeed) == 4 + 4, "eval_succeed");

/**
 * struct eval_claim - have a statement of the node sealed for every recipient
 * @kind: EDGED_CAMERA .. EDGED_EVICTED
 */
struct eval_claim {
    uint32_t agreement;
    uint32_t kind;
    uint32_t bytes;
    uint32_t reserved;
};
static_assert(sizeof(struct eval_claim) == 4 * 4, "eval_claim");

/** struct eval_exercise - an ALERT of status EXERCISE for every recipient, as if the rule held */
struct eval_exercise {
    uint32_t agreement;
    uint32_t rule;
};
static_assert(sizeof(struct eval_exercise) == 4 + 4, "eval_exercise");

/**
 * struct edged_beacon - from a recipient; @time_ns rises strictly, over epochs too where EVAL_RESTORE told. One that
 * lags by more than the agreement's limit behind what earlier ones or floors told is answered, but tells no time and
 * unlocks nothing.
 *
 * tag = HMAC-SHA-256(HKDF(alert key, salt, "edged beacon v1" || rcpt || agreement digest), all before
 * the tag); the salt is that of the epoch's records, the key as long as the alert key.
 */
struct edged_beacon {
    uint32_t version; /* 1 */
    uint32_t reserved;
    uint8_t rcpt[16];
    uint64_t time_ns; /* Unix, below 2^63 */
    uint8_t nonce[16];
    uint8_t tag[32];
};
static_assert(sizeof(struct edged_beacon) == 2 * 4 + 16 + 8 + 16 + 32, "edged_beacon");

/** struct eval_beacon - hand a beacon in; the answer is its heartbeat. @config: see edged_heartbeat */
struct eval_beacon {
    struct edged_beacon beacon;
    uint8_t config[32];
};
static_assert(sizeof(struct eval_beacon) == 80 + 32, "eval_beacon");

/**
 * struct eval_record - records are counted as they are sealed, of all recipients. Answered is the first kept one from
 * @emission on, byte for byte (or none: record_bytes 0; @emission of the answer is then the last one's, else that
 * record's), as much of it as fits a message: its head tells how long it is.
 * @offset: of the first byte within the record; not 0 only where the record of just this @emission is kept and has
 *          that byte (else OBJECT)
 */
struct eval_record {
    uint64_t emission;
    uint32_t offset;
    uint32_t reserved;
};
static_assert(sizeof(struct eval_record) == 8 + 4 + 4, "eval_record");

/** struct eval_emission - all records up to this one are stored durably outside; the enclave forgets them */
struct eval_emission {
    uint64_t emission;
};
static_assert(sizeof(struct eval_emission) == 8, "eval_emission");

/* What waits for EVAL_CONFIRM, at most so many records and so many bytes of them; then clips are refused (FULL). The
 * bytes are those of a clip's records with skeletons for all recipients, and of two that answer beacons meanwhile. */
#define EVAL_KEPT_MAX 48u
#define EVAL_KEPT_BYTES \
    (6u * ((uint32_t)sizeof(struct edged_record) + EDGED_RECORD_HEADER_MAX + EDGED_BODY_SKELETONS + EVAL_TAG_BYTES))

/**
 * struct edged_state - what the next start must know, sealed to device and application
 *
 * AES-256-GCM under HKDF(device key "edged state v1", salt = epoch || 0^16, "edged state v1"), nonce
 * le64(count) || 0^4, associated data epoch || count. EVAL_CONFIRM and EVAL_CLOSE answer a new one; store the
 * last. EVAL_RESTORE gives it back, once, before the first agreement of a later epoch; without it
 * the new epoch knows none before. EVAL_CLOSE ends an epoch cleanly (nothing unfinished, nothing kept), and begins
 * the next: sessions and agreements are gone.
 *
 * Plaintext: u64 counter (of epochs), u64 closed (by EVAL_CLOSE), EVAL_RECIPIENTS_MAX of { rcpt 16, qdo 32, epoch 16,
 * u64 seq, u64 closed, u64 told_ns, u64 least_ns }, of nobody where seq and told_ns are 0: every recipient, as one of
 * that query data owner's; the last epoch of which a record of his was confirmed, the last such record, whether that
 * epoch was closed and none after it had records for him; the highest time of his beacons, and the earliest that it can
 * be by them when this is sealed. Where they are more, those of the newcomer's own query data owner who are none of the
 * epoch's recipients give way, who tell the earliest time first; where there is none the newcomer's agreement is
 * refused (MEMORY): nobody has the enclave forget what another city's recipients are owed.
 */
struct edged_state {
    uint8_t epoch[16];
    uint64_t count;
    uint8_t sealed[16 + 32 * 96 + 16];
};
static_assert(sizeof(struct edged_state) == 16 + 8 + 16 + EVAL_RECIPIENTS_MAX * 96 + 16, "edged_state");
static_assert(sizeof(struct edged_hdr) + sizeof(struct edged_state) <= EDGED_MESSAGE_BYTES, "one message");

#define EVAL_LABELS_MAX 400u
#define EVAL_PERSONS_MAX 8u
#define EVAL_JOINTS_MAX 64u
#define EVAL_FRAMES_MAX 4096u
#define EVAL_CHANNELS_MAX 1024u
#define EVAL_PARTITIONS_MAX 8u
#define EVAL_TAPS_MAX 15u
#define EVAL_STRIDE_MAX 4u
#define EVAL_LAYERS_MAX 64u
/* M * T * V: bounds every sum over positions (lib/field61.h, eval/layer.h). */
#define EVAL_POSITIONS_MAX 65536u

/* ----------------------------------------------------------------- key --- */

/** enum key_cmd - KEY_PORT (below 32) and KEY_EVAL_PORT (from 32) */
enum key_cmd {
    KEY_INFO = 2,        /* -               -> key_info */
    KEY_STATS = 4,       /* -               -> edged_memory */
    KEY_SLOT_PUT = 6,    /* key_slot_put    -> -    emulated class only */
    KEY_SLOT_CLEAR = 8,  /* eval_index      -> - , or key_state where a grant had filled it */
    KEY_IDENTITY_NEW = 10,  /* -             -> key_identity; draws two RSA keys: may take seconds */
    KEY_IDENTITY_OPEN = 12, /* key_identity  -> - */
    KEY_REQUEST = 14,       /* key_challenge -> a certificate request */
    KEY_ATTEST = 16,        /* nonce, KEY_NONCE_MIN .. _MAX bytes -> evidence */
    KEY_GRANT = 18,         /* a grant       -> key_state */
    KEY_STATE = 20,         /* -             -> key_state */
    KEY_RESTORE = 22,       /* key_state     -> - */
    KEY_COMMIT = 24,        /* key_commit    -> - */
    KEY_FLOOR = 26,         /* a floor       -> key_state */
    KEY_LIST = 28,          /* -             -> KEY_SLOTS of key_listed */
    KEY_HELLO = 32,      /* key_hello       -> key_hello */
    KEY_DERIVE = 34,     /* key_derive      -> key_sealed */
    KEY_CONFIRM = 36     /* key_confirm     -> - ; right after KEY_HELLO */
};

#define KEY_SLOTS 16u

/** enum key_kind - what a slot's key may be used for */
enum key_kind {
    KEY_EMPTY = 0,
    KEY_MODEL = 1, /* model owner: opens packages */
    KEY_DATA = 2,  /* query data owner: camera keys */
    KEY_ALERT = 3  /* query data owner: record keys */
};

#define KEY_FLAG_IDENTITY 4u /* beside EVAL_FLAG_EMULATED: an identity is open */
#define KEY_FLAG_STATE 8u    /* its grants are known: KEY_RESTORE comes too late */
#define KEY_FLAG_PENDING 16u /* a change waits for KEY_COMMIT */
#define KEY_FLAG_LOCKED 32u  /* no monotonic store, and of a granted slot no floor was taken since start */

/**
 * struct key_info - answer to KEY_INFO: slot kinds, never keys
 * @node:   derived from the device key: the node's name in every record
 * @device: as grants name it; all 0 where no identity is open
 */
struct key_info {
    uint32_t flags; /* EVAL_FLAG_EMULATED, KEY_FLAG_* */
    uint32_t slots;
    uint8_t node[16];
    uint8_t kinds[16];
    uint8_t device[32];
};
static_assert(sizeof(struct key_info) == 4 + 4 + 16 + KEY_SLOTS + 32, "key_info");

/**
 * struct key_listed - what a slot holds, all of it public, never a key; all 0 where it is empty
 * @kind:      enum key_kind
 * @flags:     KEY_LISTED_*
 * @agreement: the one that the key was granted for; all 0 where it was put in clear
 *
 * It tells the normal world which slots to name in EVAL_AGREEMENT. The evaluation application believes nothing of
 * it: whatever slots are named, KEY_DERIVE says whose keys they hold.
 */
#define KEY_LISTED_GRANTED 1u
#define KEY_LISTED_LOCKED 2u /* see KEY_FLAG_LOCKED */
struct key_listed {
    uint32_t kind;
    uint32_t flags;
    uint8_t key_id[16];
    uint8_t verifier[32];
    uint8_t agreement[32];
};
static_assert(sizeof(struct key_listed) == 2 * 4 + 16 + 32 + 32, "key_listed");
static_assert(sizeof(struct edged_hdr) + KEY_SLOTS * sizeof(struct key_listed) <= EDGED_MESSAGE_BYTES, "one message");

/**
 * struct key_slot_put - a key in clear: only an emulated key application, which
 * protects nothing, takes it; hardware takes grants alone
 * @key_bytes: 32; a data or an alert key may also have 16 (rest of @key zero)
 * @verifier:  Ed25519 key of its owner, not zero: what that party signs (packages, agreements)
 */
struct key_slot_put {
    uint32_t slot;
    uint32_t kind;
    uint32_t key_bytes;
    uint32_t reserved;
    uint8_t key_id[16];
    uint8_t key[32];
    uint8_t verifier[32];
};
static_assert(sizeof(struct key_slot_put) == 4 * 4 + 16 + 32 + 32, "key_slot_put");

/**
 * struct key_identity - the device's two RSA-2048 keys (key/identity.c), which the normal world keeps
 * @form:             KEY_IDENTITY_FORM
 * @security_version: of the application that sealed it; it and a newer one open it
 *
 * ATTEST signs evidence and requests; GRANT receives grants. Both are drawn by KEY_IDENTITY_NEW and
 * leave the application in this form alone. KEY_IDENTITY_OPEN gives it back, once after every start;
 * while an identity is open both are refused (ORDER).
 *
 * AES-256-GCM under HKDF(device key "edged identity v1", @salt, "edged identity v1" ||
 * le32(@security_version)), nonce 0, associated data all before @sealed. Plaintext: le32 size of ATTEST,
 * le32 size of GRANT, then each as DER PKCS#8 in KEY_PRIVATE_BYTES, zero-padded.
 */
#define KEY_IDENTITY_FORM 1u
#define KEY_PRIVATE_BYTES 1232u
struct key_identity {
    uint32_t form;
    uint32_t security_version;
    uint8_t salt[32];
    uint8_t sealed[2 * 4 + 2 * 1232 + 16];
};
static_assert(sizeof(struct key_identity) == 4 + 4 + 32 + 2 * 4 + 2 * KEY_PRIVATE_BYTES + 16, "key_identity");

/**
 * struct key_challenge - of the certification authority that is asked for a certificate
 *
 * The request (key/evidence.c; refused as UNAVAILABLE where the flash station left no secret) is
 * COSE_Mac0 = D1 84 43 A10105 A0 bstr(signed) bstr32, HMAC-SHA-256 under HKDF(station secret, salt = "",
 * "edged enrol v1"); signed = COSE_Sign1 = D2 84 44 A1013824 A0 bstr(payload) bstr256, PS256 (salt 32) by
 * ATTEST. External data of both: "edged certificate request 1". Payload: a map in deterministic CBOR, keys
 * in this order:
 *   form "edged certificate request 1", ueid bstr17 (01 || key_info.node), grant bstr (GRANT, DER
 *   SubjectPublicKeyInfo), nonce bstr32 (the challenge), attest bstr (ATTEST, likewise), emulated 0 or 1
 */
struct key_challenge {
    uint8_t challenge[32];
};
static_assert(sizeof(struct key_challenge) == 32, "key_challenge");

/*
 * Evidence (key/evidence.c) is a CBOR Web Token with the claims of RFC 9711: COSE_Sign1 as above, no external
 * data, over a map in deterministic CBOR, keys in this order:
 *   8 cnf {1: {1: 3, -1: modulus bstr256, -2: exponent bstr}} (GRANT), 10 nonce bstr, 256 ueid bstr17,
 *   262 oemboot bool, 263 dbgstat 0..4, 265 profile EDGED_EVIDENCE_PROFILE,
 *   266 submods {"key": application, "eval": application}, 268 bootseed bstr32 (drawn when the application
 *   starts), -65537 class "emulated" or "hardware"
 * application = {-65538: measurement bstr32, -65539: security version, -65540: uuid bstr16}; "eval" is there
 * once one has sent a right KEY_CONFIRM since start: the last one that did.
 */
#define EDGED_EVIDENCE_PROFILE "urn:uuid:8f1c1d0a-5b0e-4f0b-9d3e-2c60ad1f7e51"

#define KEY_NONCE_MIN 16u /* of a verifier who asks for evidence */
#define KEY_NONCE_MAX 64u

/*
 * A grant (key/grant.c): a key of one party for one slot of one device, under one agreement. COSE_Sign1 = D2 84 43
 * A10127 A0 bstr(payload) bstr64, Ed25519 by `verifier` over ["Signature1", h'A10127', "edged grant 1" as bstr,
 * payload]. Payload: an array in deterministic CBOR, [bstr(header), bstr256]; the second is RSA-OAEP (SHA-256, MGF1
 * with it, label = SHA-256(header)) to GRANT of 32 bytes, for kinds 2 and 3 also of 16. Header: a map, keys so:
 *   form "edged grant 1", kind (enum key_kind), slot, device bstr32 = SHA-256(GRANT as DER SubjectPublicKeyInfo),
 *   key_id bstr16, number 1 .. 2^32 - 1, verifier bstr32 (not zero), agreement bstr32 = SHA-256 of the agreement's
 *   payload (not zero)
 *
 * KEY_GRANT fills the slot. Refused as REPLAY: the number is none above those taken from this verifier for this slot;
 * KEY: somebody else's key is in it (KEY_SLOT_CLEAR first); FULL: of too many verifiers and slots a number is known
 * (only a new identity forgets them); GRANT: everything else that is wrong with it, one answer for all that depends on
 * a secret; ORDER: no identity is open, its state is not restored, or the last change is not committed.
 */
#define KEY_NUMBERS 40u /* of (verifier, slot): a state fits one message */

/*
 * A floor (key/floor.c): one party's fresh word on what of its grants it still stands by. COSE_Sign1 in the form of a
 * grant's, external data "edged floor 1" as bstr. Payload: a map in deterministic CBOR, keys in this order:
 *   form "edged floor 1", time (of the party's clock, Unix seconds, below 2^40), model (the least version of a
 *   package of its), start bstr32 (`bootseed` of the device's evidence), device bstr32 (as in a grant),
 *   grants (0..16, slots rising strictly) [[slot, number 1 .. 2^32 - 1]], verifier bstr32 (not zero),
 *   agreement (the least number of one of its); model and agreement: u32, each for all of this party's models or
 *   agreements on the device, whatever their ids
 *
 * KEY_FLOOR takes it. Refused as ORDER: like a grant; GRANT: malformed, of another device, not signed; REPLAY: of
 * another start of the application, or no later than the last one of this verifier that this start took, and not the
 * same: it may vouch for what that one withdrew or left out; KEY: no slot holds a grant of the verifier; FULL:
 * floors of too many verifiers are known. Then, of this verifier's grants:
 *   the known least agreement, least model and time rise to those of the floor, where they are less;
 *   the number known for a listed slot rises to the listed one less 1, and a grant below the listed number is wiped:
 *   it was withdrawn, or the state is an old one, and that number may be granted still, none before it, nor where the
 *   slot never held one;
 *   a listed slot whose grant is left is vouched for until the application ends, a slot that is not listed no more.
 * A grant that fills a slot is not vouched for. Where there is no monotonic store, KEY_DERIVE of a granted slot that
 * nobody vouches for is LOCKED: so neither an old state nor an old grant nor a floor of an earlier start is of use.
 */
#define KEY_FLOORS 8u /* verifiers */
#define KEY_FLOOR_TIME_MAX ((1ull << 40) - 1)

/**
 * struct key_state - the granted slots, and which grants were taken, sealed; the normal world keeps it
 * @form:             KEY_STATE_FORM
 * @security_version: of the application that sealed it; it and a newer one open it
 * @counter:          of changes to the granted slots of this device
 *
 * KEY_GRANT, KEY_FLOOR, KEY_SLOT_CLEAR of a granted slot and KEY_STATE answer it. A change is in force at once. It
 * lasts once the normal world has stored the answer durably and then sent KEY_COMMIT, which raises the monotonic store
 * to it; until then no further change is taken (ORDER), and KEY_STATE answers the same state again. KEY_RESTORE gives
 * the last one back, after KEY_IDENTITY_OPEN of the identity that it is of and before any slot is filled.
 *
 * Every state names itself and the one that it follows by 32 random bytes, and the store holds counter and name of
 * the last one committed. Restored is that one, or one that follows it, which is committed by that: at any loss of
 * power the last file that was durable opens. Any other is STATE: older, or a branch that was left uncommitted.
 * Where the store was ever raised, an identity that was opened takes no grant before its state is restored; one that
 * KEY_IDENTITY_NEW just drew begins without, for no grant can have been for it: KEY_STATE and KEY_COMMIT then end
 * the states of any identity before. Without a store nothing tells an old state from the last: granted keys are
 * there, but KEY_DERIVE refuses them (LOCKED) until floors of their owners come.
 *
 * Sealed as key_identity is, label "edged key state v1". Plaintext: name bstr32, the one before bstr32, device
 * (as in a grant) bstr32, the slots { u32 kind, u32 key_bytes, key_id 16, key 32, verifier 32, agreement 32 } (all 0
 * where none was granted), KEY_NUMBERS of { u32 number, u32 slot, verifier 32 } (number 0: free), KEY_FLOORS of
 * { verifier 32 (all 0: free), u32 agreement, u32 model, u64 time_s }.
 */
#define KEY_STATE_FORM 1u
struct key_state {
    uint32_t form;
    uint32_t security_version;
    uint8_t salt[32];
    uint64_t counter;
    uint8_t sealed[3 * 32 + 16 * 120 + 40 * 40 + 8 * 48 + 16];
};
static_assert(sizeof(struct key_state) ==
                  4 + 4 + 32 + 8 + 3 * 32 + KEY_SLOTS * 120 + KEY_NUMBERS * 40 + KEY_FLOORS * 48 + 16,
              "key_state");
static_assert(sizeof(struct edged_hdr) + sizeof(struct key_state) <= EDGED_MESSAGE_BYTES, "one message");

/** struct key_commit - the state of this @counter is stored durably. ARGUMENT: it is not the last one */
struct key_commit {
    uint64_t counter;
};
static_assert(sizeof(struct key_commit) == 8, "key_commit");

/**
 * struct key_hello - opens the session between the two applications
 * @nonce, @public_key: fresh; X25519
 * @measurement:        SHA-256 of the application's image
 * @security_version:   its EDGED_SECURITY_VERSION; each end refuses one below its own: they are released together
 * @signature:          the release's, RSA-2048, PS256, over "edged measurement v1 com.edged.key" (or .eval),
 *                      @security_version, @measurement; zero with @signature_bytes 0 where the build has no
 *                      release key (accepted by such a build on an emulated port only)
 *
 *   link key = HKDF(X25519 || link secret, salt = nonce_eval || nonce_key, "edged link v1" || SHA-256(both hellos))
 *   link secret: what the platform gives to these two applications alone
 */
struct key_hello {
    uint8_t nonce[32];
    uint8_t public_key[32];
    uint8_t measurement[32];
    uint32_t signature_bytes;
    uint32_t security_version;
    uint8_t signature[384];
};
static_assert(sizeof(struct key_hello) == 3 * 32 + 2 * 4 + 384, "key_hello");

/**
 * struct key_confirm - the evaluation application has the link key, and so the link's secret; before it no key is
 * derived (ORDER), and evidence does not name it. A wrong one closes the link (KEY).
 * @tag: HMAC-SHA-256(link key, "edged link confirmed v1")
 */
struct key_confirm {
    uint8_t tag[32];
};
static_assert(sizeof(struct key_confirm) == 32, "key_confirm");

/** enum key_purpose - the only derivations; each fits one kind of slot */
enum key_purpose {
    KEY_FOR_PACKAGE = 1, /* KEY_MODEL: HKDF(key, salt, "edged package v1") */
    KEY_FOR_CAMERA = 2,  /* KEY_DATA:  HKDF(key, salt, "edged camera v1" || context) */
    KEY_FOR_RECORD = 3,  /* KEY_ALERT: HKDF(key, salt, "edged record v1" || context) */
    KEY_FOR_BEACON = 4,  /* KEY_ALERT: HKDF(key, salt, "edged beacon v1" || context) */
    KEY_OF_MODEL = 5,    /* KEY_MODEL: no key, but id and verifier */
    KEY_OF_DATA = 6      /* KEY_DATA: likewise */
};

/** struct key_derive - ask for a derived key; the slot's key itself stays */
struct key_derive {
    uint32_t slot;
    uint32_t purpose;
    uint32_t context_bytes;
    uint32_t reserved;
    uint8_t salt[32];
    uint8_t context[64];
};
static_assert(sizeof(struct key_derive) == 4 * 4 + 32 + 64, "key_derive");

/**
 * struct key_material - plaintext of the answer
 * @agreement: digest of the only one that the key may be used under; all 0, of a slot that KEY_SLOT_PUT filled: any
 * @least_agreement, @least_model, @time_s: by the floors of its verifier; 0 where there was none. The time goes on from
 *             floors that this start took: by the whole seconds passed since less a 1024th; others' is as they said
 */
struct key_material {
    uint32_t key_bytes;
    uint32_t reserved;
    uint8_t key_id[16];
    uint8_t key[32];
    uint8_t verifier[32];
    uint8_t agreement[32];
    uint8_t node[16];
    uint32_t least_agreement;
    uint32_t least_model;
    uint64_t time_s;
};
static_assert(sizeof(struct key_material) == 4 + 4 + 16 + 32 + 32 + 32 + 16 + 4 + 4 + 8, "key_material");

/**
 * struct key_sealed - answer to KEY_DERIVE: AES-256-GCM under the link key
 * @counter: nonce, rises from 1 within the session; associated data is the
 *           request's body, so that an answer fits one question only
 */
struct key_sealed {
    uint64_t counter;
    uint8_t sealed[152 + 16];
};
static_assert(sizeof(struct key_sealed) == 8 + sizeof(struct key_material) + 16, "key_sealed");

#endif
