/*
 * floor.h - one party's fresh word on what of its grants it still stands by. edged_wire.h has its form.
 */
#ifndef EDGED_FLOOR_H
#define EDGED_FLOOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cose.h"
#include "edged_wire.h"
#include "state.h"

/** struct floor - one that was read; it points into its bytes */
struct floor {
    uint64_t time_s;
    uint32_t model;
    uint8_t start[32];
    uint8_t device[32];
    uint32_t count;
    struct {
        uint32_t slot;
        uint32_t number;
    } grants[KEY_SLOTS];
    uint8_t verifier[32];
    uint32_t agreement;
    struct cose_sign1 message;
};

/* OK once its form is right, else GRANT. Nothing that it says is believed yet. */
enum edged_status floor_read(struct floor *f, const uint8_t *bytes, size_t size_bytes);

/* Is it signed by whom it names? */
bool floor_holds(const struct floor *f);

/* What it does to the draft, and to the slots that are vouched for (a bit each). KEY or FULL: drop them both. */
enum edged_status floor_apply(const struct floor *f, struct granted *draft, uint32_t *vouched);

#endif
