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
void hwkey_close(hwkey_session_t session);

#endif
