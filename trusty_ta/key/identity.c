#include "identity.h"

#include <stdlib.h>
#include <string.h>

#include "seal.h"

static_assert(KEY_PRIVATE_BYTES == CRYPTO_RSA_PRIVATE_MAX, "room for any key that is drawn");

#define HEAD_BYTES offsetof(struct key_identity, sealed)

/** struct keys - what is sealed */
struct keys {
    uint32_t attest_bytes;
    uint32_t grant_bytes;
    uint8_t attest[KEY_PRIVATE_BYTES];
    uint8_t grant[KEY_PRIVATE_BYTES];
};
static_assert(HEAD_BYTES == sizeof(struct seal_head), "key_identity");
static_assert(HEAD_BYTES + sizeof(struct keys) + CRYPTO_TAG_BYTES == sizeof(struct key_identity),
              "key_identity");

static const char LABEL[] = "edged identity v1";

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
    size_t attest_bytes = 0, grant_bytes = 0;

    if (crypto_rsa_pkcs8(i->attest, k->attest, &attest_bytes) != 0 ||
        crypto_rsa_pkcs8(i->grant, k->grant, &grant_bytes) != 0)
        return -1;
    k->attest_bytes = (uint32_t)attest_bytes;
    k->grant_bytes = (uint32_t)grant_bytes;
    return seal_close(LABEL, KEY_IDENTITY_FORM, sealed, HEAD_BYTES, k, sizeof(*k));
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

    if (identity_is_open(i))
        return EDGED_ERR_ORDER;
    struct keys *k = malloc(sizeof(*k));
    if (k == NULL)
        return EDGED_ERR_MEMORY;
    enum edged_status status = seal_open(LABEL, KEY_IDENTITY_FORM, sealed, HEAD_BYTES, k, sizeof(*k));
    if (status == EDGED_OK && (k->attest_bytes > sizeof(k->attest) || k->grant_bytes > sizeof(k->grant)))
        status = EDGED_ERR_STATE;
    if (status == EDGED_OK) {
        opened.attest = crypto_rsa_private(k->attest, k->attest_bytes);
        opened.grant = crypto_rsa_private(k->grant, k->grant_bytes);
        if (opened.attest == NULL || opened.grant == NULL)
            status = EDGED_ERR_MEMORY;
    }
    if (status == EDGED_OK)
        *i = opened;
    else
        identity_close(&opened);
    release(k);
    return status;
}

int identity_thumbprint(const struct identity *i, uint8_t out[32]) {
    uint8_t spki[CRYPTO_RSA_SPKI_BYTES];

    return crypto_rsa_spki(i->grant, spki) == 0 ? crypto_sha256(spki, sizeof(spki), out) : -1;
}
