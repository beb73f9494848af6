/*
 * service.h - one message in, one answer out, on a Trusty channel. Shared by the
 * applications' main.c.
 */
#ifndef EDGED_SERVICE_H
#define EDGED_SERVICE_H

#include <stddef.h>
#include <stdint.h>

#include <trusty_ipc.h>

#include "edged_wire.h"

/**
 * struct service_request - the only copy of a message that anybody reads
 * @handle:  shared memory that came with it, or INVALID_IPC_HANDLE
 * @refusal: not EDGED_OK where the message must not reach the application
 */
struct service_request {
    uint8_t bytes[EDGED_MESSAGE_BYTES];
    size_t size_bytes;
    handle_t handle;
    enum edged_status refusal;
};

/*
 * Take one message off the channel. max_handles: 0 or 1. NO_ERROR, or negative:
 * close the channel. No handle is taken with a refusal.
 */
int service_receive(handle_t chan, uint32_t max_handles, struct service_request *r);

/* The answer to a refused message. Returns its size. */
size_t service_refuse(const struct service_request *r, uint8_t *answer);

/*
 * NO_ERROR, or negative where the peer does not read its answers: the channel
 * must be closed, an application never waits for its client.
 */
int service_answer(handle_t chan, const uint8_t *answer, size_t size_bytes);

#endif
