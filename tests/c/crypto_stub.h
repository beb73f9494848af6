/* crypto_stub.h - see crypto_stub.c */
#ifndef EDGED_TEST_CRYPTO_STUB_H
#define EDGED_TEST_CRYPTO_STUB_H

#include "crypto.h"

/* n: the n-th call from now fails; 0: none does. */
extern uint32_t stream_left, seal_left;

#endif
