/*
 * key.h - the key application as its port sees it.
 */
#ifndef EDGED_KEY_H
#define EDGED_KEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "edged_wire.h"

struct key_app;

/**
 * struct key_link - state of one channel of KEY_EVAL_PORT
 * @peer:             UUID of the application at its other end, vouched for by the trusted kernel
 * @open:             there is a key, which the other end may have
 * @confirmed:        it has shown that it does
 * @measurement, @security_version: as it introduced itself
 */
struct key_link {
    uint8_t peer[16];
    bool open;
    bool confirmed;
    uint8_t key[32];
    uint64_t counter;
    uint8_t measurement[32];
    uint32_t security_version;
};

/* uuid: the key application's own. */
struct key_app *key_create(const uint8_t uuid[16]);

/* One message of KEY_PORT. answer: EDGED_MESSAGE_BYTES. Returns its size. */
size_t key_message(struct key_app *k, const uint8_t *request, size_t size_bytes, uint8_t *answer);

/* One message of KEY_EVAL_PORT; the port has checked the peer's UUID. */
size_t key_eval_message(struct key_app *k, struct key_link *link, const uint8_t *request,
                        size_t size_bytes, uint8_t *answer);

void key_link_open(struct key_link *link, const uint8_t peer[16]); /* a new channel */
void key_link_close(struct key_link *link); /* wipes all but whose it was */
void key_destroy(struct key_app *k);

#endif
