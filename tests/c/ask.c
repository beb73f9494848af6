#include "ask.h"

#include <string.h>

#include "vector.h"

void ask_agree(uint32_t deal) {
    char name[32];
    size_t size;

    snprintf(name, sizeof(name), "agreement/%u", deal);
    const void *body = vector_get(name, &size);
    client_request(EVAL_AGREEMENT, body, size, -1);
}

void ask_confirm(uint64_t emission) {
    const struct eval_emission ask = {.emission = emission};
    client_request(EVAL_CONFIRM, &ask, sizeof(ask), -1);
}

void ask_beacon(uint32_t place, uint32_t recipient, uint64_t time_ns) {
    const struct eval_beacon ask = city_beacon(place, recipient, time_ns);
    client_request(EVAL_BEACON, &ask, sizeof(ask), -1);
}

void ask_claim(uint32_t place, uint32_t kind, uint32_t bytes) {
    struct {
        struct eval_claim head;
        uint8_t bytes[EDGED_CLAIM_MAX + 1];
    } ask = {.head = {.agreement = place, .kind = kind, .bytes = bytes}};

    CHECK(bytes <= sizeof(ask.bytes), "claim");
    memset(ask.bytes, 'c', bytes);
    client_request(EVAL_CLAIM, &ask, sizeof(ask.head) + bytes, -1);
}

void ask_exercise(uint32_t place, uint32_t rule) {
    const struct eval_exercise ask = {.agreement = place, .rule = rule};
    client_request(EVAL_EXERCISE, &ask, sizeof(ask), -1);
}

void ask_succeed(uint32_t place, uint32_t successor) {
    const struct eval_succeed ask = {.agreement = place, .successor = successor};
    client_request(EVAL_SUCCEED, &ask, sizeof(ask), -1);
}

void ask_restore(const struct edged_state *state) {
    client_request(EVAL_RESTORE, state, sizeof(*state), -1);
}

void ask_index(uint16_t cmd, uint32_t index) {
    const struct eval_index ask = {.index = index};
    client_request(cmd, &ask, sizeof(ask), -1);
}

uint32_t ask_kept(void) {
    struct eval_info info;

    client_request(EVAL_INFO, NULL, 0, -1);
    memcpy(&info, client.answer + sizeof(struct edged_hdr), sizeof(info));
    return info.kept;
}
