/*
 * fuzz_grant.c - grants and the state of the key application against a model of them: which grants are taken,
 * which states open after a start, and that nothing else changes anything. Operations are told by enum operation;
 * the first byte of an input: bit 0 no monotonic store. An input of RAW is also read as it stands: what is
 * taken has one form only.
 */
#include "bytes.h"
#include "cbor.h"
#include "crypto.h"
#include "fuzz_input.h"
#include "grant.h"
#include "granting.h"
#include "heap_stub.h"
#include "key.h"
#include "port_stub.h"
#include "rsa_stub.h"
#include "vector.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum operation {
    GRANT = 0,   /* u8 slot, u8 kind, u8 party, u8 number, u8 what is wrong */
    RAW = 1,     /* u16 size, payload or (odd) the whole */
    CLEAR = 2,   /* u8 slot */
    STATE = 3,
    COMMIT = 4,  /* u8: 0 the counter of the last change, else another */
    RESTART = 5, /* u8: 255 a new identity, 254 none, else the state to be restored; u16 at, u8 bits to flip */
    FAULT = 6,   /* u8 which, u8 when: for the next operation */
    PUT = 7,     /* u8 slot, u8 party */
    OPERATIONS = 8
};

enum { KEPT = 24, PARTIES = 64 };

/** struct world - what ought to be; a party is its number from 1 on */
struct world {
    uint32_t name; /* 0: before any change */
    uint32_t previous;
    uint64_t counter;
    uint8_t kind[KEY_SLOTS];
    uint8_t party[KEY_SLOTS];
    uint32_t numbers; /* how many (party, slot) there are */
    uint32_t number[PARTIES + 1][KEY_SLOTS];
};

static struct key_app *key;
static uint8_t answer[EDGED_MESSAGE_BYTES], identity[sizeof(struct key_identity)], device[32];
static struct world now;
static uint8_t put_kind[KEY_SLOTS], put_party[KEY_SLOTS];
static bool open, fresh, known, unnamed, pending, faulty;
static uint32_t names;
static struct {
    uint32_t name;
    uint64_t counter;
} committed;

static struct kept {
    struct world world;
    uint8_t sealed[sizeof(struct key_state)];
} kept[KEPT];
static uint32_t kept_count;

static enum edged_status send(uint16_t cmd, const void *body, size_t size) {
    uint8_t message[EDGED_MESSAGE_BYTES];
    struct edged_hdr h = {.version = EDGED_WIRE_VERSION, .cmd = cmd, .len = (uint32_t)size};

    memcpy(message, &h, sizeof(h));
    if (size != 0)
        memcpy(message + sizeof(h), body, size);
    const size_t n = key_message(key, message, sizeof(h) + size, answer);
    memcpy(&h, answer, sizeof(h));
    CHECK(h.len == n - sizeof(h) && (h.status == EDGED_OK || h.len == 0), "answer");
    return (enum edged_status)h.status;
}

static void end_faults(void) {
    stub.random_left = stub.counter_left = 0;
    heap_left = 0;
    faulty = false;
}

/* What the model says of `know` (key/state.c). */
static enum edged_status model_know(void) {
    if (!open)
        return EDGED_ERR_ORDER;
    if (known)
        return EDGED_OK;
    if (!stub.no_counter && committed.counter != 0 && !fresh)
        return EDGED_ERR_ORDER;
    memset(&now, 0, sizeof(now));
    now.name = stub.no_counter ? 0 : committed.name;
    now.counter = stub.no_counter ? 0 : committed.counter;
    known = true;
    unnamed = fresh;
    return EDGED_OK;
}

static void keep(void) {
    struct kept *k = &kept[kept_count++ % KEPT];

    k->world = now;
    memcpy(k->sealed, answer + sizeof(struct edged_hdr), sizeof(k->sealed));
    struct key_state s;
    memcpy(&s, k->sealed, sizeof(s));
    CHECK(s.form == KEY_STATE_FORM && s.counter == now.counter, "the counter in clear");
}

static void changed(const struct world *to) {
    now = *to;
    now.previous = now.name;
    now.name = ++names;
    now.counter++;
    pending = true;
    unnamed = false;
    keep();
}

