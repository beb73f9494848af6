/*
 * crypto.c - crypto.h on OpenSSL 3 or BoringSSL, but for RSA (rsa.c).
 *
 * The stream is AES-256-CTR; where the processor has no AES instructions
 * (EDGED_STREAM_CHACHA20: 32-bit Trusty on Xavier) it is ChaCha20, which no
 * table index makes leak.
 */
#include "crypto.h"

#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#ifdef OPENSSL_IS_BORINGSSL
#include <openssl/chacha.h>
#include <openssl/mem.h>
#endif

#include "bytes.h"

void crypto_wipe(void *p, size_t size_bytes) {
    OPENSSL_cleanse(p, size_bytes);
}

bool crypto_equal(const void *a, const void *b, size_t size_bytes) {
    return CRYPTO_memcmp(a, b, size_bytes) == 0;
}

int crypto_sha256(const void *data, size_t size_bytes, uint8_t out[32]) {
    return EVP_Digest(data, size_bytes, out, NULL, EVP_sha256(), NULL) == 1 ? 0 : -1;
}

/* An EVP_MD_CTX under our own name: the library's type stays in this file. */
struct crypto_hash *crypto_hash_new(void) {
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    if (c != NULL && EVP_DigestInit_ex(c, EVP_sha256(), NULL) != 1) {
        EVP_MD_CTX_free(c);
        c = NULL;
    }
    return (struct crypto_hash *)c;
}

int crypto_hash_update(struct crypto_hash *h, const void *data, size_t size_bytes) {
    return EVP_DigestUpdate((EVP_MD_CTX *)h, data, size_bytes) == 1 ? 0 : -1;
}

int crypto_hash_final(struct crypto_hash *h, uint8_t out[32]) {
    return EVP_DigestFinal_ex((EVP_MD_CTX *)h, out, NULL) == 1 ? 0 : -1;
}

void crypto_hash_free(struct crypto_hash *h) {
    EVP_MD_CTX_free((EVP_MD_CTX *)h);
}

int crypto_hmac_sha256(const uint8_t *key, size_t key_bytes, const uint8_t *data, size_t data_bytes,
                       uint8_t out[32]) {
#ifdef OPENSSL_IS_BORINGSSL
    const size_t key_size = key_bytes;
#else
    const int key_size = (int)key_bytes;
#endif
    unsigned int n = 0;
    return HMAC(EVP_sha256(), key, key_size, data, data_bytes, out, &n) != NULL && n == 32 ? 0 : -1;
}

int crypto_hkdf_sha256(const uint8_t *ikm, size_t ikm_bytes, const uint8_t *salt, size_t salt_bytes,
                       const uint8_t *info, size_t info_bytes, uint8_t *out, size_t out_bytes) {
    uint8_t prk[32], okm[32], block[128 + 1];
    int rc = -1;

    if (info_bytes > 128 || out_bytes > 32)
        return -1;
    if (info_bytes != 0)
        memcpy(block, info, info_bytes);
    block[info_bytes] = 1; /* T(1) is all that 32 bytes need */
    if (crypto_hmac_sha256(salt, salt_bytes, ikm, ikm_bytes, prk) == 0 &&
        crypto_hmac_sha256(prk, 32, block, info_bytes + 1, okm) == 0) {
        memcpy(out, okm, out_bytes);
        rc = 0;
    }
    crypto_wipe(prk, sizeof(prk));
    crypto_wipe(okm, sizeof(okm));
    return rc;
}

static const EVP_CIPHER *gcm_cipher(size_t key_bytes) {
    return key_bytes == 32 ? EVP_aes_256_gcm() : key_bytes == 16 ? EVP_aes_128_gcm() : NULL;
}

int crypto_gcm_seal(const uint8_t *key, size_t key_bytes, const uint8_t nonce[12], const uint8_t *aad,
                    size_t aad_bytes, const uint8_t *plain, size_t size_bytes, uint8_t *out) {
    const EVP_CIPHER *cipher = gcm_cipher(key_bytes);
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    int n = 0;
    bool ok = c != NULL && cipher != NULL && EVP_EncryptInit_ex(c, cipher, NULL, key, nonce) == 1 &&
              EVP_EncryptUpdate(c, NULL, &n, aad, (int)aad_bytes) == 1 &&
              EVP_EncryptUpdate(c, out, &n, plain, (int)size_bytes) == 1 &&
              EVP_EncryptFinal_ex(c, out + size_bytes, &n) == 1 &&
              EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, (int)CRYPTO_TAG_BYTES, out + size_bytes) == 1;
    EVP_CIPHER_CTX_free(c);
    return ok ? 0 : -1;
}

