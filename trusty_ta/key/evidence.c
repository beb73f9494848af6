#include "evidence.h"

#include <stdlib.h>
#include <string.h>

#include "cbor.h"
#include "port.h"

static const char REQUEST_FORM[] = "edged certificate request 1";

/* { 1 (alg): -37 (PS256) } and { 1: 5 (HMAC 256/256) } */
static const uint8_t PS256[] = {0xa1, 0x01, 0x38, 0x24};
static const uint8_t HMAC256[] = {0xa1, 0x01, 0x05};

enum { TAG_MAC0 = 17, TAG_SIGN1 = 18 };

enum claim {
    CLAIM_CNF = 8,
    CLAIM_NONCE = 10,
    CLAIM_UEID = 256,
    CLAIM_OEMBOOT = 262,
    CLAIM_DBGSTAT = 263,
    CLAIM_PROFILE = 265,
    CLAIM_SUBMODS = 266,
    CLAIM_BOOTSEED = 268,
    CLAIM_CLASS = -65537,
    CLAIM_MEASUREMENT = -65538,
    CLAIM_SECURITY_VERSION = -65539,
    CLAIM_UUID = -65540
};

/**
 * struct scratch - the longest are a request's: payload 715 bytes, its signature's structure 764, signed
 * 985, the MAC's structure 1027. A writer that meets an end fails, and nothing is answered.
 */
struct scratch {
    uint8_t payload[1024];
    uint8_t inner[1280];
    uint8_t structure[1280];
};

/* ["Signature1" or "MAC0", protected header, external data, payload] (RFC 9052, 4.4 and 6.3) */
static struct cbor_writer structure(struct scratch *s, const char *kind, const uint8_t *header,
                                    size_t header_bytes, const char *external,
                                    const struct cbor_writer *payload) {
    struct cbor_writer w = {.data = s->structure, .size = sizeof(s->structure), .failed = payload->failed};

    cbor_write_array(&w, 4);
    cbor_write_text(&w, kind);
    cbor_write_bytes(&w, header, header_bytes);
    cbor_write_bytes(&w, (const uint8_t *)external, strlen(external));
    cbor_write_bytes(&w, payload->data, payload->at);
    return w;
}

/* tag [protected header, {}, payload, authenticator] */
static void write_message(struct cbor_writer *out, uint64_t tag, const uint8_t *header, size_t header_bytes,
                          const struct cbor_writer *payload, const uint8_t *authenticator,
                          size_t authenticator_bytes) {
    cbor_write_tag(out, tag);
    cbor_write_array(out, 4);
    cbor_write_bytes(out, header, header_bytes);
    cbor_write_map(out, 0);
    cbor_write_bytes(out, payload->data, payload->at);
    cbor_write_bytes(out, authenticator, authenticator_bytes);
}

static void sign(struct scratch *s, const struct crypto_rsa *key, const char *external,
                 const struct cbor_writer *payload, struct cbor_writer *out) {
    uint8_t signature[CRYPTO_RSA_BYTES];
    const struct cbor_writer w = structure(s, "Signature1", PS256, sizeof(PS256), external, payload);

    if (w.failed || crypto_rsa_sign(key, w.data, w.at, signature) != 0)
        out->failed = true;
    else
        write_message(out, TAG_SIGN1, PS256, sizeof(PS256), payload, signature, sizeof(signature));
}

static void authenticate(struct scratch *s, const uint8_t key[32], const char *external,
                         const struct cbor_writer *payload, struct cbor_writer *out) {
    uint8_t tag[32];
    const struct cbor_writer w = structure(s, "MAC0", HMAC256, sizeof(HMAC256), external, payload);

    if (w.failed || crypto_hmac_sha256(key, 32, w.data, w.at, tag) != 0)
        out->failed = true;
    else
        write_message(out, TAG_MAC0, HMAC256, sizeof(HMAC256), payload, tag, sizeof(tag));
}

static void write_public(struct cbor_writer *w, const char *name, const struct crypto_rsa *key) {
    uint8_t spki[CRYPTO_RSA_SPKI_BYTES];

    cbor_write_text(w, name);
    if (crypto_rsa_spki(key, spki) != 0)
        w->failed = true;
    else
        cbor_write_bytes(w, spki, sizeof(spki));
}

static void write_request(struct cbor_writer *w, const struct device *d, const struct identity *i,
                          const uint8_t challenge[32]) {
    cbor_write_map(w, 6);
    cbor_write_text(w, "form");
    cbor_write_text(w, REQUEST_FORM);
    cbor_write_text(w, "ueid");
    cbor_write_bytes(w, d->ueid, sizeof(d->ueid));
    write_public(w, "grant", i->grant);
    cbor_write_text(w, "nonce");
    cbor_write_bytes(w, challenge, 32);
    write_public(w, "attest", i->attest);
    cbor_write_text(w, "emulated");
    cbor_write_uint(w, port_emulated() ? 1 : 0);
}

static int enrolment_key(uint8_t out[32]) {
    static const char label[] = "edged enrol v1";
    static const uint8_t salt[32]; /* HKDF's own where there is none */
    uint8_t secret[32];
    int rc = port_station_secret(secret);

    if (rc == 0)
        rc = crypto_hkdf_sha256(secret, sizeof(secret), salt, sizeof(salt), (const uint8_t *)label,
                                sizeof(label) - 1, out, 32);
    crypto_wipe(secret, sizeof(secret));
    return rc;
}

