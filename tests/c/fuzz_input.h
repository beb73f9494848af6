/*
 * fuzz_input.h - how a fuzzer's input is read: bytes taken from the front, zeros
 * once they are used up; and the operations of which an input of fuzz_eval is a list.
 */
#ifndef EDGED_TEST_FUZZ_INPUT_H
#define EDGED_TEST_FUZZ_INPUT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define FUZZ_SEED 1u

/* First byte: where the application stands. Second: bits 0..1 placement (3: masked, under the agreement with
 * skeletons), 2 window,
 * 3 U ahead, 4..5 persons, 6 resubmit, 7 evaluate a clip at the end. */
enum fuzz_start {
    FUZZ_START_EMPTY = 0,
    FUZZ_START_WEIGHTS = 1,
    FUZZ_START_READY = 2,
    FUZZ_START_PREPARE = 3,
    FUZZ_START_CLIP = 4,
    FUZZ_START_STEP = 5,
    FUZZ_START_COUNT = 6
};

/* Then operations, one byte each and what stands behind them. */
enum fuzz_operation {
    FUZZ_RAW = 0,     /* u16 size, u8 with handle, bytes */
    FUZZ_FRAMED = 1,  /* u8 command, u8 with handle, u16 size of the body, body */
    FUZZ_DUE = 2,     /* u8: so many messages of an honest client */
    FUZZ_PATCHED = 3, /* the next honest message; u8 count, then u16 at, u8 bits to flip */
    FUZZ_RESIZED = 4, /* the next honest message, i8 bytes longer, len too */
    FUZZ_STYLE = 5,   /* u8: as the second byte of the input */
    FUZZ_FAULT = 6,   /* u8 which, u8 when */
    FUZZ_DISCONNECT = 7,
    FUZZ_CITY = 8, /* u8 enum fuzz_city, u8 argument: well-formed messages beside the clips */
    FUZZ_OPERATIONS = 9
};

enum fuzz_city {
    CITY_AGREES = 0,   /* u8: which agreement */
    CITY_BEACON = 1,   /* bit 0 recipient, bit 1 agreement */
    CITY_LATE = 2,     /* a beacon so many minutes old, of recipient 1 where odd */
    CITY_CLOCK = 3,    /* the city's clock is set ahead by so many minutes */
    CITY_CLAIM = 4,    /* bits 0..1 place, the rest kind and size */
    CITY_EXERCISE = 5, /* bits 0..1 place, the rest the rule */
    CITY_CONFIRM = 6,  /* all but the last so many records */
    CITY_CLOSE = 7,
    CITY_RESTORE = 8, /* the last sealed state */
    CITY_RESTART = 9, /* the evaluation application is killed */
    CITY_SUCCEED = 10, /* bits 0..1 place, 2..3 that of what follows */
    CITY_OPERATIONS = 11
};

struct fuzz_input {
    const uint8_t *data;
    size_t left;
};

static inline uint8_t fuzz_byte(struct fuzz_input *in) {
    if (in->left == 0)
        return 0;
    in->left--;
    return *in->data++;
}

static inline uint16_t fuzz_short(struct fuzz_input *in) {
    const uint8_t low = fuzz_byte(in);
    return (uint16_t)(low | fuzz_byte(in) << 8);
}

/* At most `most` bytes into out; returns how many there were. */
static inline size_t fuzz_bytes(struct fuzz_input *in, uint8_t *out, size_t want, size_t most) {
    size_t n = want < most ? want : most;

    n = n < in->left ? n : in->left;
    if (n != 0)
        memcpy(out, in->data, n);
    in->data += n;
    in->left -= n;
    return n;
}

#endif
