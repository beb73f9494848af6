#include "granting.h"

#include <string.h>

#include "cbor.h"
#include "cose.h"
#include "crypto.h"
#include "port_stub.h"
#include "vector.h"

bool granting_signed = true;

bool __wrap_cose_holds(const uint8_t verifier[32], const char *structure, const char *context,
                       const uint8_t *payload, size_t size_bytes, const uint8_t signature[64]);
int __wrap_crypto_rsa_decrypt(const struct crypto_rsa *k, const uint8_t *label, size_t label_bytes,
                              const uint8_t sealed[CRYPTO_RSA_BYTES], uint8_t out[CRYPTO_OAEP_MAX],
                              size_t *size_bytes);

bool __wrap_cose_holds(const uint8_t verifier[32], const char *structure, const char *context,
                       const uint8_t *payload, size_t size_bytes, const uint8_t signature[64]) {
    CHECK(verifier != NULL && signature != NULL && payload != NULL && size_bytes != 0 &&
              strcmp(structure, "Signature1") == 0 &&
              (strcmp(context, "edged grant 1") == 0 || strcmp(context, "edged floor 1") == 0),
          "what is signed");
    return granting_signed;
}

int __wrap_crypto_rsa_decrypt(const struct crypto_rsa *k, const uint8_t *label, size_t label_bytes,
                              const uint8_t sealed[CRYPTO_RSA_BYTES], uint8_t out[CRYPTO_OAEP_MAX],
                              size_t *size_bytes) {
    CHECK(k != NULL && label_bytes == 32, "a key and a label");
    memset(out, 0, CRYPTO_OAEP_MAX);
    *size_bytes = 0;
    if (memcmp(sealed, label, 32) != 0 || sealed[32] > CRYPTO_OAEP_MAX)
        return -1;
    *size_bytes = sealed[32];
    memcpy(out, sealed + 33, *size_bytes);
    return 0;
}

static void write_name(struct cbor_writer *w, const char *name, uint8_t first) {
    uint8_t bytes[32] = {first};

    cbor_write_text(w, name);
    cbor_write_bytes(w, bytes, sizeof(bytes));
}

size_t granting_envelop(const uint8_t *payload, size_t size, uint8_t *out, size_t room) {
    static const uint8_t head[] = {0xd2, 0x84, 0x43, 0xa1, 0x01, 0x27, 0xa0}, signature[64] = {7};
    struct cbor_writer w = {.data = out, .size = room};

    memcpy(out, head, sizeof(head));
    w.at = sizeof(head);
    cbor_write_bytes(&w, payload, size);
    cbor_write_bytes(&w, signature, sizeof(signature));
    return w.failed ? 0 : w.at;
}

size_t granting_make(const struct made *m, uint8_t *out) {
    uint8_t header[HEADER_MAX], payload[GRANT_MAX], sealed[CRYPTO_RSA_BYTES] = {0};
    static const uint8_t key_id[16];
    struct cbor_writer h = {.data = header, .size = sizeof(header)}, p = {.data = payload, .size = sizeof(payload)};

    cbor_write_map(&h, 8);
    cbor_write_text(&h, "form");
    cbor_write_text(&h, "edged grant 1");
    cbor_write_text(&h, "kind");
    cbor_write_uint(&h, m->kind);
    cbor_write_text(&h, "slot");
    cbor_write_uint(&h, m->slot);
    cbor_write_text(&h, "device");
    cbor_write_bytes(&h, m->device, sizeof(m->device));
    cbor_write_text(&h, "key_id");
    cbor_write_bytes(&h, key_id, sizeof(key_id));
    cbor_write_text(&h, "number");
    cbor_write_uint(&h, m->number);
    write_name(&h, "verifier", m->party);
    write_name(&h, "agreement", m->agreement);
    CHECK(!h.failed && crypto_sha256(header, h.at, sealed) == 0, "header");
    sealed[0] ^= m->another_label;
    sealed[32] = m->key_bytes;
    memset(sealed + 33, m->key, m->key_bytes);
    cbor_write_array(&p, 2);
    cbor_write_bytes(&p, header, h.at);
    cbor_write_bytes(&p, sealed, sizeof(sealed));
    const size_t n = p.failed ? 0 : granting_envelop(payload, p.at, out, GRANT_MAX);
    CHECK(n != 0, "a grant fits");
    return n;
}

size_t granting_speak(const struct spoken *f, uint8_t *out) {
    uint8_t payload[GRANT_MAX];
    struct cbor_writer p = {.data = payload, .size = sizeof(payload)};

    cbor_write_map(&p, 8);
    cbor_write_text(&p, "form");
    cbor_write_text(&p, "edged floor 1");
    cbor_write_text(&p, "time");
    cbor_write_uint(&p, f->time_s);
    cbor_write_text(&p, "model");
    cbor_write_uint(&p, f->model);
    cbor_write_text(&p, "start");
    cbor_write_bytes(&p, f->start, sizeof(f->start));
    cbor_write_text(&p, "device");
    cbor_write_bytes(&p, f->device, sizeof(f->device));
    cbor_write_text(&p, "grants");
    cbor_write_array(&p, f->count);
    for (uint32_t i = 0; i < f->count; i++) {
        cbor_write_array(&p, 2);
        cbor_write_uint(&p, f->grants[i].slot);
        cbor_write_uint(&p, f->grants[i].number);
    }
    write_name(&p, "verifier", f->party);
    cbor_write_text(&p, "agreement");
    cbor_write_uint(&p, f->agreement);
    const size_t n = p.failed ? 0 : granting_envelop(payload, p.at, out, GRANT_MAX);
    CHECK(n != 0, "a floor fits");
    return n;
}

struct key_app *granting_start(uint8_t bootseed[32]) {
    const uint64_t seed = stub.seed;
    struct key_app *made = key_create(stub_key_uuid);
    const uint64_t after = stub.seed;

    stub.seed = seed;
    CHECK(made != NULL && port_random(bootseed, 32) == 0, "key application");
    stub.seed = after;
    return made;
}
