/*
 * rsa_stub.c - two keys are drawn once and then serve for all: a draw takes a tenth of a second.
 * Linked with --wrap=crypto_rsa_new.
 */
#include "rsa_stub.h"

/* DER PKCS#8 up to the modulus' end, and the exponent: public. */
#define PUBLIC_BYTES 300u

struct crypto_rsa *__real_crypto_rsa_new(void);
struct crypto_rsa *__wrap_crypto_rsa_new(void);

uint32_t rsa_left;

static uint8_t der[RSA_KEYS][CRYPTO_RSA_PRIVATE_MAX];
static size_t der_bytes[RSA_KEYS];
static uint32_t draws;

struct crypto_rsa *__wrap_crypto_rsa_new(void) {
    const uint32_t key = draws++ % RSA_KEYS;

    if (rsa_left != 0 && --rsa_left == 0)
        return NULL;
    if (der_bytes[key] != 0)
        return crypto_rsa_private(der[key], der_bytes[key]);
    struct crypto_rsa *k = __real_crypto_rsa_new();
    if (k != NULL && crypto_rsa_pkcs8(k, der[key], &der_bytes[key]) != 0)
        der_bytes[key] = 0;
    return k;
}

const uint8_t *rsa_secret(uint32_t key, size_t *size_bytes) {
    *size_bytes = der_bytes[key] > PUBLIC_BYTES ? der_bytes[key] - PUBLIC_BYTES : 0;
    return *size_bytes != 0 ? der[key] + PUBLIC_BYTES : NULL;
}
