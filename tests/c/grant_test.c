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
#include "key_ask.h"
#include "keylink.h"
#include "port_stub.h"
#include "rsa_stub.h"
#include "vector.h"

static struct key_app *key;
static uint8_t bootseed[32];
static uint8_t answer[EDGED_MESSAGE_BYTES], identity[sizeof(struct key_identity)];
static struct key_info info;

static enum edged_status ask(uint16_t cmd, const void *body, size_t size) {
    return key_ask(key, NULL, cmd, body, size, answer);
}

static void look(void) {
    CHECK(ask(KEY_INFO, NULL, 0) == EDGED_OK, "info");
    memcpy(&info, answer + sizeof(struct edged_hdr), sizeof(info));
}

static void restart(bool with_identity) {
    key_destroy(key);
    key = stub.key = granting_start(bootseed);
    stub.reconnect = true;
    CHECK((!with_identity || ask(KEY_IDENTITY_OPEN, identity, sizeof(identity)) == EDGED_OK), "start");
}

static enum edged_status grant(uint32_t slot, uint32_t kind, uint64_t number) {
    struct made m = {.kind = kind, .slot = slot, .number = number, .party = 1, .agreement = 9, .key_bytes = 32};
    uint8_t bytes[GRANT_MAX];

    memcpy(m.device, info.device, sizeof(m.device));
    return ask(KEY_GRANT, bytes, granting_make(&m, bytes));
}

/* Party 1's, for one slot. */
static struct spoken floor_of(uint32_t slot, uint64_t number) {
    struct spoken f = {.party = 1, .count = 1, .grants = {{slot, number}}, .time_s = 9, .model = 2, .agreement = 3};

    memcpy(f.start, bootseed, sizeof(f.start));
    memcpy(f.device, info.device, sizeof(f.device));
    return f;
}

static enum edged_status speak(const struct spoken *f) {
    uint8_t bytes[GRANT_MAX];

    return ask(KEY_FLOOR, bytes, granting_speak(f, bytes));
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

static struct key_listed listed(uint32_t slot) {
    struct key_listed l[KEY_SLOTS];

    CHECK(ask(KEY_LIST, NULL, 0) == EDGED_OK, "list");
    memcpy(l, answer + sizeof(struct edged_hdr), sizeof(l));
    return l[slot];
}

static enum edged_status take(void) {
    return grant(3, KEY_MODEL, 2);
}

static enum edged_status wipe(void) {
    return clear(2);
}

static enum edged_status vouch(void) {
    const struct spoken f = floor_of(2, 1);
    return speak(&f);
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
    const struct spoken of_first_start = floor_of(3, 2);
    for (uint32_t start = 0; start < 3; start++) {
        look();
        CHECK((info.flags & KEY_FLAG_LOCKED) != 0 && info.kinds[3] == KEY_MODEL, "it is there, and said to be locked");
        CHECK(derive(&link, 3, &m) == EDGED_ERR_LOCKED, "locked");
        CHECK(listed(3).flags == (KEY_LISTED_GRANTED | KEY_LISTED_LOCKED), "and listed so");
        if (start != 0)
            CHECK(speak(&of_first_start) == EDGED_ERR_REPLAY, "a floor of another start");
        const struct spoken f = floor_of(3, 2);
        CHECK(speak(&f) == EDGED_OK && derive(&link, 3, &m) == EDGED_ERR_UNAVAILABLE, "not before its state is kept");
        look();
        CHECK((info.flags & KEY_FLAG_LOCKED) == 0 && listed(3).flags == KEY_LISTED_GRANTED, "vouched for");
        CHECK(commit() == EDGED_OK && derive(&link, 3, &m) == EDGED_OK, "used");
        CHECK(m.least_agreement == 3 && m.least_model == 2 && m.time_s == 9, "what its floor says goes with it");
        CHECK(speak(&of_first_start) == (start == 0 ? EDGED_OK : EDGED_ERR_REPLAY) && commit() == EDGED_OK, "again");
        restart(true);
        CHECK(ask(KEY_RESTORE, state, sizeof(state)) == EDGED_OK, "any state opens");
    }
    CHECK(grant(3, KEY_MODEL, 3) == EDGED_OK && commit() == EDGED_OK, "a later grant");
    const struct spoken third = floor_of(3, 3), none = {0};
    CHECK(speak(&third) == EDGED_OK && commit() == EDGED_OK && derive(&link, 3, &m) == EDGED_OK, "vouched for");
    CHECK(grant(3, KEY_MODEL, 4) == EDGED_OK && commit() == EDGED_OK && derive(&link, 3, &m) == EDGED_ERR_LOCKED,
          "a grant handed in later is not");
    CHECK(speak(&none) == EDGED_ERR_GRANT && speak(&third) == EDGED_OK && commit() == EDGED_OK, "a later number");
    CHECK(derive(&link, 3, &m) == EDGED_OK, "is vouched for, too");
    restart(true);
    CHECK(ask(KEY_RESTORE, state, sizeof(state)) == EDGED_OK && derive(&link, 3, &m) == EDGED_ERR_LOCKED, "old state");
    const struct spoken present = floor_of(3, 4);
    CHECK(speak(&present) == EDGED_OK && commit() == EDGED_OK && derive(&link, 3, &m) == EDGED_ERR_KEY, "wiped");
    look();
    CHECK(info.kinds[3] == KEY_EMPTY && (info.flags & KEY_FLAG_LOCKED) == 0, "wiped");
    CHECK(grant(3, KEY_MODEL, 3) == EDGED_ERR_REPLAY && grant(3, KEY_MODEL, 4) == EDGED_OK && commit() == EDGED_OK,
          "the number that its owner stands by");
    CHECK(derive(&link, 3, &m) == EDGED_ERR_LOCKED && speak(&present) == EDGED_OK && commit() == EDGED_OK &&
              derive(&link, 3, &m) == EDGED_OK,
          "and it is of use");
    CHECK(ask(KEY_SLOT_PUT, &p, sizeof(p)) == EDGED_OK && derive(&link, 5, &m) == EDGED_OK, "one in clear is not");
    CHECK(listed(5).kind == KEY_MODEL && listed(5).flags == 0 && is_zero(listed(5).agreement, 32), "it is listed so");
    CHECK(keylink_fits(&m, agreement), "it fits any agreement");
}

static enum edged_status at(uint64_t time_s) {
    struct spoken f = floor_of(3, 2);

