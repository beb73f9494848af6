#include "link.h"

#include <string.h>

#include "bytes.h"
#include "crypto.h"
#include "port.h"

int link_hello(struct key_hello *h, uint8_t private_key[32]) {
    memset(h, 0, sizeof(*h));
    if (port_random(h->nonce, sizeof(h->nonce)) != 0 || port_random(private_key, 32) != 0 ||
        crypto_x25519_public(private_key, h->public_key) != 0)
        return -1;
    port_measurement(h->measurement);
    h->security_version = EDGED_SECURITY_VERSION;
    return 0;
}

/*
 * Images are not signed yet, and a client cannot see a server's UUID: whoever
 * registered the port first could pose as the key application. So a port that
 * protects something takes no peer until signatures exist.
 */
int link_accepts(const struct key_hello *peer) {
    static const uint8_t none[sizeof(peer->signature)];

    return port_emulated() && peer->signature_bytes == 0 && peer->security_version != 0 &&
           memcmp(peer->signature, none, sizeof(none)) == 0;
}

int link_key(const uint8_t private_key[32], const struct key_hello *peer, const struct key_hello *from_eval,
             const struct key_hello *from_key, uint8_t key[32]) {
    static const char label[] = "edged link v1";
    uint8_t shared[32], salt[64], info[sizeof(label) - 1 + 32];
    struct key_hello both[2] = {*from_eval, *from_key};
    int rc = -1;

    memcpy(salt, from_eval->nonce, 32);
    memcpy(salt + 32, from_key->nonce, 32);
    memcpy(info, label, sizeof(label) - 1);
    if (crypto_sha256(both, sizeof(both), info + sizeof(label) - 1) == 0 &&
        crypto_x25519(private_key, peer->public_key, shared) == 0)
        rc = crypto_hkdf_sha256(shared, 32, salt, sizeof(salt), info, sizeof(info), key, 32);
    crypto_wipe(shared, sizeof(shared));
    return rc;
}
