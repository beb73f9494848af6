/*
 * trusty/time.h - declared from the API's description, for building without
 * Trusty's own tree.
 */
#ifndef EDGED_TRUSTY_TIME_H
#define EDGED_TRUSTY_TIME_H

#include <stdint.h>

/* Nanoseconds since start; clock_id 0. NO_ERROR, or negative. */
int trusty_gettime(uint32_t clock_id, int64_t *time_ns);

#endif
