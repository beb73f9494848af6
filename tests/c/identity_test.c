/*
 * identity_test.c - RSA, CBOR's numbers, and the device's identity in one process, where the
 * platform can be made to fail.
 *
 *   identity_test VECTORS DUMP     both of tests/test_identity.py
 */
#include <string.h>

#include "cbor.h"
#include "crypto.h"
#include "crypto_stub.h"
#include "heap_stub.h"
#include "key.h"
#include "key_ask.h"
#include "port_stub.h"
#include "rsa_stub.h"
#include "vector.h"

static struct key_app *key;
static uint8_t answer[EDGED_MESSAGE_BYTES];
static size_t answer_bytes; /* of the body */

static enum edged_status send(uint16_t cmd, const void *body, size_t size_bytes, bool link) {
    struct edged_hdr h;
    const enum edged_status status = key_ask(key, link ? &stub.link : NULL, cmd, body, size_bytes, answer);

    memcpy(&h, answer, sizeof(h));
    answer_bytes = h.len;
    return status;
}

static enum edged_status ask(uint16_t cmd, const void *body, size_t size_bytes) {
    return send(cmd, body, size_bytes, false);
}

static void dump_answer(const char *name) {
    dump_put(name, answer + sizeof(struct edged_hdr), answer_bytes);
}

static bool identity_shown(void) {
    struct key_info i;

    CHECK(ask(KEY_INFO, NULL, 0) == EDGED_OK, "info");
    memcpy(&i, answer + sizeof(struct edged_hdr), sizeof(i));
    return (i.flags & KEY_FLAG_IDENTITY) != 0;
}

static void restart(void) {
    key_destroy(key);
    key = key_create(stub_key_uuid);
    CHECK(key != NULL && !identity_shown(), "a new start has no identity");
}

/* ------------------------------------------------------------------ RSA --- */

static void test_decryption(void) {
    size_t key_bytes, label_bytes, plain_bytes, n;
    const uint8_t *pkcs8 = vector_get("oaep/key", &key_bytes), *label = vector_get("oaep/label", &label_bytes);
    const uint8_t *plain = vector_get("oaep/plain", &plain_bytes);
    uint8_t sealed[CRYPTO_RSA_BYTES], out[CRYPTO_OAEP_MAX];
    static const uint8_t none[CRYPTO_OAEP_MAX];
    struct crypto_rsa *k = crypto_rsa_private(pkcs8, key_bytes);

    CHECK(k != NULL, "the key opens");
    memcpy(sealed, vector_get("oaep/sealed", NULL), sizeof(sealed));
    CHECK(crypto_rsa_decrypt(k, label, label_bytes, sealed, out, &n) == 0 && n == plain_bytes &&
              memcmp(out, plain, n) == 0,
          "what another implementation sealed");
    memset(out, 1, sizeof(out));
    CHECK(crypto_rsa_decrypt(k, label, label_bytes - 1, sealed, out, &n) != 0 && n == 0 &&
              memcmp(out, none, sizeof(out)) == 0,
          "another label, and nothing is left");
    CHECK(crypto_rsa_decrypt(k, label, 0, sealed, out, &n) != 0, "no label");
    for (size_t i = 0; i < sizeof(sealed); i += 15) {
        sealed[i] ^= 1;
        CHECK(crypto_rsa_decrypt(k, label, label_bytes, sealed, out, &n) != 0 && n == 0, "altered at %zu", i);
        sealed[i] ^= 1;
    }
    CHECK(crypto_rsa_decrypt(k, NULL, 0, vector_get("oaep/unlabelled", NULL), out, &n) == 0 && n == CRYPTO_OAEP_MAX,
          "without a label, as long as can be");
    crypto_rsa_free(k);
    uint8_t longer[CRYPTO_RSA_PRIVATE_MAX + 1] = {0};
    memcpy(longer, pkcs8, key_bytes);
    CHECK(crypto_rsa_private(longer, key_bytes + 1) == NULL, "a byte behind the key");
    CHECK(crypto_rsa_private(longer, key_bytes - 1) == NULL, "a byte less");
    pkcs8 = vector_get("pss/private 3072", &key_bytes);
    CHECK(crypto_rsa_private(pkcs8, key_bytes) == NULL, "keys that are kept have 2048 bits");
    pkcs8 = vector_get("ec/private", &key_bytes);
    CHECK(crypto_rsa_private(pkcs8, key_bytes) == NULL, "another kind of key");
}

