/*
 * device.c - what only a device has: randomness, a clock, a key burnt into it, and the secret of its
 * flash station. Here the key is 32 random bytes in DIR/device.key and the secret, where a flash station
 * gave one, in DIR/station.secret, which whoever may read those files knows.
 */
#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <lib/hwkey/hwkey.h>
#include <lib/rng/trusty_rng.h>
#include <trusty/time.h>
#include <uapi/err.h>

#include "crypto.h"
#include "keyslots.h"
#include "uuids.h"

#define KEY_FILE "device.key"
#define STATION_FILE "station.secret"
#define KEY_BYTES 32u

static uint8_t device_key[KEY_BYTES];
static uint8_t station_secret[KEY_BYTES];
static bool station_known;

int trusty_rng_secure_rand(uint8_t *data, size_t size_bytes) {
    while (size_bytes > 0) {
        ssize_t got = getrandom(data, size_bytes, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return ERR_GENERIC;
        data += got;
        size_bytes -= (size_t)got;
    }
    return NO_ERROR;
}

int trusty_gettime(uint32_t clock_id, int64_t *time_ns) {
    struct timespec now;

    if (clock_id != 0 || clock_gettime(CLOCK_BOOTTIME, &now) != 0)
        return ERR_INVALID_ARGS;
    *time_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    return NO_ERROR;
}

/* Both applications may start at once: link() lets exactly one key win. */
static int device_create(void) {
    char name[64];
    uint8_t fresh[KEY_BYTES];
    int rc = ERR_IO;

    snprintf(name, sizeof(name), ".%s.%ld", KEY_FILE, (long)getpid());
    if (trusty_rng_secure_rand(fresh, sizeof(fresh)) != NO_ERROR)
        return ERR_GENERIC;
    int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno == EACCES || errno == EROFS ? ERR_ACCESS_DENIED : ERR_IO;
    if (write(fd, fresh, sizeof(fresh)) == (ssize_t)sizeof(fresh) && fsync(fd) == 0 &&
        (link(name, KEY_FILE) == 0 || errno == EEXIST))
        rc = NO_ERROR;
    close(fd);
    unlink(name);
    crypto_wipe(fresh, sizeof(fresh));
    return rc;
}

static int file_read(int fd, uint8_t out[KEY_BYTES]) {
    struct stat st;

    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size != KEY_BYTES ||
        (st.st_mode & 077) != 0 || st.st_uid != geteuid())
        return ERR_ACCESS_DENIED;
    return read(fd, out, KEY_BYTES) == (ssize_t)KEY_BYTES ? NO_ERROR : ERR_IO;
}

/* NO_ERROR, ERR_NOT_FOUND where there is none, or why it may not be used. */
static int key_file_read(const char *name, uint8_t out[KEY_BYTES]) {
    int fd = open(name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? ERR_NOT_FOUND : ERR_ACCESS_DENIED;
    int rc = file_read(fd, out);
    close(fd);
    if (rc == ERR_ACCESS_DENIED)
        host_log("must be 32 bytes, ours, mode 0600", name);
    return rc;
}

/* As Trusty's key service has it: the slot is the key application's alone, and may be empty. */
static int station_open(void) {
    static const struct uuid reader = KEY_UUID;

    if (memcmp(&host_application.uuid, &reader, sizeof(reader)) != 0)
        return NO_ERROR;
    int rc = key_file_read(STATION_FILE, station_secret);
    station_known = rc == NO_ERROR;
    return rc == ERR_NOT_FOUND ? NO_ERROR : rc;
}

int device_open(void) {
    for (int attempt = 0; attempt < 2; attempt++) {
        int rc = key_file_read(KEY_FILE, device_key);
        if (rc == NO_ERROR)
            return station_open();
        if (rc == ERR_NOT_FOUND)
            rc = device_create();
        if (rc != NO_ERROR)
            return rc;
    }
    return ERR_IO;
}

long hwkey_open(void) {
    return 1; /* one device, no session state */
}

void hwkey_close(hwkey_session_t session) {
    (void)session;
}

/* dest[32 i ..] = HMAC(device key, "edged host hwkey v1" || i || UUID || src) */
long hwkey_derive(hwkey_session_t session, uint32_t *kdf_version, const uint8_t *src, uint8_t *dest,
                  uint32_t size_bytes) {
    static const char label[] = "edged host hwkey v1";
    uint8_t input[sizeof(label) + sizeof(struct uuid) + 128], block[32];
    size_t at = sizeof(label);

    (void)session;
    if (size_bytes == 0 || size_bytes > 128)
        return ERR_BAD_LEN;
    if (*kdf_version != HWKEY_KDF_VERSION_BEST && *kdf_version != HWKEY_KDF_VERSION_1)
        return ERR_NOT_VALID;
    *kdf_version = HWKEY_KDF_VERSION_1;

    memcpy(input, label, sizeof(label)); /* its final NUL becomes the counter */
    memcpy(input + at, &host_application.uuid, sizeof(struct uuid));
    at += sizeof(struct uuid);
    memcpy(input + at, src, size_bytes);
    at += size_bytes;
    for (uint32_t done = 0; done < size_bytes; done += 32) {
        uint32_t n = size_bytes - done < 32 ? size_bytes - done : 32;
        input[sizeof(label) - 1] = (uint8_t)(done / 32);
        if (crypto_hmac_sha256(device_key, KEY_BYTES, input, at, block) != 0)
            return ERR_GENERIC;
        memcpy(dest + done, block, n);
    }
    crypto_wipe(block, sizeof(block));
    return NO_ERROR;
}

long hwkey_get_keyslot_data(hwkey_session_t session, const char *slot_id, uint8_t *data,
                            uint32_t *data_size) {
    static const uint8_t label[] = "edged host link v1";

    (void)session;
    if (*data_size < KEY_BYTES)
        return ERR_BAD_LEN;
    *data_size = KEY_BYTES;
    if (strcmp(slot_id, LINK_KEYSLOT) == 0)
        return crypto_hmac_sha256(device_key, KEY_BYTES, label, sizeof(label), data) == 0 ? NO_ERROR : ERR_GENERIC;
    if (!station_known || strcmp(slot_id, ENROL_KEYSLOT) != 0)
        return ERR_NOT_FOUND;
    memcpy(data, station_secret, KEY_BYTES);
    return NO_ERROR;
}
