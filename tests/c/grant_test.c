/*
 * grant_test.c - grants and the key application's state in one process, where the store, the heap, the random
 * source and the seal can be made to fail, or there is no store.
 *
 *   grant_test     of tests/test_grant.py
 */
#include <string.h>

#include "bytes.h"
#include "crypto.h"
#include "crypto_stub.h"
#include "granting.h"
#include "heap_stub.h"
#include "key.h"
#include "keylink.h"
#include "port_stub.h"
#include "rsa_stub.h"
#include "vector.h"

static struct key_app *key;
static uint8_t answer[EDGED_MESSAGE_BYTES], identity[sizeof(struct key_identity)];
static struct key_info info;

static enum edged_status ask(uint16_t cmd, const void *body, size_t size) {
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

static void look(void) {
    CHECK(ask(KEY_INFO, NULL, 0) == EDGED_OK, "info");
    memcpy(&info, answer + sizeof(struct edged_hdr), sizeof(info));
}

static void restart(bool with_identity) {
    key_destroy(key);
    key = stub.key = key_create(stub_key_uuid);
    stub.reconnect = true;
    CHECK(key != NULL && (!with_identity || ask(KEY_IDENTITY_OPEN, identity, sizeof(identity)) == EDGED_OK), "start");
}

static enum edged_status grant(uint32_t slot, uint32_t kind, uint64_t number) {
    struct made m = {.kind = kind, .slot = slot, .number = number, .party = 1, .agreement = 9, .key_bytes = 32};
    uint8_t bytes[GRANT_MAX];

    memcpy(m.device, info.device, sizeof(m.device));
    return ask(KEY_GRANT, bytes, granting_make(&m, bytes));
}

static enum edged_status clear(uint32_t slot) {
    const struct eval_index i = {.index = slot};
    return ask(KEY_SLOT_CLEAR, &i, sizeof(i));
}

/* Of the state that was answered last. */
static enum edged_status commit(void) {
    struct key_state s;

    CHECK(ask(KEY_STATE, NULL, 0) == EDGED_OK, "state");
    memcpy(&s, answer + sizeof(struct edged_hdr), sizeof(s));
    const struct key_commit c = {.counter = s.counter};
    return ask(KEY_COMMIT, &c, sizeof(c));
}

static void begin(bool no_counter) {
    stub_reset(1);
    stub.no_counter = no_counter;
    restart(false);
    CHECK(ask(KEY_IDENTITY_NEW, NULL, 0) == EDGED_OK, "drawn");
    memcpy(identity, answer + sizeof(struct edged_hdr), sizeof(identity));
    CHECK(commit() == EDGED_OK, "its first state");
    look();
}

static enum edged_status take(void) {
    return grant(3, KEY_MODEL, 2);
}

static enum edged_status wipe(void) {
    return clear(2);
}

static enum edged_status show(void) {
    return ask(KEY_STATE, NULL, 0);
}

/* What fails leaves everything as it was, and succeeds at the next try. */
static void test_faults(const char *name, enum edged_status (*act)(void), uint32_t *left, enum edged_status expected) {
    for (uint32_t n = 1; n < 8; n++) {
        struct key_info before;
        begin(false);
        CHECK(grant(2, KEY_DATA, 1) == EDGED_OK && commit() == EDGED_OK, "a slot");
        look();
        before = info;
        *left = n;
        const enum edged_status status = act();
        if (*left != 0) { /* it asks for no n-th */
            CHECK(status == EDGED_OK && n > 1, "%s: %u", name, status);
            *left = 0;
            return;
        }
        CHECK(status == expected, "%s fails with %u", name, status);
        look();
        CHECK(memcmp(&before, &info, sizeof(info)) == 0, "%s: nothing changed", name);
        CHECK(act() == EDGED_OK, "%s: the next try", name);
    }
}

static void test_a_store_that_fails(void) {
    uint8_t state[sizeof(struct key_state)];

    begin(false);
    const struct port_counter before = stub.counter;
    CHECK(take() == EDGED_OK && ask(KEY_STATE, NULL, 0) == EDGED_OK, "taken");
    memcpy(state, answer + sizeof(struct edged_hdr), sizeof(state));
    stub.counter_left = 1;
    CHECK(commit() == EDGED_ERR_UNAVAILABLE && memcmp(&before, &stub.counter, sizeof(before)) == 0, "not raised");
    CHECK(grant(4, KEY_MODEL, 1) == EDGED_ERR_ORDER, "still pending");
    for (uint32_t n = 1; n <= 2; n++) { /* read, then raised */
        restart(true);
        stub.counter_left = n;
        CHECK(ask(KEY_RESTORE, state, sizeof(state)) == EDGED_ERR_UNAVAILABLE && stub.counter_left == 0, "%u", n);
        look();
        CHECK((info.flags & KEY_FLAG_STATE) == 0 && info.kinds[3] == KEY_EMPTY, "nothing is there");
    }
    CHECK(ask(KEY_RESTORE, state, sizeof(state)) == EDGED_OK && stub.counter.value == before.value + 1, "at last");
    restart(true);
    stub.counter_left = 1;
    CHECK(grant(4, KEY_MODEL, 1) == EDGED_ERR_UNAVAILABLE && ask(KEY_STATE, NULL, 0) == EDGED_ERR_ORDER, "unknown");
    heap_left = 1;
    CHECK(ask(KEY_RESTORE, state, sizeof(state)) == EDGED_ERR_MEMORY && heap_left == 0, "no memory");
    CHECK(ask(KEY_RESTORE, state, sizeof(state)) == EDGED_OK, "then it is");
}

/* Every byte of a sealed state is bound. */
static void test_every_byte(void) {
    uint8_t state[sizeof(struct key_state)];

    begin(false);
    CHECK(take() == EDGED_OK, "taken");
    memcpy(state, answer + sizeof(struct edged_hdr), sizeof(state));
    restart(true);
    for (size_t i = 0; i < sizeof(state); i++) {
        state[i] ^= (uint8_t)(1u << i % 8);
        CHECK(ask(KEY_RESTORE, state, sizeof(state)) == EDGED_ERR_STATE, "byte %zu", i);
        state[i] ^= (uint8_t)(1u << i % 8);
    }
    CHECK(ask(KEY_RESTORE, state, sizeof(state)) == EDGED_OK, "as it was");
}

/* As the evaluation application asks, with its own session. */
static enum edged_status derive(struct keylink *link, uint32_t slot, struct key_material *m) {
    static const uint8_t salt[32];