static void test_verification(const char *bits, bool accepted) {
    char name[64];
    size_t spki_bytes, signature_bytes, message_bytes;
    const uint8_t *message = vector_get("pss/message", &message_bytes);

    snprintf(name, sizeof(name), "pss/public %s", bits);
    const uint8_t *spki = vector_get(name, &spki_bytes);
    snprintf(name, sizeof(name), "pss/signature %s", bits);
    const uint8_t *right = vector_get(name, &signature_bytes);
    struct crypto_rsa *k = crypto_rsa_public(spki, spki_bytes);
    uint8_t signature[384];

    CHECK((k != NULL) == accepted, "%s bits", bits);
    if (k == NULL)
        return;
    CHECK(crypto_rsa_verify(k, message, message_bytes, right, signature_bytes) == 0, "what Python signed");
    CHECK(crypto_rsa_verify(k, message, message_bytes - 1, right, signature_bytes) != 0, "another message");
    CHECK(crypto_rsa_verify(k, message, message_bytes, right, signature_bytes - 1) != 0, "cut off");
    memcpy(signature, right, signature_bytes);
    for (size_t i = 0; i < signature_bytes; i += 7) {
        signature[i] ^= 0x10;
        CHECK(crypto_rsa_verify(k, message, message_bytes, signature, signature_bytes) != 0, "altered at %zu", i);
        signature[i] ^= 0x10;
    }
    snprintf(name, sizeof(name), "pss/other salt %s", bits);
    CHECK(crypto_rsa_verify(k, message, message_bytes, vector_get(name, NULL), signature_bytes) != 0,
          "a salt of another length");
    crypto_rsa_free(k);
}

static void test_drawn(void) {
    size_t message_bytes, n, m;
    const uint8_t *message = vector_get("pss/message", &message_bytes);
    uint8_t pkcs8[CRYPTO_RSA_PRIVATE_MAX], again[CRYPTO_RSA_PRIVATE_MAX], spki[CRYPTO_RSA_SPKI_BYTES];
    uint8_t modulus[CRYPTO_RSA_BYTES], exponent[CRYPTO_RSA_EXPONENT_BYTES], signature[CRYPTO_RSA_BYTES];
    struct crypto_rsa *k = crypto_rsa_new();

    CHECK(k != NULL && crypto_rsa_pkcs8(k, pkcs8, &n) == 0 && crypto_rsa_spki(k, spki) == 0 &&
              crypto_rsa_numbers(k, modulus, exponent) == 0 &&
              crypto_rsa_sign(k, message, message_bytes, signature) == 0,
          "a key of our own");
    dump_put("drawn/private", pkcs8, n);
    dump_put("drawn/public", spki, sizeof(spki));
    dump_put("drawn/modulus", modulus, sizeof(modulus));
    dump_put("drawn/exponent", exponent, sizeof(exponent));
    dump_put("drawn/signature", signature, sizeof(signature));
    crypto_rsa_free(k);
    k = crypto_rsa_private(pkcs8, n);
    CHECK(k != NULL && crypto_rsa_pkcs8(k, again, &m) == 0 && m == n && memcmp(again, pkcs8, n) == 0, "DER is stable");
    CHECK(crypto_rsa_verify(k, message, message_bytes, signature, sizeof(signature)) == 0, "its own signature");
    crypto_rsa_free(k);
    crypto_rsa_free(NULL);
}

/* ----------------------------------------------------------------- CBOR --- */

static void test_numbers(void) {
    size_t size_bytes;
    const int64_t *values = vector_get("cbor/integers", &size_bytes);
    uint8_t out[1024];
    struct cbor_writer w = {.data = out, .size = sizeof(out)};

    cbor_write_tag(&w, 18);
    cbor_write_array(&w, size_bytes / sizeof(*values) + 2);
    for (size_t i = 0; i < size_bytes / sizeof(*values); i++)
        cbor_write_int(&w, values[i]);
    cbor_write_bool(&w, false);
    cbor_write_bool(&w, true);
    CHECK(!w.failed, "room");
    dump_put("cbor/items", out, w.at);
}

/* ------------------------------------------------------------- identity --- */

static const uint8_t NONCE[KEY_NONCE_MAX] = "a verifier's nonce, used once";

/* Whatever fails, nothing is open afterwards, and the next try succeeds. */
static void test_draws_that_fail(void) {
    restart();
    heap_left = 1;
    CHECK(ask(KEY_IDENTITY_NEW, NULL, 0) == EDGED_ERR_MEMORY && heap_left == 0 && !identity_shown(), "no memory");
    for (uint32_t n = 1; n <= 2; n++) {
        rsa_left = n;
        CHECK(ask(KEY_IDENTITY_NEW, NULL, 0) == EDGED_ERR_UNAVAILABLE && rsa_left == 0 && !identity_shown(),
              "key %u is not drawn", n);
    }
    stub.random_left = 1;
    CHECK(ask(KEY_IDENTITY_NEW, NULL, 0) == EDGED_ERR_UNAVAILABLE && stub.random_left == 0 && !identity_shown(),
          "no salt");
    seal_left = 1;
    CHECK(ask(KEY_IDENTITY_NEW, NULL, 0) == EDGED_ERR_UNAVAILABLE && seal_left == 0 && !identity_shown(), "no seal");
    CHECK(ask(KEY_IDENTITY_NEW, NULL, 0) == EDGED_OK && answer_bytes == sizeof(struct key_identity), "then one");
    CHECK(identity_shown(), "it is open");
    stub.random_left = 1;
    CHECK(key_create(stub_key_uuid) == NULL, "no boot seed, no application");
}

