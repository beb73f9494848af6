/*
 * port.h - what the platform-free core asks of its platform. eval/, key/ and
 * lib/ include no platform type; port/trusty/port.c answers with the Trusty API
 * (and so serves the host port, which implements that API on Linux).
 */
#ifndef EDGED_PORT_H
#define EDGED_PORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "edged_wire.h"

/* 0, or negative when the random source failed: the caller must stop. */
int port_random(uint8_t *out, size_t size_bytes);

/* out = KDF(device key, label): bound to device and application. 0 or < 0. */
int port_device_key(const char *label, uint8_t out[32]);

/* The secret that the flash station put into this device, and knows. 0, or < 0: it put none there. */
int port_station_secret(uint8_t out[32]);

/**
 * struct port_counter - what a monotonic store holds of this application
 * @value: only ever rises; 0 before the first
 * @name:  of what was current when it rose: a number alone would not tell two successors of one state apart
 */
struct port_counter {
    uint64_t value;
    uint8_t name[32];
};

#define PORT_NO_COUNTER 1

/* 0, PORT_NO_COUNTER where the platform has no such store, or < 0. */
int port_counter_read(struct port_counter *out);

/* Durable when it returns 0. Refuses what is lower, or as high with another name; equal is done already. */
int port_counter_raise(const struct port_counter *to);

/** struct port_boot - how the board came up (RFC 9711, claims oemboot and dbgstat) */
struct port_boot {
    bool verified;  /* the board is fused, and verified boot started the image */
    uint32_t debug; /* 0 enabled, 1 disabled, 2 since boot, 3 permanently, 4 fully and permanently */
};

struct port_boot port_boot_state(void);

/* True where nothing is protected (the host port). */
bool port_emulated(void);

/* True where handles of shared memory can be mapped. */
bool port_has_window(void);

/* Map size_bytes of the shared memory `handle`; takes the handle over, also on
 * failure. NULL when it cannot be mapped or is smaller than asked. */
void *port_window_map(int handle, size_t size_bytes);
void port_window_unmap(void *base, size_t size_bytes);

/* Fills what the port can measure; the caller zeroed it. */
void port_memory(struct edged_memory *out);

/* Nanoseconds since the device started, asleep or not; never goes back. The normal world cannot set it. */
uint64_t port_uptime_ns(void);

/* SHA-256 of the running image, as the platform vouches for it. */
void port_measurement(uint8_t out[32]);

/* The release's signature over it: PORT_SIGNATURE_BYTES, or 0 where it has none. */
#define PORT_SIGNATURE_BYTES 256u
uint32_t port_measurement_signature(uint8_t out[PORT_SIGNATURE_BYTES]);

/* What the platform gives to the two applications and to nobody else. 0, or negative where there is none. */
int port_link_secret(uint8_t out[32]);

/* One request to KEY_EVAL_PORT and its answer; connects on demand. Returns the
 * answer's size, or negative when the key application is away (the connection
 * is dropped, *reconnected is set at the next success). */
long port_key_call(const void *request, size_t request_bytes, void *answer, size_t answer_bytes,
                   bool *reconnected);

#endif
