/*
 * flow.h - bulk data between the network's tiles and a message or the window.
 * In messages it is strictly sequential; a word crosses once.
 */
#ifndef EDGED_FLOW_H
#define EDGED_FLOW_H

#include "state.h"

/* Products first .. end - 1 are due. */
void flow_begin(struct eval *e, uint32_t first, uint32_t end);
static inline bool flow_done(const struct eval *e) {
    return e->flow.product == e->flow.end;
}

/*
 * UNAVAILABLE (the random source failed) leaves the flow at no known place: the
 * caller must end what it belongs to.
 */

/* The next bytes that go out, for the request `at`; out takes EDGED_CHUNK_BYTES. */
enum edged_status flow_read(struct eval *e, enum network_flow kind, uint32_t persons,
                            const struct edged_chunk *at, uint8_t *out, size_t *size);
/* The next bytes of ybar. */
enum edged_status flow_write(struct eval *e, const struct edged_chunk *at, const uint8_t *bytes, size_t size);

/* A whole object to, or all of a ybar from, shared memory: each word is read or written once. */
enum edged_status flow_map_out(struct eval *e, enum network_flow kind, uint32_t product, uint32_t persons,
                               uint8_t *to);
enum edged_status flow_map_in(struct eval *e, uint32_t product, const uint8_t *from);

#endif
