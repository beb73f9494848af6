/*
 * fuzz_link.c - KEY_EVAL_PORT: a list of operations on one channel. What a derivation
 * answers opens under the link's key, has the slot's kind, and a counter that rises.
 */
#include "bytes.h"
#include "crypto.h"
#include "fuzz_input.h"
#include "key.h"
#include "link.h"
#include "port_stub.h"
#include "vector.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    LINK_RAW = 0,
    LINK_FRAMED = 1,
    LINK_HELLO = 2,
    LINK_DERIVE = 3,
    LINK_CLOSE = 4,
    LINK_CONFIRM = 5,
    LINK_OPERATIONS = 6
};

static struct key_app *key;
static struct key_link channel;
static uint8_t answer[EDGED_MESSAGE_BYTES];
static uint8_t link_secret[32]; /* as the evaluation application would compute it */
static uint64_t counter;

static enum edged_status send(const void *message, size_t size) {
    uint8_t *copy = malloc(size + (size == 0));
    struct edged_hdr h;

    CHECK(copy != NULL, "copy");
    memcpy(copy, message, size);
    const size_t n = key_eval_message(key, &channel, copy, size, answer);
    free(copy);
    CHECK(n >= sizeof(h) && n <= sizeof(answer), "%zu bytes", n);
    memcpy(&h, answer, sizeof(h));
    CHECK(h.version == EDGED_WIRE_VERSION && (h.cmd & 1) != 0 && h.reserved == 0 && h.len == n - sizeof(h) &&
              h.status <= EDGED_ERR_STATE && (h.status == EDGED_OK || h.len == 0),
          "answer");
    return (enum edged_status)h.status;
}

/* An honest hello, then one byte of it flipped where the input says so. */
static void hello(struct fuzz_input *in) {
    struct {
        struct edged_hdr h;
        struct key_hello b;
    } m = {.h = {.version = EDGED_WIRE_VERSION, .cmd = KEY_HELLO, .len = sizeof(m.b)}};
    struct key_hello theirs;
    uint8_t private_key[32];
    const size_t at = fuzz_short(in);
    const uint8_t flip = fuzz_byte(in);

    CHECK(link_hello(&m.b, private_key) == 0, "hello");
    ((uint8_t *)&m.b)[at % sizeof(m.b)] ^= flip;
    const enum edged_status status = send(&m, sizeof(m));
    CHECK(channel.open == (status == EDGED_OK), "a refused hello closes the link");
    if (status != EDGED_OK)
        return;
    memcpy(&theirs, answer + sizeof(m.h), sizeof(theirs));
    CHECK(link_key(private_key, &theirs, &m.b, &theirs, link_secret) == 0, "link key");
    counter = 0;
    if (at % sizeof(m.b) < 32 || at % sizeof(m.b) >= 64 || flip == 0)
        CHECK(memcmp(link_secret, channel.key, 32) == 0, "both ends have one key");
    else
        memcpy(link_secret, channel.key, 32); /* another public key than ours went over */
}

/* The right tag, then one byte of it flipped where the input says so. */
static void confirm(struct fuzz_input *in) {
    struct {
        struct edged_hdr h;
        struct key_confirm b;
    } m = {.h = {.version = EDGED_WIRE_VERSION, .cmd = KEY_CONFIRM, .len = sizeof(m.b)}};
    const size_t at = fuzz_byte(in);
    const uint8_t flip = fuzz_byte(in);
    const bool due = channel.open && !channel.confirmed;

    CHECK(link_tag(link_secret, m.b.tag) == 0, "tag");
    m.b.tag[at % sizeof(m.b.tag)] ^= flip;
    const enum edged_status status = send(&m, sizeof(m));
    CHECK(status == (!due ? EDGED_ERR_ORDER : flip != 0 ? EDGED_ERR_KEY : EDGED_OK), "by the right tag alone");
    if (due)
        CHECK(channel.open == (flip == 0) && channel.confirmed == (flip == 0), "a wrong one closes the link");
}

/* Slot n holds kind n; each purpose fits one kind, and two of them tell no key. */
static void judge_material(const struct key_derive *ask, const struct key_material *m) {
    static const uint8_t none[32];
    static const char *const labels[] = {"", "edged package v1", "edged camera v1", "edged record v1",
                                         "edged beacon v1"};
    static const uint32_t kinds[] = {0, KEY_MODEL, KEY_DATA, KEY_ALERT, KEY_ALERT, KEY_MODEL, KEY_DATA};
    uint8_t key[32] = {0}, right[32] = {0}, info[16 + 64];
    const bool told = ask->purpose <= KEY_FOR_BEACON;
    const uint32_t size = ask->slot == KEY_ALERT ? 16 : 32;

    CHECK(ask->purpose >= 1 && ask->purpose <= KEY_OF_DATA && kinds[ask->purpose] == ask->slot, "purpose %u of slot %u",
          ask->purpose, ask->slot);
    CHECK((ask->context_bytes != 0) == (told && ask->slot != KEY_MODEL), "context");
    CHECK(m->reserved == 0 && m->least_agreement == 0 && m->least_model == 0 && m->time_s == 0, "of no floor");
    CHECK(m->key_bytes == (told ? size : 0) && m->verifier[0] == ask->slot &&
              memcmp(m->verifier + 1, none, 31) == 0 && memcmp(m->agreement, none, 32) == 0 &&
              m->key_id[0] == ask->slot,
          "purpose %u: whose key it is", ask->purpose);
    if (told) {
        const size_t label = strlen(labels[ask->purpose]);
        memset(key, (int)ask->slot, size);
        memcpy(info, labels[ask->purpose], label);
        memcpy(info + label, ask->context, ask->context_bytes);
        CHECK(crypto_hkdf_sha256(key, size, ask->salt, 32, info, label + ask->context_bytes, right, size) == 0, "HKDF");
    }
    CHECK(memcmp(m->key, right, 32) == 0, "the derived key, or none");
}

