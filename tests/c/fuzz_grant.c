/*
 * fuzz_grant.c - grants, floors and the state of the key application against a model of them: which grants and floors
 * are taken, which states open after a start, what is locked, and that nothing else changes anything. Operations are
 * told by enum operation; the first byte of an input: bit 0 no monotonic store. An input of RAW or RAW_FLOOR is read
 * as it stands: what is taken has one form only.
 */
#include "bytes.h"
#include "cbor.h"
#include "crypto.h"
#include "fuzz_input.h"
#include "floor.h"
#include "grant.h"
#include "granting.h"
#include "heap_stub.h"
#include "key.h"
#include "key_ask.h"
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
    FLOOR = 8,   /* u8 party, u8 what is wrong, u8 agreement, u8 model, u8 time, u16 slots, u8 each number */
    RAW_FLOOR = 9, /* like RAW */
    OPERATIONS = 10
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
    uint32_t floors; /* how many parties have one */
    struct {
        bool known;
        uint32_t agreement, model;
        uint64_t time_s;
    } least[PARTIES + 1];
};

static struct key_app *key;
static uint8_t answer[EDGED_MESSAGE_BYTES], identity[sizeof(struct key_identity)], device[32], bootseed[32];
static bool vouched[KEY_SLOTS];
static struct {
    uint64_t time_s;
    uint8_t bytes[GRANT_MAX];
    size_t size; /* 0: none */
} told[PARTIES + 1]; /* each party's last floor since start */
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
    return key_ask(key, NULL, cmd, body, size, answer);
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

