#include "seal.h"

#include <string.h>

#include "bytes.h"
#include "crypto.h"
#include "port.h"

#define LABEL_MAX 32u

static const uint8_t NONCE[12]; /* the salt makes every key a new one */

/*
 * The device key is the application's own, by its UUID. Any version can derive what another sealed
 * under: that an older one refuses is its own code's doing, and an older image that shall not run at
 * all is kept out by the platform's rollback protection alone.
 */
static int sealing_key(const char *label, const struct seal_head *h, uint8_t out[32]) {
    uint8_t device[32], info[LABEL_MAX + 4];
    const size_t n = strlen(label);
    int rc = -1;

    if (n > LABEL_MAX)
        return -1;
    memcpy(info, label, n);
    store_le32(info + n, h->security_version);
    if (port_device_key(label, device) == 0)
        rc = crypto_hkdf_sha256(device, 32, h->salt, sizeof(h->salt), info, n + 4, out, 32);
    crypto_wipe(device, sizeof(device));
    return rc;
}

int seal_close(const char *label, uint32_t form, uint8_t *sealed, size_t head_bytes, const void *plain,
               size_t size_bytes) {
    struct seal_head h = {.form = form, .security_version = EDGED_SECURITY_VERSION};
    uint8_t key[32];
    int rc = -1;

    if (port_random(h.salt, sizeof(h.salt)) == 0 && sealing_key(label, &h, key) == 0) {
        memcpy(sealed, &h, sizeof(h));
        rc = crypto_gcm_seal(key, sizeof(key), NONCE, sealed, head_bytes, plain, size_bytes,
                             sealed + head_bytes);
    }
    crypto_wipe(key, sizeof(key));
    return rc;
}

enum edged_status seal_open(const char *label, uint32_t form, const uint8_t *sealed, size_t head_bytes,
                            void *plain, size_t size_bytes) {
    struct seal_head h;
    uint8_t key[32];
    enum edged_status status = EDGED_ERR_STATE;

    memcpy(&h, sealed, sizeof(h));
    if (h.form != form || h.security_version == 0 || h.security_version > EDGED_SECURITY_VERSION)
        return EDGED_ERR_STATE;
    if (sealing_key(label, &h, key) == 0 &&
        crypto_gcm_open(key, sizeof(key), NONCE, sealed, head_bytes, sealed + head_bytes, size_bytes, plain) == 0)
        status = EDGED_OK;
    crypto_wipe(key, sizeof(key));
    return status;
}
