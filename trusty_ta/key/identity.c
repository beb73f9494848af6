#include "identity.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "port.h"

static_assert(KEY_PRIVATE_BYTES == CRYPTO_RSA_PRIVATE_MAX, "room for any key that is drawn");

#define HEAD_BYTES offsetof(struct key_identity, sealed)

/** struct keys - what is sealed */
struct keys {
    uint32_t attest_bytes;
    uint32_t grant_bytes;
    uint8_t attest[KEY_PRIVATE_BYTES];
    uint8_t grant[KEY_PRIVATE_BYTES];
};
static_assert(HEAD_BYTES + sizeof(struct keys) + CRYPTO_TAG_BYTES == sizeof(struct key_identity),
              "key_identity");

/** struct head - what stands in clear before it, and is associated data */
struct head {
    uint32_t form;
    uint32_t security_version;
    uint8_t salt[32];
};
static_assert(sizeof(struct head) == HEAD_BYTES, "key_identity");

static const uint8_t NONCE[12]; /* the salt makes every key a new one */

/*
 * The device key is the application's own, by its UUID. Any version can derive what another sealed
 * under: that an older one refuses is its own code's doing, and an older image that shall not run at
 * all is kept out by the platform's rollback protection alone.
 */
static int sealing_key(const struct head *h, uint8_t out[32]) {
    static const char label[] = "edged identity v1";
    uint8_t device[32], info[sizeof(label) - 1 + 4];
    int rc = -1;

    memcpy(info, label, sizeof(label) - 1);
    store_le32(info + sizeof(label) - 1, h->security_version);
    if (port_device_key(label, device) == 0)
        rc = crypto_hkdf_sha256(device, 32, h->salt, sizeof(h->salt), info, sizeof(info), out, 32);
    crypto_wipe(device, sizeof(device));
    return rc;
}

static void release(struct keys *k) {
    if (k != NULL)
        crypto_wipe(k, sizeof(*k));
    free(k);
}

bool identity_is_open(const struct identity *i) {
    return i->attest != NULL;
}

void identity_close(struct identity *i) {
    crypto_rsa_free(i->attest);
    crypto_rsa_free(i->grant);
    *i = (struct identity){0};
}

static int seal(const struct identity *i, struct keys *k, uint8_t *sealed) {
    struct head h = {.form = KEY_IDENTITY_FORM, .security_version = EDGED_SECURITY_VERSION};
    uint8_t key[32];
    size_t attest_bytes = 0, grant_bytes = 0;
    int rc = -1;

    if (crypto_rsa_pkcs8(i->attest, k->attest, &attest_bytes) == 0 &&
        crypto_rsa_pkcs8(i->grant, k->grant, &grant_bytes) == 0 && port_random(h.salt, sizeof(h.salt)) == 0 &&
        sealing_key(&h, key) == 0) {
        k->attest_bytes = (uint32_t)attest_bytes;
        k->grant_bytes = (uint32_t)grant_bytes;
        memcpy(sealed, &h, sizeof(h));
        rc = crypto_gcm_seal(key, sizeof(key), NONCE, sealed, HEAD_BYTES, (const uint8_t *)k, sizeof(*k),
                             sealed + HEAD_BYTES);
    }
    crypto_wipe(key, sizeof(key));
    return rc;
}

enum edged_status identity_draw(struct identity *i, uint8_t *sealed) {
    struct identity fresh = {0};
    enum edged_status status = EDGED_ERR_UNAVAILABLE;

    if (identity_is_open(i))
        return EDGED_ERR_ORDER;
    struct keys *k = calloc(1, sizeof(*k));
    if (k == NULL)
        return EDGED_ERR_MEMORY;
    fresh.attest = crypto_rsa_new();
    fresh.grant = crypto_rsa_new();
    if (fresh.attest != NULL && fresh.grant != NULL && seal(&fresh, k, sealed) == 0) {
        *i = fresh;
        status = EDGED_OK;
    } else {
        identity_close(&fresh);
    }
    release(k);
    return status;
}

enum edged_status identity_open(struct identity *i, const uint8_t *sealed) {
    struct identity opened = {0};
    struct head h;
    uint8_t key[32];
    enum edged_status status = EDGED_ERR_STATE;

    if (identity_is_open(i))
        return EDGED_ERR_ORDER;
    memcpy(&h, sealed, sizeof(h));
    if (h.form != KEY_IDENTITY_FORM || h.security_version == 0 || h.security_version > EDGED_SECURITY_VERSION)
        return EDGED_ERR_STATE;
    struct keys *k = malloc(sizeof(*k));
    if (k == NULL)
        return EDGED_ERR_MEMORY;
    if (sealing_key(&h, key) == 0 &&
        crypto_gcm_open(key, sizeof(key), NONCE, sealed, HEAD_BYTES, sealed + HEAD_BYTES, sizeof(*k),
                        (uint8_t *)k) == 0 &&
        k->attest_bytes <= sizeof(k->attest) && k->grant_bytes <= sizeof(k->grant)) {
        opened.attest = crypto_rsa_private(k->attest, k->attest_bytes);
        opened.grant = crypto_rsa_private(k->grant, k->grant_bytes);
        status = opened.attest != NULL && opened.grant != NULL ? EDGED_OK : EDGED_ERR_MEMORY;
    }
    if (status == EDGED_OK)
        *i = opened;
    else
        identity_close(&opened);
    crypto_wipe(key, sizeof(key));
    release(k);
    return status;
}
