/* rsa_stub.h - see rsa_stub.c */
#ifndef EDGED_TEST_RSA_STUB_H
#define EDGED_TEST_RSA_STUB_H

#include "crypto.h"

/* n: the n-th draw from now fails; 0: none does. */
extern uint32_t rsa_left;

#define RSA_KEYS 2u

/* What answers must never hold: of each key drawn so far, the secret part of its DER. NULL: not drawn yet. */
const uint8_t *rsa_secret(uint32_t key, size_t *size_bytes);

#endif