/* True where what happened is what the model says; else a fault did, and nothing changed. */
static bool happened(enum edged_status status, enum edged_status right) {
    if (faulty && status != right) {
        CHECK(status == EDGED_ERR_UNAVAILABLE || status == EDGED_ERR_MEMORY, "a fault: %u, not %u", status, right);
        return false;
    }
    CHECK(status == right, "status %u, not %u", status, right);
    return status == EDGED_OK;
}

static void judge(void) {
    struct key_info i;
    const bool faulted = faulty;

    end_faults();
    CHECK(send(KEY_INFO, NULL, 0) == EDGED_OK, "info");
    memcpy(&i, answer + sizeof(struct edged_hdr), sizeof(i));
    CHECK(((i.flags & KEY_FLAG_IDENTITY) != 0) == open && ((i.flags & KEY_FLAG_PENDING) != 0) == pending, "flags");
    if (faulted && known && (i.flags & KEY_FLAG_STATE) == 0)
        known = unnamed = false; /* the store could not be asked */
    CHECK(((i.flags & KEY_FLAG_STATE) != 0) == known, "known");
    CHECK(((i.flags & KEY_FLAG_LOCKED) != 0) == (known && stub.no_counter), "locked");
    for (uint32_t s = 0; s < KEY_SLOTS; s++)
        CHECK(i.kinds[s] == (known && now.kind[s] != 0 ? now.kind[s] : put_kind[s]), "slot %u", s);
    if (open)
        memcpy(device, i.device, sizeof(device));
    CHECK(stub.counter.value == committed.counter, "the store");
}

static enum edged_status model_grant(const struct made *m, bool wrong, struct world *to) {
    const enum edged_status status = model_know();

    if (status != EDGED_OK)
        return status;
    if (pending)
        return EDGED_ERR_ORDER;
    if (wrong || m->kind < KEY_MODEL || m->kind > KEY_ALERT || m->slot >= KEY_SLOTS || m->number == 0 ||
        m->number > UINT32_MAX || m->party == 0 || m->agreement == 0)
        return EDGED_ERR_GRANT;
    *to = now;
    if ((put_kind[m->slot] != 0 && put_party[m->slot] != m->party) ||
        (now.kind[m->slot] != 0 && now.party[m->slot] != m->party))
        return EDGED_ERR_KEY;
    uint32_t *number = &to->number[m->party][m->slot];
    if (*number == 0 && to->numbers == KEY_NUMBERS)
        return EDGED_ERR_FULL;
    if (m->number <= *number)
        return EDGED_ERR_REPLAY;
    if (m->another_label || (m->key_bytes != 32 && !(m->key_bytes == 16 && m->kind == KEY_ALERT)))
        return EDGED_ERR_GRANT;
    to->numbers += *number == 0;
    *number = (uint32_t)m->number;
    to->kind[m->slot] = (uint8_t)m->kind;
    to->party[m->slot] = m->party;
    return EDGED_OK;
}

static void take_grant(struct fuzz_input *in) {
    static const uint64_t odd_numbers[] = {0, UINT32_MAX, 1ull << 32};
    struct made m = {.slot = fuzz_byte(in) % 17u};
    struct world to;
    uint8_t bytes[GRANT_MAX];

    m.kind = fuzz_byte(in) % 5u;
    m.party = fuzz_byte(in) % (PARTIES + 1);
    m.number = fuzz_byte(in);
    m.agreement = 1;
    m.key = 0x6b;
    memcpy(m.device, device, sizeof(m.device));
    const uint8_t wrong = fuzz_byte(in);
    m.key_bytes = (uint8_t)(wrong % 4 == 1 ? 16 : wrong % 4 == 2 ? wrong / 4 : 32);
    if (m.key_bytes > CRYPTO_OAEP_MAX)
        m.key_bytes = CRYPTO_OAEP_MAX;
    m.another_label = wrong == 255;
    m.device[31] ^= wrong == 251;
    m.agreement = wrong == 247 ? 0 : 1;
    granting_signed = wrong != 243;
    if (wrong >= 228 && wrong < 240 && wrong % 4 == 3)
        m.number = odd_numbers[(wrong - 228) / 4];
    const size_t n = granting_make(&m, bytes);
    const enum edged_status right = model_grant(&m, wrong == 251 || wrong == 243, &to);
    if (happened(send(KEY_GRANT, bytes, n), right)) {
        put_kind[m.slot] = put_party[m.slot] = 0;
        changed(&to);
    }
    granting_signed = true;
}

