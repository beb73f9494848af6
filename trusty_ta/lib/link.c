#include "link.h"

#include <string.h>

#include "bytes.h"
#include "crypto.h"
#include "port.h"

static_assert(EDGED_SECURITY_VERSION != 0, "an older peer is told by a lower version, and one of none by 0");

int link_hello(struct key_hello *h, uint8_t private_key[32]) {
    memset(h, 0, sizeof(*h));
    if (port_random(h->nonce, sizeof(h->nonce)) != 0 || port_random(private_key, 32) != 0 ||
        crypto_x25519_public(private_key, h->public_key) != 0)
        return -1;
    port_measurement(h->measurement);
    h->signature_bytes = port_measurement_signature(h->signature);
    h->security_version = EDGED_SECURITY_VERSION;
    return 0;
}

#ifdef EDGED_RELEASE_KEY

/* DER SubjectPublicKeyInfo of who signs releases: a build option, and so a part of the measurement. */
static const uint8_t RELEASE_KEY[] = {EDGED_RELEASE_KEY};

bool link_accepts(const struct key_hello *peer, const char *application) {
    static const uint8_t none[sizeof(peer->signature) - CRYPTO_RSA_BYTES];
    uint8_t message[sizeof(LINK_SIGNED_EVAL) + 4 + sizeof(peer->measurement)];
    const size_t name = strlen(application);

    if (peer->signature_bytes != CRYPTO_RSA_BYTES || peer->security_version < EDGED_SECURITY_VERSION ||
        memcmp(peer->signature + CRYPTO_RSA_BYTES, none, sizeof(none)) != 0)
        return false;
    memcpy(message, application, name);
    store_le32(message + name, peer->security_version);
    memcpy(message + name + 4, peer->measurement, sizeof(peer->measurement));
    struct crypto_rsa *key = crypto_rsa_public(RELEASE_KEY, sizeof(RELEASE_KEY));
    bool holds = key != NULL && crypto_rsa_verify(key, message, name + 4 + sizeof(peer->measurement),
                                                  peer->signature, CRYPTO_RSA_BYTES) == 0;
    crypto_rsa_free(key);
    return holds;
}

#else

/* A build without a release key takes peers where nothing is protected anyway, and nowhere else. */
bool link_accepts(const struct key_hello *peer, const char *application) {
    static const uint8_t none[sizeof(peer->signature)];

    (void)application;
    return port_emulated() && peer->signature_bytes == 0 && peer->security_version >= EDGED_SECURITY_VERSION &&
           memcmp(peer->signature, none, sizeof(none)) == 0;
}

#endif

/*
 * A signed measurement is no secret: a look-alike may show one. What it lacks is the secret that the
 * platform gives to these two applications alone, and without it the keys of both ends differ.
 */
int link_key(const uint8_t private_key[32], const struct key_hello *peer, const struct key_hello *from_eval,
             const struct key_hello *from_key, uint8_t key[32]) {
    static const char label[] = "edged link v1";
    uint8_t shared[64], salt[64], info[sizeof(label) - 1 + 32];
    struct key_hello both[2] = {*from_eval, *from_key};
    int rc = -1;

    memcpy(salt, from_eval->nonce, 32);
    memcpy(salt + 32, from_key->nonce, 32);
    memcpy(info, label, sizeof(label) - 1);
    if (crypto_sha256(both, sizeof(both), info + sizeof(label) - 1) == 0 &&
        crypto_x25519(private_key, peer->public_key, shared) == 0 && port_link_secret(shared + 32) == 0)
        rc = crypto_hkdf_sha256(shared, sizeof(shared), salt, sizeof(salt), info, sizeof(info), key, 32);
    crypto_wipe(shared, sizeof(shared));
    return rc;
}

int link_tag(const uint8_t key[32], uint8_t tag[32]) {
    static const char confirmed[] = "edged link confirmed v1";

    return crypto_hmac_sha256(key, 32, (const uint8_t *)confirmed, sizeof(confirmed) - 1, tag);
}