    return keylink_derive(link, slot, KEY_FOR_PACKAGE, salt, NULL, 0, m);
}

static void test_without_a_store_granted_keys_are_locked(void) {
    struct keylink link = {0};
    struct key_material m;
    struct key_slot_put p = {.slot = 5, .kind = KEY_MODEL, .key_bytes = 32, .verifier = {1}};
    uint8_t state[sizeof(struct key_state)], agreement[32] = {9};

    begin(false);
    CHECK(take() == EDGED_OK && derive(&link, 3, &m) == EDGED_ERR_UNAVAILABLE, "not before its state is kept");
    CHECK(commit() == EDGED_OK && derive(&link, 3, &m) == EDGED_OK && keylink_fits(&m, agreement), "with one: used");
    agreement[31] = 1;
    CHECK(!keylink_fits(&m, agreement), "another agreement");
    begin(true);
    CHECK(take() == EDGED_OK && commit() == EDGED_OK, "taken");
    CHECK(ask(KEY_STATE, NULL, 0) == EDGED_OK, "state");
    memcpy(state, answer + sizeof(struct edged_hdr), sizeof(state));
    for (uint32_t start = 0; start < 2; start++) {
        look();
        CHECK((info.flags & KEY_FLAG_LOCKED) != 0 && info.kinds[3] == KEY_MODEL, "it is there, and said to be locked");
        CHECK(derive(&link, 3, &m) == EDGED_ERR_LOCKED, "locked");
        restart(true);
        CHECK(ask(KEY_RESTORE, state, sizeof(state)) == EDGED_OK, "any state opens");
    }
    CHECK(ask(KEY_SLOT_PUT, &p, sizeof(p)) == EDGED_OK && derive(&link, 5, &m) == EDGED_OK, "one in clear is not");
    CHECK(keylink_fits(&m, agreement), "it fits any agreement");
}

int main(void) {
    CHECK(crypto_init() == 0, "crypto library");
    test_faults("grant", take, &heap_left, EDGED_ERR_MEMORY);
    test_faults("grant", take, &stub.random_left, EDGED_ERR_UNAVAILABLE);
    test_faults("grant", take, &seal_left, EDGED_ERR_UNAVAILABLE);
    test_faults("clear", wipe, &heap_left, EDGED_ERR_MEMORY);
    test_faults("clear", wipe, &stub.random_left, EDGED_ERR_UNAVAILABLE);
    test_faults("clear", wipe, &seal_left, EDGED_ERR_UNAVAILABLE);
    test_faults("state", show, &stub.random_left, EDGED_ERR_UNAVAILABLE);
    test_faults("state", show, &seal_left, EDGED_ERR_UNAVAILABLE);
    test_a_store_that_fails();
    test_every_byte();
    test_without_a_store_granted_keys_are_locked();
    key_destroy(key);
    return 0;
}
