/*
 * fuzz_key.c - KEY_PORT: any list of messages { u8 command, u16 size, body } with a
 * right header, { 255, u16 size, bytes } as they are, or { 254, u16 at, u8 bits to flip }: the
 * application is started again and gets back the identity that it sealed last. No answer may
 * hold a slot's key or an identity's.
 */
#include "fuzz_input.h"
#include "key.h"
#include "port_stub.h"
#include "rsa_stub.h"
#include "vector.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FUZZ_KEY_RAW = 255, FUZZ_KEY_RESTART = 254 };

static const uint8_t SECRET[32] = "a key that nobody may ever read";

static struct key_app *key;
static uint8_t answer[EDGED_MESSAGE_BYTES];
static uint8_t identity[sizeof(struct key_identity)];
static bool identity_known;

/*
 * By the crypto library, which is not instrumented: a fuzzer that meets a key in memcmp() puts it
 * into its inputs, and evidence repeats a nonce.
 */
static bool holds(const uint8_t *bytes, size_t n, const uint8_t secret[16]) {
    for (size_t i = 0; i + 16 <= n; i++)
        if (bytes[i] == secret[0] && crypto_equal(bytes + i, secret, 16))
            return true;
    return false;
}

static void judge_secrets(size_t n) {
    CHECK(!holds(answer, n, SECRET), "a slot's key is in an answer");
    for (uint32_t k = 0; k < RSA_KEYS; k++) {
        size_t size;
        const uint8_t *secret = rsa_secret(k, &size);
        for (size_t at = 0; at + 16 <= size; at += 16)
            CHECK(!holds(answer, n, secret + at), "a private key is in an answer");
    }
}

static enum edged_status send(const uint8_t *message, size_t size) {
    uint8_t *copy = malloc(size + (size == 0));
    static const uint8_t none[32];
    struct edged_hdr h, asked = {0};

    CHECK(copy != NULL, "copy");
    memcpy(copy, message, size);
    const size_t n = key_message(key, copy, size, answer);
    CHECK(n >= sizeof(h) && n <= sizeof(answer), "%zu bytes", n);
    memcpy(&h, answer, sizeof(h));
    CHECK(h.version == EDGED_WIRE_VERSION && (h.cmd & 1) != 0 && h.reserved == 0 && h.len == n - sizeof(h) &&
              h.status <= EDGED_ERR_REPLAY && (h.status == EDGED_OK || h.len == 0),
          "answer");
    memcpy(&asked, message, size < sizeof(asked) ? size : sizeof(asked));
    if (h.status == EDGED_OK && asked.cmd == KEY_SLOT_PUT)
        CHECK(memcmp(message + sizeof(asked) + offsetof(struct key_slot_put, verifier), none, sizeof(none)) != 0,
              "a key has an owner");
    if (h.status == EDGED_OK && asked.cmd == KEY_IDENTITY_NEW) {
        memcpy(identity, answer + sizeof(h), sizeof(identity));
        identity_known = true;
    }
    judge_secrets(n);
    free(copy);
    return (enum edged_status)h.status;
}

static void start(void) {
    struct {
        struct edged_hdr h;
        struct key_slot_put p;
    } m = {.h = {.version = EDGED_WIRE_VERSION, .cmd = KEY_SLOT_PUT, .len = sizeof(m.p)},
           .p = {.slot = 3, .kind = KEY_MODEL, .key_bytes = 32}};

    key = key_create(stub_key_uuid);
    CHECK(key != NULL, "key application");
    memcpy(m.p.key, SECRET, sizeof(SECRET));
    m.p.verifier[0] = 1;
    CHECK(send((const uint8_t *)&m, sizeof(m)) == EDGED_OK, "slot");
}

static void restart(struct fuzz_input *in) {
    struct {
        struct edged_hdr h;
        uint8_t b[sizeof(struct key_identity)];
    } m = {.h = {.version = EDGED_WIRE_VERSION, .cmd = KEY_IDENTITY_OPEN, .len = sizeof(m.b)}};
    const size_t at = fuzz_short(in) % sizeof(m.b);
    const uint8_t flip = fuzz_byte(in);

    key_destroy(key);
    start();
    if (!identity_known)
        return;
    memcpy(m.b, identity, sizeof(m.b));
    m.b[at] ^= flip;
    CHECK(send((const uint8_t *)&m, sizeof(m)) == (flip == 0 ? EDGED_OK : EDGED_ERR_STATE),
          "what was sealed, and nothing else");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_input in = {.data = data, .left = size};
    uint8_t message[EDGED_MESSAGE_BYTES];

    stub_reset(FUZZ_SEED);
    identity_known = false;
    start();
    for (uint32_t budget = 64; in.left != 0 && budget != 0; budget--) {
        const uint8_t cmd = fuzz_byte(&in);
        if (cmd == FUZZ_KEY_RESTART) {
            restart(&in);
            continue;
        }
        const size_t want = fuzz_short(&in), head = cmd == FUZZ_KEY_RAW ? 0 : sizeof(struct edged_hdr);
        const size_t n = fuzz_bytes(&in, message + head, want, sizeof(message) - head);
        const struct edged_hdr h = {.version = EDGED_WIRE_VERSION, .cmd = cmd % 40, .len = (uint32_t)n};
        if (head != 0)
            memcpy(message, &h, sizeof(h));
        (void)send(message, head + n);
    }
    key_destroy(key);
    return 0;
}