enum edged_status evidence_request(const struct device *d, const struct identity *i,
                                   const uint8_t challenge[32], uint8_t *out, size_t capacity,
                                   size_t *size_bytes) {
    struct cbor_writer w = {.data = out, .size = capacity};
    uint8_t key[32];

    *size_bytes = 0;
    if (!identity_is_open(i))
        return EDGED_ERR_ORDER;
    if (enrolment_key(key) != 0)
        return EDGED_ERR_UNAVAILABLE;
    struct scratch *s = malloc(sizeof(*s));
    if (s != NULL) {
        struct cbor_writer payload = {.data = s->payload, .size = sizeof(s->payload)};
        struct cbor_writer inner = {.data = s->inner, .size = sizeof(s->inner)};
        write_request(&payload, d, i, challenge);
        sign(s, i->attest, REQUEST_FORM, &payload, &inner);
        authenticate(s, key, REQUEST_FORM, &inner, &w);
    }
    crypto_wipe(key, sizeof(key));
    free(s);
    if (s == NULL)
        return EDGED_ERR_MEMORY;
    *size_bytes = w.at;
    return w.failed ? EDGED_ERR_UNAVAILABLE : EDGED_OK;
}

/* {1 (COSE_Key): {1 (kty): 3 (RSA), -1: n, -2: e}} (RFC 8747, RFC 8230) */
static void write_confirmation(struct cbor_writer *w, const struct crypto_rsa *grant) {
    uint8_t modulus[CRYPTO_RSA_BYTES], exponent[CRYPTO_RSA_EXPONENT_BYTES];

    if (crypto_rsa_numbers(grant, modulus, exponent) != 0)
        w->failed = true;
    cbor_write_map(w, 1);
    cbor_write_uint(w, 1);
    cbor_write_map(w, 3);
    cbor_write_uint(w, 1);
    cbor_write_uint(w, 3);
    cbor_write_int(w, -1);
    cbor_write_bytes(w, modulus, sizeof(modulus));
    cbor_write_int(w, -2);
    cbor_write_bytes(w, exponent, sizeof(exponent));
}

static void write_application(struct cbor_writer *w, const char *name, const struct application *a) {
    cbor_write_text(w, name);
    cbor_write_map(w, 3);
    cbor_write_int(w, CLAIM_MEASUREMENT);
    cbor_write_bytes(w, a->measurement, sizeof(a->measurement));
    cbor_write_int(w, CLAIM_SECURITY_VERSION);
    cbor_write_uint(w, a->security_version);
    cbor_write_int(w, CLAIM_UUID);
    cbor_write_bytes(w, a->uuid, sizeof(a->uuid));
}

static void write_claims(struct cbor_writer *w, const struct device *d, const struct identity *i,
                         const uint8_t *nonce, size_t nonce_bytes) {
    const struct port_boot boot = port_boot_state();

    cbor_write_map(w, 9);
    cbor_write_int(w, CLAIM_CNF);
    write_confirmation(w, i->grant);
    cbor_write_int(w, CLAIM_NONCE);
    cbor_write_bytes(w, nonce, nonce_bytes);
    cbor_write_int(w, CLAIM_UEID);
    cbor_write_bytes(w, d->ueid, sizeof(d->ueid));
    cbor_write_int(w, CLAIM_OEMBOOT);
    cbor_write_bool(w, boot.verified);
    cbor_write_int(w, CLAIM_DBGSTAT);
    cbor_write_uint(w, boot.debug);
    cbor_write_int(w, CLAIM_PROFILE);
    cbor_write_text(w, EDGED_EVIDENCE_PROFILE);
    cbor_write_int(w, CLAIM_SUBMODS);
    cbor_write_map(w, d->eval_known ? 2 : 1);
    write_application(w, "key", &d->key);
    if (d->eval_known)
        write_application(w, "eval", &d->eval);
    cbor_write_int(w, CLAIM_BOOTSEED);
    cbor_write_bytes(w, d->bootseed, sizeof(d->bootseed));
    cbor_write_int(w, CLAIM_CLASS);
    cbor_write_text(w, port_emulated() ? "emulated" : "hardware");
}

enum edged_status evidence_attest(const struct device *d, const struct identity *i, const uint8_t *nonce,
                                  size_t nonce_bytes, uint8_t *out, size_t capacity, size_t *size_bytes) {
    struct cbor_writer w = {.data = out, .size = capacity};

    *size_bytes = 0;
    if (!identity_is_open(i))
        return EDGED_ERR_ORDER;
    struct scratch *s = malloc(sizeof(*s));
    if (s == NULL)
        return EDGED_ERR_MEMORY;
    struct cbor_writer payload = {.data = s->payload, .size = sizeof(s->payload)};
    write_claims(&payload, d, i, nonce, nonce_bytes);
    sign(s, i->attest, "", &payload, &w);
    free(s);
    *size_bytes = w.at;
    return w.failed ? EDGED_ERR_UNAVAILABLE : EDGED_OK;
}
