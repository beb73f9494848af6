/*
 * ask.h - what the city or the bridge asks beside clips, one request each; client.status
 * says what was answered.
 */
#ifndef EDGED_TEST_ASK_H
#define EDGED_TEST_ASK_H

#include "client.h"

#define REFUSED(STATUS) CHECK(client.status == (STATUS), "status %u", client.status)
#define DONE REFUSED(EDGED_OK)

void ask_agree(uint32_t deal); /* an agreement by its number in the vector file */
void ask_confirm(uint64_t emission);
void ask_beacon(uint32_t place, uint32_t recipient, uint64_t time_ns);
void ask_claim(uint32_t place, uint32_t kind, uint32_t bytes);
void ask_exercise(uint32_t place, uint32_t rule);
void ask_succeed(uint32_t place, uint32_t successor);
void ask_restore(const struct edged_state *state);
void ask_index(uint16_t cmd, uint32_t index); /* a command whose body is struct eval_index */
uint32_t ask_kept(void);                      /* records that are kept */

#endif
