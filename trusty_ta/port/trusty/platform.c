/*
 * platform.c - what a Trusty platform says about itself (the host port has its own).
 */
#include "port.h"

#include "window.h"

bool port_emulated(void) {
    return false;
}

/* Trusty measures neither heap nor stack of an application: those stay 0. */
void port_memory(struct edged_memory *out) {
    out->window = window_mapped_bytes();
}

/*
 * Build constants like the measurement below: no call of the API reads a fuse. Whoever signs the image for
 * fused boards sets them in rules.mk (the choice is measured); the flash station, which burns the
 * fuses, gives a certificate of the class hardware to no other board.
 */
#ifndef EDGED_OEMBOOT
#define EDGED_OEMBOOT 0
#endif
#ifndef EDGED_DBGSTAT
#define EDGED_DBGSTAT 0
#endif

static_assert((EDGED_OEMBOOT == 0 || EDGED_OEMBOOT == 1) && EDGED_DBGSTAT >= 0 && EDGED_DBGSTAT <= 4,
              "as RFC 9711 has them");

struct port_boot port_boot_state(void) {
    return (struct port_boot){.verified = EDGED_OEMBOOT == 1, .debug = EDGED_DBGSTAT};
}

/*
 * A build constant: no call of the API hashes the running image. What vouches for
 * it is secure boot, which starts only the signed image that carries it. rules.mk
 * sets EDGED_MEASUREMENT to the SHA-256 (64 hex digits) over the sources, which
 * both parties can recompute; without it the measurement is all zero, which no
 * verifier accepts.
 */
#ifndef EDGED_MEASUREMENT
#define EDGED_MEASUREMENT "0000000000000000000000000000000000000000000000000000000000000000"
#endif

static_assert(sizeof(EDGED_MEASUREMENT) == 2 * 32 + 1, "64 hex digits");

static uint8_t hex_digit(char c) {
    return (uint8_t)(c <= '9' ? c - '0' : c - 'a' + 10);
}

static void from_hex(const char *hex, uint8_t *out, size_t size_bytes) {
    for (size_t i = 0; i < size_bytes; i++)
        out[i] = (uint8_t)(hex_digit(hex[2 * i]) << 4 | hex_digit(hex[2 * i + 1]));
}

void port_measurement(uint8_t out[32]) {
    from_hex(EDGED_MEASUREMENT, out, 32);
}

/* The release's signature over that measurement, in hex: not a part of what is measured. */
#ifdef EDGED_MEASUREMENT_SIGNATURE
static_assert(sizeof(EDGED_MEASUREMENT_SIGNATURE) == 2 * PORT_SIGNATURE_BYTES + 1, "512 hex digits");

uint32_t port_measurement_signature(uint8_t out[PORT_SIGNATURE_BYTES]) {
    from_hex(EDGED_MEASUREMENT_SIGNATURE, out, PORT_SIGNATURE_BYTES);
    return PORT_SIGNATURE_BYTES;
}
#else
uint32_t port_measurement_signature(uint8_t out[PORT_SIGNATURE_BYTES]) {
    (void)out;
    return 0;
}
#endif
