#include "floor.h"

#include <string.h>

#include "bytes.h"
#include "cbor.h"
#include "crypto.h"

static const char FORM[] = "edged floor 1";

#define PAYLOAD_MAX 304u /* of all fields at their longest */

static void read_grants(struct cbor_reader *r, struct floor *f) {
    f->count = (uint32_t)cbor_read_array(r, 0, KEY_SLOTS);
    for (uint32_t i = 0; i < f->count; i++) {
        (void)cbor_read_array(r, 2, 2);
        f->grants[i].slot = (uint32_t)cbor_read_uint(r, KEY_SLOTS - 1);
        f->grants[i].number = (uint32_t)cbor_read_uint(r, UINT32_MAX);
        if (f->grants[i].number == 0 || (i != 0 && f->grants[i].slot <= f->grants[i - 1].slot))
            r->failed = true;
    }
}

enum edged_status floor_read(struct floor *f, const uint8_t *bytes, size_t size_bytes) {
    memset(f, 0, sizeof(*f));
    if (!cose_read_sign1(&f->message, bytes, size_bytes, PAYLOAD_MAX))
        return EDGED_ERR_GRANT;
    struct cbor_reader r = {.data = f->message.payload, .size = f->message.payload_bytes};
    cbor_expect_map(&r, 8);
    cbor_expect_text(&r, "form");
    cbor_expect_text(&r, FORM);
    cbor_expect_text(&r, "time");
    f->time_s = cbor_read_uint(&r, KEY_FLOOR_TIME_MAX);
    cbor_expect_text(&r, "model");
    f->model = (uint32_t)cbor_read_uint(&r, UINT32_MAX);
    cbor_expect_text(&r, "start");
    cbor_read_fixed(&r, f->start, sizeof(f->start));
    cbor_expect_text(&r, "device");
    cbor_read_fixed(&r, f->device, sizeof(f->device));
    cbor_expect_text(&r, "grants");
    read_grants(&r, f);
    cbor_expect_text(&r, "verifier");
    cbor_read_fixed(&r, f->verifier, sizeof(f->verifier));
    cbor_expect_text(&r, "agreement");
    f->agreement = (uint32_t)cbor_read_uint(&r, UINT32_MAX);
    return cbor_done(&r) && !is_zero(f->verifier, sizeof(f->verifier)) ? EDGED_OK : EDGED_ERR_GRANT;
}

bool floor_holds(const struct floor *f) {
    return cose_sign1_holds(&f->message, f->verifier, FORM);
}

/* Those that hold a grant of this party, a bit each. */
static uint32_t slots_of(const struct granted *g, const uint8_t verifier[32]) {
    uint32_t slots = 0;

    for (uint32_t i = 0; i < KEY_SLOTS; i++)
        if (g->slots[i].kind != KEY_EMPTY && memcmp(g->slots[i].verifier, verifier, 32) == 0)
            slots |= 1u << i;
    return slots;
}

static struct least *entry_of(struct granted *g, const uint8_t verifier[32]) {
    struct least *at = granted_least(g, verifier);

    for (uint32_t i = 0; i < KEY_FLOORS && at == NULL; i++)
        if (is_zero(g->least[i].verifier, sizeof(g->least[i].verifier))) {
            at = &g->least[i];
            memcpy(at->verifier, verifier, sizeof(at->verifier));
        }
    return at;
}

enum edged_status floor_apply(const struct floor *f, struct granted *draft, uint32_t *vouched) {
    const uint32_t mine = slots_of(draft, f->verifier);

    if (mine == 0)
        return EDGED_ERR_KEY; /* a stranger, who would take up a place of the parties' */
    struct least *least = entry_of(draft, f->verifier);
    if (least == NULL)
        return EDGED_ERR_FULL;
    if (least->agreement < f->agreement)
        least->agreement = f->agreement;
    if (least->model < f->model)
        least->model = f->model;
    if (least->time_s < f->time_s)
        least->time_s = f->time_s;
    *vouched &= ~mine;
    for (uint32_t i = 0; i < f->count; i++) {
        const uint32_t slot = f->grants[i].slot, number = f->grants[i].number;
        const struct number *at = granted_number(draft, f->verifier, slot);
        if ((mine >> slot & 1) != 0 && at != NULL && at->number < number)
            crypto_wipe(&draft->slots[slot], sizeof(draft->slots[slot]));
        else
            *vouched |= mine & 1u << slot;
        /* Also where the slot is empty, or another's: no older grant that was held back shall fill it later. */
        if ((at == NULL ? 0 : at->number) < number - 1)
            (void)granted_count(draft, f->verifier, slot, number - 1); /* no room: then a grant has none either */
    }
    return EDGED_OK;
}