/* The payload that says what was read. */
static size_t encode(const struct grant *g, uint8_t *out) {
    uint8_t header[HEADER_MAX + 64];
    struct cbor_writer h = {.data = header, .size = sizeof(header)}, p = {.data = out, .size = GRANT_MAX};

    cbor_write_map(&h, 8);
    cbor_write_text(&h, "form");
    cbor_write_text(&h, "edged grant 1");
    cbor_write_text(&h, "kind");
    cbor_write_uint(&h, g->kind);
    cbor_write_text(&h, "slot");
    cbor_write_uint(&h, g->slot);
    cbor_write_text(&h, "device");
    cbor_write_bytes(&h, g->device, 32);
    cbor_write_text(&h, "key_id");
    cbor_write_bytes(&h, g->key_id, 16);
    cbor_write_text(&h, "number");
    cbor_write_uint(&h, g->number);
    cbor_write_text(&h, "verifier");
    cbor_write_bytes(&h, g->verifier, 32);
    cbor_write_text(&h, "agreement");
    cbor_write_bytes(&h, g->agreement, 32);
    cbor_write_array(&p, 2);
    cbor_write_bytes(&p, header, h.at);
    cbor_write_bytes(&p, g->wrapped, CRYPTO_RSA_BYTES);
    CHECK(!h.failed && !p.failed, "what was read fits");
    return p.at;
}

static void raw(struct fuzz_input *in) {
    uint8_t content[GRANT_MAX], whole[GRANT_MAX + 128], again[GRANT_MAX], enveloped[GRANT_MAX + 128];
    const uint16_t want = fuzz_short(in);
    const size_t n = fuzz_bytes(in, content, want / 2, sizeof(content));
    struct grant g;
    size_t size = n;

    end_faults();
    memcpy(whole, content, n);
    if (want % 2 == 0)
        size = granting_envelop(content, n, whole, sizeof(whole));
    uint8_t *copy = malloc(size + (size == 0));
    CHECK(copy != NULL, "copy");
    memcpy(copy, whole, size);
    const enum edged_status status = grant_read(&g, copy, size);
    CHECK(status == EDGED_OK || status == EDGED_ERR_GRANT, "status %u", status);
    if (status == EDGED_OK) {
        const size_t all = granting_envelop(again, encode(&g, again), enveloped, sizeof(enveloped));
        CHECK(all == size && memcmp(enveloped, copy, size - 64) == 0, "there is one form only, and it is all read");
        CHECK(g.kind >= KEY_MODEL && g.kind <= KEY_ALERT && g.slot < KEY_SLOTS && g.number != 0 &&
                  !is_zero(g.verifier, 32) && !is_zero(g.agreement, 32),
              "ranges");
    }
    free(copy);
}

static void clear(struct fuzz_input *in) {
    const struct eval_index i = {.index = fuzz_byte(in) % 17u};

    if (i.index >= KEY_SLOTS || !known || now.kind[i.index] == 0) {
        const bool done = happened(send(KEY_SLOT_CLEAR, &i, sizeof(i)),
                                   i.index < KEY_SLOTS ? EDGED_OK : EDGED_ERR_ARGUMENT);
        if (done)
            put_kind[i.index] = put_party[i.index] = 0;
        return;
    }
    struct world to = now;
    to.kind[i.index] = to.party[i.index] = 0;
    if (happened(send(KEY_SLOT_CLEAR, &i, sizeof(i)), pending ? EDGED_ERR_ORDER : EDGED_OK))
        changed(&to);
}

static void state(void) {
    const enum edged_status right = model_know();

    if (!happened(send(KEY_STATE, NULL, 0), right))
        return;
    if (unnamed)
        changed(&now);
    else
        keep();
}

static void commit(struct fuzz_input *in) {
    const uint8_t other = fuzz_byte(in);
    const struct key_commit c = {.counter = now.counter + (known ? other : 0)};
    const enum edged_status right = !known ? EDGED_ERR_ORDER : other != 0 ? EDGED_ERR_ARGUMENT : EDGED_OK;

    if (!happened(send(KEY_COMMIT, &c, sizeof(c)), right))
        return;
    if (pending && !stub.no_counter) {
        committed.name = now.name;
        committed.counter = now.counter;
    }
    pending = false;
}