int crypto_gcm_open(const uint8_t *key, size_t key_bytes, const uint8_t nonce[12], const uint8_t *aad,
                    size_t aad_bytes, const uint8_t *sealed, size_t size_bytes, uint8_t *out) {
    const EVP_CIPHER *cipher = gcm_cipher(key_bytes);
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    uint8_t tag[CRYPTO_TAG_BYTES], last[16];
    int n = 0;

    memcpy(tag, sealed + size_bytes, sizeof(tag));
    bool ok = c != NULL && cipher != NULL && EVP_DecryptInit_ex(c, cipher, NULL, key, nonce) == 1 &&
              EVP_DecryptUpdate(c, NULL, &n, aad, (int)aad_bytes) == 1 &&
              EVP_DecryptUpdate(c, out, &n, sealed, (int)size_bytes) == 1 &&
              EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_TAG, (int)CRYPTO_TAG_BYTES, tag) == 1 &&
              EVP_DecryptFinal_ex(c, last, &n) == 1;
    EVP_CIPHER_CTX_free(c);
    if (!ok)
        crypto_wipe(out, size_bytes);
    return ok ? 0 : -1;
}

int crypto_ed25519_verify(const uint8_t public_key[32], const uint8_t *message, size_t size_bytes,
                          const uint8_t signature[64]) {
    EVP_PKEY *k = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, public_key, 32);
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    bool ok = k != NULL && c != NULL && EVP_DigestVerifyInit(c, NULL, NULL, NULL, k) == 1 &&
              EVP_DigestVerify(c, signature, 64, message, size_bytes) == 1;
    EVP_MD_CTX_free(c);
    EVP_PKEY_free(k);
    return ok ? 0 : -1;
}

int crypto_x25519_public(const uint8_t private_key[32], uint8_t public_key[32]) {
    EVP_PKEY *k = EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, private_key, 32);
    size_t n = 32;
    bool ok = k != NULL && EVP_PKEY_get_raw_public_key(k, public_key, &n) == 1 && n == 32;
    EVP_PKEY_free(k);
    return ok ? 0 : -1;
}

int crypto_x25519(const uint8_t private_key[32], const uint8_t peer[32], uint8_t shared[32]) {
    EVP_PKEY *k = EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, private_key, 32);
    EVP_PKEY *p = EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, NULL, peer, 32);
    EVP_PKEY_CTX *c = k == NULL ? NULL : EVP_PKEY_CTX_new(k, NULL);
    size_t n = 32;
    /* The library refuses the all-zero result of a low-order point. */
    bool ok = c != NULL && p != NULL && EVP_PKEY_derive_init(c) == 1 &&
              EVP_PKEY_derive_set_peer(c, p) == 1 && EVP_PKEY_derive(c, shared, &n) == 1 && n == 32;
    EVP_PKEY_CTX_free(c);
    EVP_PKEY_free(p);
    EVP_PKEY_free(k);
    return ok ? 0 : -1;
}

#ifdef EDGED_STREAM_CHACHA20
#define STREAM_BLOCK 64u
#define STREAM_BLOCKS_MAX ((uint64_t)1 << 32) /* its counter */
#else
#define STREAM_BLOCK 16u
#define STREAM_BLOCKS_MAX ((uint64_t)1 << 48)
#endif

#if defined(EDGED_STREAM_CHACHA20) && defined(OPENSSL_IS_BORINGSSL)

struct crypto_stream {
    uint8_t key[32];
};

struct crypto_stream *crypto_stream_new(void) {
    return OPENSSL_malloc(sizeof(struct crypto_stream));
}

int crypto_stream_key(struct crypto_stream *s, const uint8_t key[32]) {
    memcpy(s->key, key, 32);
    return 0;
}

static int stream_run(struct crypto_stream *s, uint64_t block, uint8_t *out, size_t size_bytes) {
    static const uint8_t nonce[12];
    CRYPTO_chacha_20(out, out, size_bytes, s->key, nonce, (uint32_t)block);
    return 0;
}