/* Whose each slot is, and what for; the parties' keys are all of the byte 0x6b. */
static void judge_list(void) {
    static const uint8_t key[16] = {0x6b, 0x6b, 0x6b, 0x6b, 0x6b, 0x6b, 0x6b, 0x6b,
                                    0x6b, 0x6b, 0x6b, 0x6b, 0x6b, 0x6b, 0x6b, 0x6b};
    struct key_listed l[KEY_SLOTS];

    CHECK(send(KEY_LIST, NULL, 0) == EDGED_OK, "list");
    memcpy(l, answer + sizeof(struct edged_hdr), sizeof(l));
    for (uint32_t s = 0; s < KEY_SLOTS; s++) {
        const bool granted = known && now.kind[s] != 0;
        const uint8_t party = granted ? now.party[s] : put_party[s];
        CHECK(l[s].kind == (granted ? now.kind[s] : put_kind[s]), "kind of slot %u", s);
        CHECK(l[s].flags == (granted ? KEY_LISTED_GRANTED : 0u) +
                                (granted && stub.no_counter && !vouched[s] ? KEY_LISTED_LOCKED : 0u),
              "flags of slot %u", s);
        CHECK((l[s].kind == 0) == is_zero(l[s].verifier, 32) && (l[s].kind == 0 || l[s].verifier[0] == party),
              "the owner of slot %u", s);
        CHECK(granted == !is_zero(l[s].agreement, 32), "the agreement of slot %u", s);
    }
    for (size_t at = 0; at + sizeof(key) <= sizeof(l); at++)
        CHECK(memcmp((const uint8_t *)l + at, key, sizeof(key)) != 0, "a key is listed");
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
    bool locked = false;
    for (uint32_t s = 0; s < KEY_SLOTS; s++)
        locked = locked || (known && now.kind[s] != 0 && stub.no_counter && !vouched[s]);
    CHECK(((i.flags & KEY_FLAG_LOCKED) != 0) == locked, "locked");
    for (uint32_t s = 0; s < KEY_SLOTS; s++)
        CHECK(i.kinds[s] == (known && now.kind[s] != 0 ? now.kind[s] : put_kind[s]), "slot %u", s);
    judge_list();
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
    if (m->another_label || (m->key_bytes != 32 && !(m->key_bytes == 16 && m->kind != KEY_MODEL)))
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
        vouched[m.slot] = false;
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

static void judge_grant(const uint8_t *bytes, size_t size) {
    uint8_t again[GRANT_MAX], enveloped[GRANT_MAX + 128];
    struct grant g;
    const enum edged_status status = grant_read(&g, bytes, size);

    CHECK(status == EDGED_OK || status == EDGED_ERR_GRANT, "status %u", status);
    if (status != EDGED_OK)
        return;
    const size_t all = granting_envelop(again, encode(&g, again), enveloped, sizeof(enveloped));
    CHECK(all == size && memcmp(enveloped, bytes, size - 64) == 0, "there is one form only, and it is all read");
    CHECK(g.kind >= KEY_MODEL && g.kind <= KEY_ALERT && g.slot < KEY_SLOTS && g.number != 0 &&
              !is_zero(g.verifier, 32) && !is_zero(g.agreement, 32),
          "ranges");
}

static void judge_floor(const uint8_t *bytes, size_t size) {
    uint8_t again[GRANT_MAX];
    struct spoken s = {0};
    struct floor f;
    const enum edged_status status = floor_read(&f, bytes, size);

    CHECK(status == EDGED_OK || status == EDGED_ERR_GRANT, "status %u", status);
    if (status != EDGED_OK)
        return;
    s.time_s = f.time_s;
    s.model = f.model;
    s.agreement = f.agreement;
    s.party = f.verifier[0];
    s.count = f.count;
    for (uint32_t i = 0; i < f.count; i++) {
        CHECK(f.grants[i].slot < KEY_SLOTS && f.grants[i].number != 0 &&
                  (i == 0 || f.grants[i].slot > f.grants[i - 1].slot),
              "slots rise");
        s.grants[i].slot = f.grants[i].slot;
        s.grants[i].number = f.grants[i].number;
    }
    memcpy(s.start, f.start, sizeof(s.start));
    memcpy(s.device, f.device, sizeof(s.device));
    CHECK(f.count <= KEY_SLOTS && f.time_s <= KEY_FLOOR_TIME_MAX && !is_zero(f.verifier, 32), "ranges");
    if (is_zero(f.verifier + 1, 31))
        CHECK(granting_speak(&s, again) == size && memcmp(again, bytes, size - 64) == 0,
              "there is one form only, and it is all read");
}

static void raw(struct fuzz_input *in, void (*judge_bytes)(const uint8_t *bytes, size_t size)) {
    uint8_t content[GRANT_MAX], whole[GRANT_MAX + 128];
    const uint16_t want = fuzz_short(in);
    const size_t n = fuzz_bytes(in, content, want / 2, sizeof(content));
    size_t size = n;

    end_faults();
    memcpy(whole, content, n);
    if (want % 2 == 0)
        size = granting_envelop(content, n, whole, sizeof(whole));
    uint8_t *copy = malloc(size + (size == 0));
    CHECK(copy != NULL, "copy");
    memcpy(copy, whole, size);
    judge_bytes(copy, size);
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
    if (happened(send(KEY_SLOT_CLEAR, &i, sizeof(i)), pending ? EDGED_ERR_ORDER : EDGED_OK)) {
        vouched[i.index] = false;
        changed(&to);
    }
}

static enum edged_status model_floor(const struct spoken *f, const uint8_t *bytes, size_t size,
                                     enum edged_status wrong, struct world *to, bool vouch[KEY_SLOTS]) {
    const enum edged_status status = model_know();
    bool holds_any = false;

    if (status != EDGED_OK)
        return status;
    if (pending)
        return EDGED_ERR_ORDER;
    if (wrong != EDGED_OK)
        return wrong;
    const bool same = size == told[f->party].size && memcmp(bytes, told[f->party].bytes, size) == 0;
    if (told[f->party].size != 0 && !same && f->time_s <= told[f->party].time_s)
        return EDGED_ERR_REPLAY;
    *to = now;
    for (uint32_t s = 0; s < KEY_SLOTS; s++) {
        const bool mine = now.kind[s] != 0 && now.party[s] == f->party;
        holds_any = holds_any || mine;
        vouch[s] = vouched[s] && !mine;
    }
    if (!holds_any)
        return EDGED_ERR_KEY;
    if (!now.least[f->party].known && now.floors == KEY_FLOORS)
        return EDGED_ERR_FULL;
    to->floors += !now.least[f->party].known;
    to->least[f->party].known = true;
    if (to->least[f->party].agreement < f->agreement)
        to->least[f->party].agreement = f->agreement;
    if (to->least[f->party].model < f->model)
        to->least[f->party].model = f->model;
    if (to->least[f->party].time_s < f->time_s)
        to->least[f->party].time_s = f->time_s;
    for (uint32_t i = 0; i < f->count; i++) {
        const uint32_t s = (uint32_t)f->grants[i].slot, n = (uint32_t)f->grants[i].number;
        uint32_t *number = &to->number[f->party][s];
        const bool mine = now.kind[s] != 0 && now.party[s] == f->party;
        vouch[s] = mine ? *number >= n : vouch[s];
        if (mine && *number < n)
            to->kind[s] = to->party[s] = 0;
        if (*number >= n - 1)
            continue;
        if (*number == 0 && to->numbers == KEY_NUMBERS)
            continue; /* nor will a grant have room */
        to->numbers += *number == 0;
        *number = n - 1;
    }
    return EDGED_OK;
}

static void take_floor(struct fuzz_input *in) {
    struct spoken f = {.party = (uint8_t)(fuzz_byte(in) % (PARTIES + 1))};
    const uint8_t what = fuzz_byte(in);
    enum edged_status wrong = f.party == 0 ? EDGED_ERR_GRANT : EDGED_OK;
    bool vouch[KEY_SLOTS] = {false};
    struct world to;
    uint8_t bytes[GRANT_MAX];

    f.agreement = fuzz_byte(in);
    f.model = fuzz_byte(in);
    f.time_s = fuzz_byte(in);
    const uint32_t slots = fuzz_short(in);
    for (uint32_t s = 0; s < KEY_SLOTS; s++)
        if ((slots >> s & 1) != 0) {
            f.grants[f.count].slot = s;
            f.grants[f.count++].number = 1u + fuzz_byte(in);
        }
    memcpy(f.device, device, sizeof(f.device));
    memcpy(f.start, bootseed, sizeof(f.start));
    granting_signed = what != 255;
    if (what == 254 && f.count > 1)
        f.grants[1].slot = f.grants[0].slot;
    if (what == 253)
        f.grants[f.count++] = f.grants[0]; /* 17, or not rising, or of number 0 */
    if (what == 252 && f.count != 0)
        f.grants[0].number = 1ull << 32;
    if (what == 251)
        f.time_s = KEY_FLOOR_TIME_MAX + 1;
    if (what == 250)
        f.time_s = KEY_FLOOR_TIME_MAX, f.model = f.agreement = UINT32_MAX;
    if (what == 249 && f.count != 0)
        f.grants[0].number = UINT32_MAX;
    if (what == 255 || (what == 254 && f.count > 1) || what == 253 || (what == 252 && f.count != 0) || what == 251)
        wrong = EDGED_ERR_GRANT;
    if (what == 248) {
        f.device[what % 32] ^= 1;
        wrong = EDGED_ERR_GRANT;
    }
    if (what == 247 && wrong == EDGED_OK) {
        f.start[what % 32] ^= 1;
        wrong = EDGED_ERR_REPLAY;
    }
    const size_t size = granting_speak(&f, bytes);
    const enum edged_status right = model_floor(&f, bytes, size, wrong, &to, vouch);
    if (happened(send(KEY_FLOOR, bytes, size), right)) {
        memcpy(vouched, vouch, sizeof(vouched));
        told[f.party].time_s = f.time_s;
        told[f.party].size = size;
        memcpy(told[f.party].bytes, bytes, size);
        changed(&to);
    }
    granting_signed = true;
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
    key = granting_start(bootseed);
    memset(vouched, 0, sizeof(vouched));
    memset(&now, 0, sizeof(now));
    memset(put_kind, 0, sizeof(put_kind));
    memset(put_party, 0, sizeof(put_party));
    memset(told, 0, sizeof(told));
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
            raw(&in, judge_grant);
            break;
        case RAW_FLOOR:
            raw(&in, judge_floor);
            break;
        case FLOOR:
            take_floor(&in);
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