static void derive(struct fuzz_input *in) {
    struct {
        struct edged_hdr h;
        struct key_derive b;
    } m = {.h = {.version = EDGED_WIRE_VERSION, .cmd = KEY_DERIVE, .len = sizeof(m.b)}};
    struct key_sealed sealed;
    struct key_material material;
    uint8_t nonce[12] = {0};

    m.b.slot = fuzz_byte(in) % 5u;
    m.b.purpose = fuzz_byte(in) % 8u;
    m.b.context_bytes = fuzz_byte(in) % 66u;
    m.b.reserved = fuzz_byte(in) / 240u;
    (void)fuzz_bytes(in, m.b.context, m.b.context_bytes, sizeof(m.b.context));
    (void)fuzz_bytes(in, m.b.salt, sizeof(m.b.salt), sizeof(m.b.salt));
    const bool confirmed = channel.confirmed;
    const enum edged_status status = send(&m, sizeof(m));
    CHECK(confirmed || status == EDGED_ERR_ORDER || status == EDGED_ERR_RESERVED, "no link, no key");
    if (status != EDGED_OK)
        return;
    memcpy(&sealed, answer + sizeof(m.h), sizeof(sealed));
    CHECK(sealed.counter == ++counter, "the counter rises by one");
    store_le64(nonce, sealed.counter);
    CHECK(crypto_gcm_open(link_secret, 32, nonce, (const uint8_t *)&m.b, sizeof(m.b), sealed.sealed,
                          sizeof(material), (uint8_t *)&material) == 0,
          "the answer opens");
    judge_material(&m.b, &material);
}

static void put_slots(void) {
    for (uint32_t kind = KEY_MODEL; kind <= KEY_ALERT; kind++) { /* slot n holds kind n */
        struct {
            struct edged_hdr h;
            struct key_slot_put p;
        } m = {.h = {.version = EDGED_WIRE_VERSION, .cmd = KEY_SLOT_PUT, .len = sizeof(m.p)},
               .p = {.slot = kind, .kind = kind, .key_bytes = kind == KEY_ALERT ? 16 : 32}};
        memset(m.p.key, (int)kind, m.p.key_bytes);
        m.p.key_id[0] = m.p.verifier[0] = (uint8_t)kind;
        CHECK(key_message(key, (const uint8_t *)&m, sizeof(m), answer) == sizeof(m.h), "slot");
        memcpy(&m.h, answer, sizeof(m.h));
        CHECK(m.h.status == EDGED_OK, "slot");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_input in = {.data = data, .left = size};
    uint8_t message[EDGED_MESSAGE_BYTES];

    stub_reset(FUZZ_SEED);
    memset(&channel, 0, sizeof(channel));
    key = key_create(stub_key_uuid);
    CHECK(key != NULL, "key application");
    put_slots();
    for (uint32_t budget = 24; in.left != 0 && budget != 0; budget--) {
        const uint32_t operation = fuzz_byte(&in) % LINK_OPERATIONS;
        if (operation == LINK_HELLO) {
            hello(&in);
        } else if (operation == LINK_DERIVE) {
            derive(&in);
        } else if (operation == LINK_CONFIRM) {
            confirm(&in);
        } else if (operation == LINK_CLOSE) {
            key_link_close(&channel);
        } else {
            const size_t head = operation == LINK_RAW ? 0 : sizeof(struct edged_hdr);
            const uint8_t cmd = fuzz_byte(&in);
            const size_t want = fuzz_short(&in);
            const size_t n = fuzz_bytes(&in, message + head, want, sizeof(message) - head);
            const struct edged_hdr h = {.version = EDGED_WIRE_VERSION, .cmd = cmd % 40, .len = (uint32_t)n};
            if (head != 0)
                memcpy(message, &h, sizeof(h));
            const bool was_open = channel.open;
            (void)send(message, head + n);
            counter = channel.counter;
            if (channel.open && (!was_open || h.cmd == KEY_HELLO || head == 0))
                memcpy(link_secret, channel.key, 32);
        }
    }
    key_link_close(&channel);
    key_destroy(key);
    return 0;
}
