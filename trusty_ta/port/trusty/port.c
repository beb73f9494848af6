/*
 * port.c - lib/port.h on the Trusty API: randomness, the device key, time and the way
 * from the evaluation to the key application. Window: window.c; what the platform
 * says about itself: platform.c (port/host/platform.c on Linux).
 */
#include "port.h"

#include <string.h>

#include <lib/hwkey/hwkey.h>
#include <lib/rng/trusty_rng.h>
#include <lib/tipc/tipc.h>
#include <trusty/time.h>
#include <trusty_ipc.h>
#include <uapi/err.h>

#include "crypto.h"
#include "keyslots.h"

/* The key application answers in milliseconds; one that does not is away. */
#define KEY_TIMEOUT_MS 5000u

int port_random(uint8_t *out, size_t size_bytes) {
    return trusty_rng_secure_rand(out, size_bytes) == NO_ERROR ? 0 : ERR_GENERIC;
}

int port_device_key(const char *label, uint8_t out[32]) {
    uint8_t source[32];
    /* Not BEST: a newer derivation would orphan every sealed state. */
    uint32_t kdf_version = HWKEY_KDF_VERSION_1;

    if (crypto_sha256(label, strlen(label), source) != 0)
        return ERR_GENERIC;
    long session = hwkey_open();
    if (session < 0)
        return (int)session;
    long rc = hwkey_derive((hwkey_session_t)session, &kdf_version, source, out, sizeof(source));
    hwkey_close((hwkey_session_t)session);
    return rc < 0 ? (int)rc : 0;
}

static int keyslot(const char *slot, uint8_t out[32]) {
    uint32_t size_bytes = 32;
    long session = hwkey_open();

    if (session < 0)
        return (int)session;
    long rc = hwkey_get_keyslot_data((hwkey_session_t)session, slot, out, &size_bytes);
    hwkey_close((hwkey_session_t)session);
    if (rc >= 0 && size_bytes == 32)
        return 0;
    crypto_wipe(out, 32);
    return rc < 0 ? (int)rc : ERR_BAD_LEN;
}

int port_station_secret(uint8_t out[32]) {
    return keyslot(ENROL_KEYSLOT, out);
}

int port_link_secret(uint8_t out[32]) {
    return keyslot(LINK_KEYSLOT, out);
}

uint64_t port_uptime_ns(void) {
    static uint64_t last_ns;
    int64_t now_ns = 0;

    /* Where the clock fails time stands still: it never goes back, and a difference of two times is none below 0. */
    if (trusty_gettime(0, &now_ns) == NO_ERROR && now_ns > 0 && (uint64_t)now_ns > last_ns)
        last_ns = (uint64_t)now_ns;
    return last_ns;
}

static handle_t key_channel = INVALID_IPC_HANDLE;

static void key_drop(void) {
    if (key_channel != INVALID_IPC_HANDLE)
        close(key_channel);
    key_channel = INVALID_IPC_HANDLE;
}

/*
 * Not tipc_connect(): it waits for the port to appear, and an evaluation must not
 * hang because the key application was stopped.
 */
static int key_connect(void) {
    handle_t chan = connect(KEY_EVAL_PORT, IPC_CONNECT_ASYNC);
    if (chan < 0)
        return (int)chan;
    uevent_t event;
    int rc = wait(chan, &event, KEY_TIMEOUT_MS);
    if (rc == NO_ERROR && (event.event & IPC_HANDLE_POLL_READY) == 0)
        rc = ERR_CHANNEL_CLOSED;
    if (rc < 0) {
        close(chan);
        return rc;
    }
    key_channel = chan;
    return NO_ERROR;
}

static long key_exchange(const void *request, size_t request_bytes, void *answer, size_t answer_bytes) {
    uevent_t event;

    int sent = tipc_send1(key_channel, request, request_bytes);
    if (sent < 0)
        return sent;
    if ((size_t)sent != request_bytes)
        return ERR_IO;
    int rc = wait(key_channel, &event, KEY_TIMEOUT_MS);
    if (rc < 0)
        return rc;
    if ((event.event & IPC_HANDLE_POLL_MSG) == 0)
        return ERR_CHANNEL_CLOSED;
    return tipc_recv1(key_channel, sizeof(struct edged_hdr), answer, answer_bytes);
}

long port_key_call(const void *request, size_t request_bytes, void *answer, size_t answer_bytes,
                   bool *reconnected) {
    *reconnected = false;
    if (key_channel != INVALID_IPC_HANDLE) {
        long got = key_exchange(request, request_bytes, answer, answer_bytes);
        if (got >= 0)
            return got;
        /* Dropped, so that a late answer can never pass for that to another request. */
        key_drop();
        if (got == ERR_TIMED_OUT)
            return got;
    }
    /*
     * Repeating the request is harmless: a link lives and dies with its channel,
     * so the key application refuses on a new one what needs the old link.
     */
    int rc = key_connect();
    if (rc < 0)
        return rc;
    long got = key_exchange(request, request_bytes, answer, answer_bytes);
    if (got < 0)
        key_drop();
    else
        *reconnected = true;
    return got;
}
