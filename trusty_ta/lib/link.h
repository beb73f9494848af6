/*
 * link.h - what both ends of the session between the applications compute.
 */
#ifndef EDGED_LINK_H
#define EDGED_LINK_H

#include <stdbool.h>

#include "edged_wire.h"

/* A fresh hello: nonce, X25519 key pair, measurement. 0, or -1. */
int link_hello(struct key_hello *h, uint8_t private_key[32]);

/* What a release's signature over a measurement begins with: it fits one of the two applications only. */
#define LINK_SIGNED_KEY "edged measurement v1 com.edged.key"
#define LINK_SIGNED_EVAL "edged measurement v1 com.edged.eval"

/* True when a peer's hello is one that this build accepts: of its release, or a later one. application: the peer's. */
bool link_accepts(const struct key_hello *peer, const char *application);

/* The link key (edged_wire.h, struct key_hello). 0, or -1. */
int link_key(const uint8_t private_key[32], const struct key_hello *peer, const struct key_hello *from_eval,
             const struct key_hello *from_key, uint8_t key[32]);

/* What the evaluation application shows to have it (edged_wire.h, struct key_confirm). 0, or -1. */
int link_tag(const uint8_t key[32], uint8_t tag[32]);

#endif
