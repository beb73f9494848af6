/*
 * fuzz_key.c - KEY_PORT: any list of messages { u8 command, u16 size, body } with a
 * right header, or { 255, u16 size, bytes } as they are. No answer may hold a slot's key.
 */
#include "fuzz_input.h"
#include "key.h"
#include "port_stub.h"
#include "vector.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t SECRET[32] = "a key that nobody may ever read";

static enum edged_status send(struct key_app *key, const uint8_t *message, size_t size) {
    uint8_t answer[EDGED_MESSAGE_BYTES], *copy = malloc(size + (size == 0));
    static const uint8_t none[32];
    struct edged_hdr h, asked = {0};

    CHECK(copy != NULL, "copy");
    memcpy(copy, message, size);
    const size_t n = key_message(key, copy, size, answer);
    CHECK(n >= sizeof(h) && n <= sizeof(answer), "%zu bytes", n);
    memcpy(&h, answer, sizeof(h));
    CHECK(h.version == EDGED_WIRE_VERSION && (h.cmd & 1) != 0 && h.reserved == 0 && h.len == n - sizeof(h) &&
              h.status <= EDGED_ERR_STATE && (h.status == EDGED_OK || h.len == 0),
          "answer");
    memcpy(&asked, message, size < sizeof(asked) ? size : sizeof(asked));
    if (h.status == EDGED_OK && asked.cmd == KEY_SLOT_PUT)
        CHECK(memcmp(message + sizeof(asked) + offsetof(struct key_slot_put, verifier), none, sizeof(none)) != 0,
              "a key has an owner");
    for (size_t i = 0; i + 16 <= n; i++)
        CHECK(memcmp(answer + i, SECRET, 16) != 0, "the key is in an answer");
    free(copy);
    return (enum edged_status)h.status;
}

static void put_secret(struct key_app *key) {
    struct {
        struct edged_hdr h;
        struct key_slot_put p;
    } m = {.h = {.version = EDGED_WIRE_VERSION, .cmd = KEY_SLOT_PUT, .len = sizeof(m.p)},
           .p = {.slot = 3, .kind = KEY_MODEL, .key_bytes = 32}};

    memcpy(m.p.key, SECRET, sizeof(SECRET));
    m.p.verifier[0] = 1;
    CHECK(send(key, (const uint8_t *)&m, sizeof(m)) == EDGED_OK, "slot");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_input in = {.data = data, .left = size};
    uint8_t message[EDGED_MESSAGE_BYTES];

    stub_reset(FUZZ_SEED);
    struct key_app *key = key_create();
    CHECK(key != NULL, "key application");
    put_secret(key);
    for (uint32_t budget = 64; in.left != 0 && budget != 0; budget--) {
        const uint8_t cmd = fuzz_byte(&in);
        const size_t want = fuzz_short(&in), head = cmd == 255 ? 0 : sizeof(struct edged_hdr);
        const size_t n = fuzz_bytes(&in, message + head, want, sizeof(message) - head);
        const struct edged_hdr h = {.version = EDGED_WIRE_VERSION, .cmd = cmd % 40, .len = (uint32_t)n};
        if (head != 0)
            memcpy(message, &h, sizeof(h));
        (void)send(key, message, head + n);
    }
    key_destroy(key);
    return 0;
}