void crypto_stream_free(struct crypto_stream *s) {
    if (s != NULL)
        crypto_wipe(s, sizeof(*s));
    OPENSSL_free(s);
}

#else

struct crypto_stream *crypto_stream_new(void) {
    return (struct crypto_stream *)EVP_CIPHER_CTX_new();
}

int crypto_stream_key(struct crypto_stream *s, const uint8_t key[32]) {
#ifdef EDGED_STREAM_CHACHA20
    const EVP_CIPHER *cipher = EVP_chacha20();
#else
    const EVP_CIPHER *cipher = EVP_aes_256_ctr();
#endif
    return EVP_EncryptInit_ex((EVP_CIPHER_CTX *)s, cipher, NULL, key, NULL) == 1 ? 0 : -1;
}

static int stream_run(struct crypto_stream *s, uint64_t block, uint8_t *out, size_t size_bytes) {
    uint8_t iv[16] = {0};
    int n = 0;
#ifdef EDGED_STREAM_CHACHA20
    store_le32(iv, (uint32_t)block);
#else
    for (uint32_t i = 0; i < 8; i++)
        iv[15 - i] = (uint8_t)(block >> (8 * i));
#endif
    return EVP_EncryptInit_ex((EVP_CIPHER_CTX *)s, NULL, NULL, NULL, iv) == 1 &&
                   EVP_EncryptUpdate((EVP_CIPHER_CTX *)s, out, &n, out, (int)size_bytes) == 1 &&
                   n == (int)size_bytes
               ? 0
               : -1;
}

void crypto_stream_free(struct crypto_stream *s) {
    EVP_CIPHER_CTX_free((EVP_CIPHER_CTX *)s);
}

#endif

int crypto_stream_fill(struct crypto_stream *s, uint64_t offset, uint8_t *out, size_t size_bytes) {
    size_t skip = (size_t)(offset % STREAM_BLOCK);

    if ((offset + size_bytes) / STREAM_BLOCK >= STREAM_BLOCKS_MAX)
        return -1;

    if (skip != 0) { /* the rest of a begun block */
        uint8_t head[STREAM_BLOCK] = {0};
        size_t n = STREAM_BLOCK - skip < size_bytes ? STREAM_BLOCK - skip : size_bytes;
        if (stream_run(s, offset / STREAM_BLOCK, head, sizeof(head)) != 0)
            return -1;
        memcpy(out, head + skip, n);
        crypto_wipe(head, sizeof(head));
        out += n;
        offset += n;
        size_bytes -= n;
    }
    memset(out, 0, size_bytes);
    return size_bytes == 0 ? 0 : stream_run(s, offset / STREAM_BLOCK, out, size_bytes);
}

int crypto_init(void) {
    static bool touched; /* an application asks again, behind its port */
    if (touched)
        return 0;
    static const uint8_t one[32] = {1};
    uint8_t a[32], b[64], nonce[12] = {0};
    struct crypto_stream *s = crypto_stream_new();
    struct crypto_hash *h = crypto_hash_new();
    bool ok = s != NULL && h != NULL && crypto_stream_key(s, one) == 0 &&
              crypto_stream_fill(s, 1, b, sizeof(b)) == 0 && crypto_hash_update(h, one, 1) == 0 &&
              crypto_hash_final(h, a) == 0 && crypto_hkdf_sha256(one, 32, one, 32, one, 1, a, 32) == 0 &&
              crypto_sha256(one, 1, a) == 0 && crypto_x25519_public(one, a) == 0 &&
              crypto_x25519(one, a, b) == 0;
    for (size_t key_bytes = 16; ok && key_bytes <= 32; key_bytes += 16)
        ok = crypto_gcm_seal(one, key_bytes, nonce, one, 1, one, 16, b) == 0 &&
             crypto_gcm_open(one, key_bytes, nonce, one, 1, b, 16, a) == 0;
    memset(b, 0, sizeof(b));
    (void)crypto_ed25519_verify(one, one, 1, b); /* refused; but fetched */
    crypto_stream_free(s);
    crypto_hash_free(h);
    touched = ok && crypto_rsa_touch() == 0;
    return touched ? 0 : -1;
}
