/* uapi/trusty_uuid.h - the name of a Trusty application. */
#ifndef EDGED_TRUSTY_UUID_H
#define EDGED_TRUSTY_UUID_H

#include <stdint.h>

typedef struct uuid {
    uint32_t time_low;
    uint16_t time_mid;
    uint16_t time_hi_and_version;
    uint8_t clock_seq_and_node[8];
} uuid_t;

#endif
