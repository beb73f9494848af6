/* key_ask.h - one request to a key application in this process, with a right header. */
#ifndef EDGED_TEST_KEY_ASK_H
#define EDGED_TEST_KEY_ASK_H

#include <stddef.h>
#include <stdint.h>

#include "key.h"
#include "link.h"

/* By the evaluation application where there is a link, else by the normal world. */
enum edged_status key_ask(struct key_app *key, struct key_link *link, uint16_t cmd, const void *body,
                          size_t size_bytes, uint8_t answer[EDGED_MESSAGE_BYTES]);

#endif
