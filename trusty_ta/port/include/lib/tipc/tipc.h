/* lib/tipc/tipc.h - Trusty's client helper. Written from shared/TRUSTY.md. */
#ifndef EDGED_TIPC_H
#define EDGED_TIPC_H

#include <stddef.h>
#include <stdint.h>

#include <trusty_ipc.h>

int tipc_connect(handle_t *handle, const char *port);

/* Bytes sent, or an error. */
int tipc_send1(handle_t chan, const void *buf, size_t size_bytes);
int tipc_send2(handle_t chan, const void *hdr, size_t hdr_bytes, const void *payload,
               size_t payload_bytes);

/* Bytes received; an error when there are fewer than min_bytes or too many. */
int tipc_recv1(handle_t chan, size_t min_bytes, void *buf, size_t size_bytes);
int tipc_recv2(handle_t chan, size_t min_bytes, void *buf1, size_t size1_bytes, void *buf2,
               size_t size2_bytes);

#endif
