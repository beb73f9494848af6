/*
 * link.h - what both ends of the session between the applications compute.
 */
#ifndef EDGED_LINK_H
#define EDGED_LINK_H

#include "edged_wire.h"

/* A fresh hello: nonce, X25519 key pair, measurement. 0, or -1. */
int link_hello(struct key_hello *h, uint8_t private_key[32]);

/* True when a peer's hello is one that this build accepts. */
int link_accepts(const struct key_hello *peer);

/* The link key (edged_wire.h, struct key_hello). 0, or -1. */
int link_key(const uint8_t private_key[32], const struct key_hello *peer, const struct key_hello *from_eval,
             const struct key_hello *from_key, uint8_t key[32]);

#endif
