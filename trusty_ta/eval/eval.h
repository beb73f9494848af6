/*
 * eval.h - the evaluation application as its port sees it: one message in, one
 * answer out, no platform type.
 */
#ifndef EDGED_EVAL_H
#define EDGED_EVAL_H

#include <stddef.h>
#include <stdint.h>

#include "edged_wire.h"

struct eval;

/* NULL when memory, the random source or the device key is missing. */
struct eval *eval_create(void);

/*
 * Answer one message. request: private copy of size_bytes (at most
 * EDGED_MESSAGE_BYTES); handle: shared memory that came with it, or -1 (taken
 * over in every case). answer: EDGED_MESSAGE_BYTES. Returns the answer's size.
 */
size_t eval_message(struct eval *e, const uint8_t *request, size_t size_bytes, int handle,
                    uint8_t *answer);

/* The client is gone: its clip dies, its window is unmapped, its model dropped. */
void eval_disconnect(struct eval *e);

/* Wipe and free everything (tests; an application never stops by itself). */
void eval_destroy(struct eval *e);

#endif