static void test_every_byte_of_a_sealed_identity(void) {
    uint8_t sealed[sizeof(struct key_identity)];

    restart();
    CHECK(ask(KEY_IDENTITY_NEW, NULL, 0) == EDGED_OK, "one");
    memcpy(sealed, answer + sizeof(struct edged_hdr), sizeof(sealed));
    restart();
    for (size_t i = 0; i < sizeof(sealed); i++) {
        const uint8_t flips[] = {0x01, 0x80, 0xff};
        for (size_t f = 0; f < sizeof(flips); f++) {
            sealed[i] ^= flips[f];
            CHECK(ask(KEY_IDENTITY_OPEN, sealed, sizeof(sealed)) == EDGED_ERR_STATE, "byte %zu", i);
            sealed[i] ^= flips[f];
        }
    }
    CHECK(!identity_shown(), "none of them opened");
    heap_left = 1;
    CHECK(ask(KEY_IDENTITY_OPEN, sealed, sizeof(sealed)) == EDGED_ERR_MEMORY && heap_left == 0 && !identity_shown(),
          "no memory");
    CHECK(ask(KEY_IDENTITY_OPEN, sealed, sizeof(sealed)) == EDGED_OK && identity_shown(), "as it was");
}

static void test_requests_and_evidence_that_fail(void) {
    restart();
    CHECK(ask(KEY_REQUEST, NONCE, 32) == EDGED_ERR_ORDER && ask(KEY_ATTEST, NONCE, 16) == EDGED_ERR_ORDER, "order");
    CHECK(ask(KEY_IDENTITY_NEW, NULL, 0) == EDGED_OK, "one");
    heap_left = 1;
    CHECK(ask(KEY_REQUEST, NONCE, 32) == EDGED_ERR_MEMORY && heap_left == 0, "no memory");
    heap_left = 1;
    CHECK(ask(KEY_ATTEST, NONCE, 16) == EDGED_ERR_MEMORY && heap_left == 0, "no memory");
    stub.no_station = true;
    CHECK(ask(KEY_REQUEST, NONCE, 32) == EDGED_ERR_UNAVAILABLE, "no station's secret");
    stub.no_station = false;
    CHECK(ask(KEY_REQUEST, NONCE, 32) == EDGED_OK, "request");
    dump_answer("request");
}

/* As on a fused board; the hosts say emulated, and nothing else. The longest evidence that there is. */
static void test_evidence_of_hardware(void) {
    struct key_hello mine, theirs;
    struct key_confirm confirm;
    uint8_t private_key[32], link[32];

    restart();
    CHECK(ask(KEY_IDENTITY_NEW, NULL, 0) == EDGED_OK, "one");
    CHECK(link_hello(&mine, private_key) == 0 && mine.security_version == EDGED_SECURITY_VERSION, "hello");
    memset(mine.measurement, 0x22, sizeof(mine.measurement));
    mine.security_version = 0;
    CHECK(send(KEY_HELLO, &mine, sizeof(mine), true) == EDGED_ERR_KEY, "a hello of no version");
    mine.security_version = UINT32_MAX;
    CHECK(send(KEY_HELLO, &mine, sizeof(mine), true) == EDGED_OK, "a hello");
    memcpy(&theirs, answer + sizeof(struct edged_hdr), sizeof(theirs));
    CHECK(link_key(private_key, &theirs, &mine, &theirs, link) == 0 && link_tag(link, confirm.tag) == 0 &&
              send(KEY_CONFIRM, &confirm, sizeof(confirm), true) == EDGED_OK,
          "linked");
    key_link_close(&stub.link); /* what was linked since start stays known */
    stub.hardware = true;
    stub.boot = (struct port_boot){.verified = true, .debug = 3};
    CHECK(ask(KEY_ATTEST, NONCE, KEY_NONCE_MAX) == EDGED_OK, "evidence");
    dump_answer("evidence");
    CHECK(ask(KEY_REQUEST, NONCE, 32) == EDGED_OK, "request");
    dump_answer("hardware request");
    stub.hardware = false;
}

int main(int argc, char **argv) {
    CHECK(argc == 3, "usage: identity_test VECTORS DUMP");
    vector_open(argv[1]);
    dump_open(argv[2]);
    stub_reset(1);
    CHECK(crypto_init() == 0, "crypto library");
    test_decryption();
    test_verification("1024", false);
    test_verification("2048", true);
    test_verification("3072", true);
    test_verification("4096", false);
    test_drawn();
    test_numbers();
    test_draws_that_fail();
    test_every_byte_of_a_sealed_identity();
    test_requests_and_evidence_that_fail();
    test_evidence_of_hardware();
    key_destroy(key);
    dump_close();
    return 0;
}
