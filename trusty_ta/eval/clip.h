/*
 * clip.h - a clip under way: accepted, evaluated step by step, ended by a record.
 */
#ifndef EDGED_CLIP_H
#define EDGED_CLIP_H

#include "state.h"

/* Each answers with struct eval_step and, at the end, records; *size counts both. */
enum edged_status clip_open(struct eval *e, const struct eval_clip_open *ask, uint8_t *out, size_t *size);
enum edged_status clip_write(struct eval *e, const struct edged_chunk *at, const uint8_t *bytes, size_t n);
enum edged_status clip_begin(struct eval *e, uint8_t *out, size_t *size);
enum edged_status clip_step(struct eval *e, const struct eval_index *ask, uint8_t *out, size_t *size);
enum edged_status clip_abort(struct eval *e, const struct eval_index *ask, uint8_t *out, size_t *size);

enum edged_status clip_read(struct eval *e, const struct edged_chunk *at, uint8_t *out, size_t *size);
enum edged_status clip_take(struct eval *e, const struct edged_chunk *at, const uint8_t *bytes, size_t n);

enum edged_status prepare_open(struct eval *e, const struct eval_prepare_open *ask, struct eval_invocation *out);
enum edged_status prepare_drop(struct eval *e, const struct eval_invocation *ask);
/* U + pad of the last product is out: the invocation waits for its clip. */
void prepare_done(struct eval *e);

#endif
