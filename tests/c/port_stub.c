#include "port_stub.h"

#include <stdlib.h>
#include <string.h>

#include "crypto.h"
#include "vector.h"

/* Larger than any model of the tests asks for. */
#define WINDOW_MAX_BYTES ((size_t)8 << 20)

struct stub stub;

const uint8_t stub_key_uuid[16] = "the key's uuid!";
const uint8_t stub_eval_uuid[16] = "evaluation's id";

void stub_reset(uint64_t seed) {
    free(stub.window);
    memset(&stub, 0, sizeof(stub));
    stub.seed = seed;
    key_link_open(&stub.link, stub_eval_uuid);
}

int port_random(uint8_t *out, size_t size_bytes) {
    if (stub.random_left != 0 && --stub.random_left == 0)
        return -1;
    for (size_t i = 0; i < size_bytes; i++) { /* splitmix64 */
        uint64_t z = stub.seed += 0x9e3779b97f4a7c15;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        out[i] = (uint8_t)(z >> 56);
    }
    return 0;
}

int port_device_key(const char *label, uint8_t out[32]) {
    return crypto_sha256(label, strlen(label), out);
}

int port_station_secret(uint8_t out[32]) {
    memset(out, 0x5e, 32);
    return stub.no_station ? -1 : 0;
}

static bool counter_fails(void) {
    return stub.counter_left != 0 && --stub.counter_left == 0;
}

int port_counter_read(struct port_counter *out) {
    *out = stub.counter;
    return stub.no_counter ? PORT_NO_COUNTER : counter_fails() ? -1 : 0;
}

int port_counter_raise(const struct port_counter *to) {
    CHECK(!stub.no_counter, "there is one to be raised");
    if (counter_fails())
        return -1;
    if (memcmp(to, &stub.counter, sizeof(*to)) != 0 && to->value <= stub.counter.value)
        return -1;
    stub.counter = *to;
    return 0;
}

struct port_boot port_boot_state(void) {
    return stub.boot;
}

bool port_emulated(void) {
    return !stub.hardware;
}

bool port_has_window(void) {
    return true;
}

void *port_window_map(int handle, size_t size_bytes) {
    CHECK(handle >= 0, "a handle");
    stub.handles++;
    if (size_bytes == 0 || size_bytes > WINDOW_MAX_BYTES)
        return NULL;
    CHECK(stub.window == NULL, "one window at a time");
    stub.window = calloc(1, size_bytes);
    stub.window_bytes = size_bytes;
    return stub.window;
}

void port_window_unmap(void *base, size_t size_bytes) {
    CHECK(base == stub.window && size_bytes == stub.window_bytes, "the window that was mapped");
    free(stub.window);
    stub.window = NULL;
    stub.window_bytes = 0;
}

void port_memory(struct edged_memory *out) {
    out->heap_limit = 1;
}

uint64_t port_uptime_ns(void) {
    return stub.uptime_ns += 1000;
}

void port_measurement(uint8_t out[32]) {
    memset(out, 0x11, 32);
}

uint32_t port_measurement_signature(uint8_t out[PORT_SIGNATURE_BYTES]) {
    (void)out;
    return 0;
}

int port_link_secret(uint8_t out[32]) {
    memset(out, 0x6c, 32);
    return stub.no_link_secret ? -1 : 0;
}

long port_key_call(const void *request, size_t request_bytes, void *answer, size_t answer_bytes,
                   bool *reconnected) {
    uint8_t full[EDGED_MESSAGE_BYTES];

    *reconnected = false;
    if (stub.before_key_call != NULL)
        stub.before_key_call();
    if (stub.key_away != 0) {
        stub.key_away--;
        key_link_close(&stub.link);
        stub.reconnect = true;
        return -1;
    }
    if (stub.reconnect) {
        key_link_close(&stub.link);
        *reconnected = true;
        stub.reconnect = false;
    }
    size_t n = key_eval_message(stub.key, &stub.link, request, request_bytes, full);
    CHECK(n >= sizeof(struct edged_hdr) && n <= sizeof(full), "answer of the key application: %zu", n);
    if (stub.key_garbles != 0) {
        stub.key_garbles--;
        full[stub.garbled_bit / 8 % n] ^= (uint8_t)(1u << stub.garbled_bit % 8);
    }
    if (n > answer_bytes)
        return -1;
    memcpy(answer, full, n);
    return (long)n;
}
