#include "key_ask.h"

#include <string.h>

#include "vector.h"

enum edged_status key_ask(struct key_app *key, struct key_link *link, uint16_t cmd, const void *body,
                          size_t size_bytes, uint8_t answer[EDGED_MESSAGE_BYTES]) {
    uint8_t message[EDGED_MESSAGE_BYTES];
    struct edged_hdr h = {.version = EDGED_WIRE_VERSION, .cmd = cmd, .len = (uint32_t)size_bytes};

    CHECK(size_bytes <= sizeof(message) - sizeof(h), "%zu bytes", size_bytes);
    memcpy(message, &h, sizeof(h));
    if (size_bytes != 0)
        memcpy(message + sizeof(h), body, size_bytes);
    const size_t n = link != NULL ? key_eval_message(key, link, message, sizeof(h) + size_bytes, answer)
                                  : key_message(key, message, sizeof(h) + size_bytes, answer);
    memcpy(&h, answer, sizeof(h));
    CHECK(h.len == n - sizeof(h) && (h.status == EDGED_OK || h.len == 0), "answer");
    return (enum edged_status)h.status;
}
