/* lib/hwkey/hwkey.h - Trusty's device key. Written from shared/TRUSTY.md. */
#ifndef EDGED_HWKEY_H
#define EDGED_HWKEY_H

#include <stdint.h>

#include <trusty_ipc.h>

typedef handle_t hwkey_session_t;

#define HWKEY_KDF_VERSION_BEST 0u
#define HWKEY_KDF_VERSION_1 1u

long hwkey_open(void); /* a session, or an error */

/* dest = KDF(device key, application, src); both have size_bytes. */
long hwkey_derive(hwkey_session_t session, uint32_t *kdf_version, const uint8_t *src, uint8_t *dest,
                  uint32_t size_bytes);

/* The key of a slot that the platform lets this application read; *data_size: room, then the key's size. */
long hwkey_get_keyslot_data(hwkey_session_t session, const char *slot_id, uint8_t *data, uint32_t *data_size);

void hwkey_close(hwkey_session_t session);

#endif
