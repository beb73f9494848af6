/*
 * crypto_stub.c - a crypto library that fails on demand (the random stream, a seal):
 * linked into fuzz_eval and message_test with --wrap of these two.
 */
#include "crypto_stub.h"

int __real_crypto_stream_fill(struct crypto_stream *s, uint64_t offset, uint8_t *out, size_t size_bytes);
int __wrap_crypto_stream_fill(struct crypto_stream *s, uint64_t offset, uint8_t *out, size_t size_bytes);
int __real_crypto_gcm_seal(const uint8_t *key, size_t key_bytes, const uint8_t nonce[12], const uint8_t *aad,
                           size_t aad_bytes, const uint8_t *plain, size_t size_bytes, uint8_t *out);
int __wrap_crypto_gcm_seal(const uint8_t *key, size_t key_bytes, const uint8_t nonce[12], const uint8_t *aad,
                           size_t aad_bytes, const uint8_t *plain, size_t size_bytes, uint8_t *out);

uint32_t stream_left, seal_left;

int __wrap_crypto_stream_fill(struct crypto_stream *s, uint64_t offset, uint8_t *out, size_t size_bytes) {
    if (stream_left != 0 && --stream_left == 0)
        return -1;
    return __real_crypto_stream_fill(s, offset, out, size_bytes);
}

int __wrap_crypto_gcm_seal(const uint8_t *key, size_t key_bytes, const uint8_t nonce[12], const uint8_t *aad,
                           size_t aad_bytes, const uint8_t *plain, size_t size_bytes, uint8_t *out) {
    if (seal_left != 0 && --seal_left == 0)
        return -1;
    return __real_crypto_gcm_seal(key, key_bytes, nonce, aad, aad_bytes, plain, size_bytes, out);
}
