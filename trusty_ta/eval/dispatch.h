/*
 * dispatch.h - one message through the one table.
 */
#ifndef EDGED_DISPATCH_H
#define EDGED_DISPATCH_H

#include "state.h"

/* As eval_message (eval.h). */
size_t dispatch(struct eval *e, const uint8_t *request, size_t size_bytes, int handle, uint8_t *answer);

/* Where product's xbar and ybar lie in the window; and how large it must be. */
void window_offsets(const struct eval *e, uint32_t product, uint64_t *x_offset, uint64_t *y_offset);
uint64_t window_need(const struct eval *e);

#endif