static void restore(const struct kept *k, size_t at, uint8_t flip) {
    uint8_t sealed[sizeof(k->sealed)];
    const struct world *w = &k->world;
    const bool last = w->counter == committed.counter && w->name == committed.name;
    const bool next = w->counter == committed.counter + 1 && w->previous == committed.name;
    const enum edged_status right =
        flip == 0 && (stub.no_counter || last || next) ? EDGED_OK : EDGED_ERR_STATE;

    memcpy(sealed, k->sealed, sizeof(sealed));
    sealed[at % sizeof(sealed)] ^= flip;
    if (!happened(send(KEY_RESTORE, sealed, sizeof(sealed)), right))
        return;
    now = *w;
    known = true;
    if (!stub.no_counter) {
        committed.name = w->name;
        committed.counter = w->counter;
    }
}

static void start(void) {
    key = key_create(stub_key_uuid);
    CHECK(key != NULL, "key application");
    memset(&now, 0, sizeof(now));
    memset(put_kind, 0, sizeof(put_kind));
    memset(put_party, 0, sizeof(put_party));
    open = fresh = known = unnamed = pending = false;
}

static void restart(struct fuzz_input *in) {
    const uint8_t which = fuzz_byte(in);
    const size_t at = fuzz_short(in);
    const uint8_t flip = fuzz_byte(in);

    end_faults();
    key_destroy(key);
    start();
    if (which == 254)
        return;
    open = true;
    if (which == 255) {
        CHECK(send(KEY_IDENTITY_NEW, NULL, 0) == EDGED_OK, "drawn");
        memcpy(identity, answer + sizeof(struct edged_hdr), sizeof(identity));
        fresh = true;
        if (kept_count != 0)
            CHECK(send(KEY_RESTORE, kept[0].sealed, sizeof(kept[0].sealed)) == EDGED_ERR_ORDER, "none can be its");
        return;
    }
    CHECK(send(KEY_IDENTITY_OPEN, identity, sizeof(identity)) == EDGED_OK, "opened");
    const uint32_t count = kept_count < KEPT ? kept_count : KEPT;
    if (count != 0 && which % 8 != 7)
        restore(&kept[which / 8 % count], at, flip);
}

static void put(struct fuzz_input *in) {
    struct key_slot_put p = {.slot = fuzz_byte(in) % KEY_SLOTS, .kind = KEY_DATA, .key_bytes = 32};

    p.verifier[0] = (uint8_t)(1 + fuzz_byte(in) % PARTIES);
    const enum edged_status right = known && now.kind[p.slot] != 0 ? EDGED_ERR_KEY : EDGED_OK;
    if (happened(send(KEY_SLOT_PUT, &p, sizeof(p)), right)) {
        put_kind[p.slot] = KEY_DATA;
        put_party[p.slot] = p.verifier[0];
        if (kept_count != 0)
            CHECK(send(KEY_RESTORE, kept[0].sealed, sizeof(kept[0].sealed)) == EDGED_ERR_ORDER, "a slot is filled");
    }
}

static void fault(struct fuzz_input *in) {
    const uint32_t which = fuzz_byte(in) % 3u, when = 1 + fuzz_byte(in) % 4u;

    if (which == 0)
        stub.random_left = when;
    else if (which == 1)
        stub.counter_left = when;
    else
        heap_left = when;
    faulty = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_input in = {.data = data, .left = size};

    stub_reset(FUZZ_SEED);
    stub.no_counter = (fuzz_byte(&in) & 1) != 0;
    end_faults();
    memset(&committed, 0, sizeof(committed));
    names = kept_count = 0;
    start();
    CHECK(send(KEY_IDENTITY_NEW, NULL, 0) == EDGED_OK, "drawn");
    memcpy(identity, answer + sizeof(struct edged_hdr), sizeof(identity));
    open = fresh = true;
    judge();
    for (uint32_t budget = 200; in.left != 0 && budget != 0; budget--) {
        switch (fuzz_byte(&in) % OPERATIONS) {
        case GRANT:
            take_grant(&in);
            break;
        case RAW:
            raw(&in);
            break;
        case CLEAR:
            clear(&in);
            break;
        case STATE:
            state();
            break;
        case COMMIT:
            commit(&in);
            break;
        case RESTART:
            restart(&in);
            break;
        case FAULT:
            fault(&in);
            continue; /* of the next */
        default:
            put(&in);
        }
        judge();
    }
    end_faults();
    key_destroy(key);
    return 0;
}
