/*
 * crypto.h - the few calls that edged makes to its crypto library: BoringSSL on
 * Trusty, OpenSSL 3 or BoringSSL on the host. Only crypto.c and rsa.c include
 * headers of theirs. Functions return 0, or -1 when the library failed or a seal,
 * key or signature is wrong.
 */
#ifndef EDGED_CRYPTO_H
#define EDGED_CRYPTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CRYPTO_TAG_BYTES 16u

/* Touch every algorithm once, so that nothing is fetched or opened later. */
int crypto_init(void);

void crypto_wipe(void *p, size_t size_bytes);
bool crypto_equal(const void *a, const void *b, size_t size_bytes); /* constant time */

int crypto_sha256(const void *data, size_t size_bytes, uint8_t out[32]);

struct crypto_hash; /* a running SHA-256 */
struct crypto_hash *crypto_hash_new(void);
int crypto_hash_update(struct crypto_hash *h, const void *data, size_t size_bytes);
int crypto_hash_final(struct crypto_hash *h, uint8_t out[32]);
void crypto_hash_free(struct crypto_hash *h);

int crypto_hmac_sha256(const uint8_t *key, size_t key_bytes, const uint8_t *data, size_t data_bytes,
                       uint8_t out[32]);

/* HKDF (RFC 5869) with SHA-256; info at most 128 bytes, out at most 32. */
int crypto_hkdf_sha256(const uint8_t *ikm, size_t ikm_bytes, const uint8_t *salt, size_t salt_bytes,
                       const uint8_t *info, size_t info_bytes, uint8_t *out, size_t out_bytes);

/* AES-GCM, key of 16 or 32 bytes. out: size_bytes + 16; in place allowed. */
int crypto_gcm_seal(const uint8_t *key, size_t key_bytes, const uint8_t nonce[12], const uint8_t *aad,
                    size_t aad_bytes, const uint8_t *plain, size_t size_bytes, uint8_t *out);
/* sealed: size_bytes + 16; in place allowed; out is wiped on failure. */
int crypto_gcm_open(const uint8_t *key, size_t key_bytes, const uint8_t nonce[12], const uint8_t *aad,
                    size_t aad_bytes, const uint8_t *sealed, size_t size_bytes, uint8_t *out);

int crypto_ed25519_verify(const uint8_t public_key[32], const uint8_t *message, size_t size_bytes,
                          const uint8_t signature[64]);

int crypto_x25519_public(const uint8_t private_key[32], uint8_t public_key[32]);
int crypto_x25519(const uint8_t private_key[32], const uint8_t peer[32], uint8_t shared[32]);

/*
 * RSA: PS256 (PSS, SHA-256, salt of 32 bytes) and OAEP (SHA-256, MGF1 with it). Keys that are drawn or
 * kept have 2048 bits and the exponent 65537; one that only verifies may have 3072.
 */
struct crypto_rsa;

#define CRYPTO_RSA_BYTES 256u         /* modulus, signature, ciphertext */
#define CRYPTO_RSA_EXPONENT_BYTES 3u
#define CRYPTO_RSA_SPKI_BYTES 294u    /* DER SubjectPublicKeyInfo, always */
#define CRYPTO_RSA_PRIVATE_MAX 1232u  /* DER PKCS#8: 1220 where every number has its leading zero */
#define CRYPTO_OAEP_MAX 190u          /* 256 - 2 - 2 * 32 */

struct crypto_rsa *crypto_rsa_new(void); /* draws one: seconds on a slow core */
struct crypto_rsa *crypto_rsa_private(const uint8_t *pkcs8, size_t size_bytes);
struct crypto_rsa *crypto_rsa_public(const uint8_t *spki, size_t size_bytes);
void crypto_rsa_free(struct crypto_rsa *k); /* wipes it */

int crypto_rsa_pkcs8(const struct crypto_rsa *k, uint8_t out[CRYPTO_RSA_PRIVATE_MAX], size_t *size_bytes);
int crypto_rsa_spki(const struct crypto_rsa *k, uint8_t out[CRYPTO_RSA_SPKI_BYTES]);
/* Both big-endian, first byte not 0. */
int crypto_rsa_numbers(const struct crypto_rsa *k, uint8_t modulus[CRYPTO_RSA_BYTES],
                       uint8_t exponent[CRYPTO_RSA_EXPONENT_BYTES]);

int crypto_rsa_sign(const struct crypto_rsa *k, const uint8_t *message, size_t size_bytes,
                    uint8_t signature[CRYPTO_RSA_BYTES]);
int crypto_rsa_verify(const struct crypto_rsa *k, const uint8_t *message, size_t size_bytes,
                      const uint8_t *signature, size_t signature_bytes);
/* out is wiped on failure, and all failures look alike. */
int crypto_rsa_decrypt(const struct crypto_rsa *k, const uint8_t *label, size_t label_bytes,
                       const uint8_t sealed[CRYPTO_RSA_BYTES], uint8_t out[CRYPTO_OAEP_MAX],
                       size_t *size_bytes);

int crypto_rsa_touch(void); /* part of crypto_init */

/* A random-access stream cipher: byte `offset` of the key's stream onwards. */
struct crypto_stream;
struct crypto_stream *crypto_stream_new(void);
int crypto_stream_key(struct crypto_stream *s, const uint8_t key[32]);
int crypto_stream_fill(struct crypto_stream *s, uint64_t offset, uint8_t *out, size_t size_bytes);
void crypto_stream_free(struct crypto_stream *s);

#endif