    f.time_s = time_s;
    const enum edged_status status = speak(&f);
    return status == EDGED_OK ? commit() : status;
}

static uint64_t told(struct keylink *link, uint64_t passed_s) {
    struct key_material m;

    stub.uptime_ns += passed_s * 1000000000u;
    CHECK(derive(link, 3, &m) == EDGED_OK, "used");
    return m.time_s;
}

/* A floor's time goes on for as long as its start lasts, and nothing that is handed in late or twice sets it back. */
static void test_time_goes_on(void) {
    static struct keylink link;
    uint8_t state[sizeof(struct key_state)];

    begin(true);
    CHECK(take() == EDGED_OK && commit() == EDGED_OK && at(10000) == EDGED_OK, "taken");
    CHECK(told(&link, 0) == 10000 && told(&link, 2048) == 12046, "less a 1024th");
    CHECK(at(9999) == EDGED_ERR_REPLAY, "an earlier one");
    CHECK(at(10000) == EDGED_OK && told(&link, 0) == 12046, "the same one again");
    CHECK(at(11000) == EDGED_OK && told(&link, 1024) == 13069, "a later one that was held back");
    CHECK(at(10999) == EDGED_ERR_REPLAY && at(20000) == EDGED_OK && told(&link, 1024) == 21023, "the newest");
    CHECK(ask(KEY_STATE, NULL, 0) == EDGED_OK, "state");
    memcpy(state, answer + sizeof(struct edged_hdr), sizeof(state));
    restart(true);
    CHECK(ask(KEY_RESTORE, state, sizeof(state)) == EDGED_OK && at(5) == EDGED_OK, "of another start any is the first");
    CHECK(told(&link, 4096) == 20000, "how long that start is over nobody knows");
}

int main(void) {
    CHECK(crypto_init() == 0, "crypto library");
    test_faults("grant", take, &heap_left, EDGED_ERR_MEMORY);
    test_faults("grant", take, &stub.random_left, EDGED_ERR_UNAVAILABLE);
    test_faults("grant", take, &seal_left, EDGED_ERR_UNAVAILABLE);
    test_faults("floor", vouch, &heap_left, EDGED_ERR_MEMORY);
    test_faults("floor", vouch, &stub.random_left, EDGED_ERR_UNAVAILABLE);
    test_faults("floor", vouch, &seal_left, EDGED_ERR_UNAVAILABLE);
    test_faults("clear", wipe, &heap_left, EDGED_ERR_MEMORY);
    test_faults("clear", wipe, &stub.random_left, EDGED_ERR_UNAVAILABLE);
    test_faults("clear", wipe, &seal_left, EDGED_ERR_UNAVAILABLE);
    test_faults("state", show, &stub.random_left, EDGED_ERR_UNAVAILABLE);
    test_faults("state", show, &seal_left, EDGED_ERR_UNAVAILABLE);
    test_a_store_that_fails();
    test_every_byte();
    test_without_a_store_granted_keys_are_locked();
    test_time_goes_on();
    key_destroy(key);
    return 0;
}
