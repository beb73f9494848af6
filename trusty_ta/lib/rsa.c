/*
 * rsa.c - the RSA of crypto.h on OpenSSL 3 or BoringSSL: keys and their encodings, PS256, OAEP.
 */
#include "crypto.h"

#include <assert.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#ifdef OPENSSL_IS_BORINGSSL
#include <openssl/bytestring.h>
#include <openssl/mem.h>
#else
#include <openssl/x509.h>
#endif

#define RSA_SALT_BYTES 32

/* An EVP_PKEY under our own name. The library's calls take no const. */
static EVP_PKEY *key_of(const struct crypto_rsa *k) {
    return (EVP_PKEY *)(uintptr_t)k;
}

static struct crypto_rsa *rsa_draw(int bits) {
    EVP_PKEY_CTX *c = EVP_PKEY_CTX_new_id(EVP_PKEY_RSA, NULL);
    EVP_PKEY *k = NULL;

    if (c == NULL || EVP_PKEY_keygen_init(c) != 1 || EVP_PKEY_CTX_set_rsa_keygen_bits(c, bits) != 1 ||
        EVP_PKEY_keygen(c, &k) != 1)
        k = NULL;
    EVP_PKEY_CTX_free(c);
    return (struct crypto_rsa *)k;
}

struct crypto_rsa *crypto_rsa_new(void) {
    return rsa_draw(8 * (int)CRYPTO_RSA_BYTES);
}

/* The key, if it is one of `least` to `most` bits; else NULL, and it is gone. */
static struct crypto_rsa *rsa_judge(EVP_PKEY *k, int least, int most) {
    if (k != NULL &&
        (EVP_PKEY_id(k) != EVP_PKEY_RSA || EVP_PKEY_bits(k) < least || EVP_PKEY_bits(k) > most)) {
        EVP_PKEY_free(k);
        k = NULL;
    }
    return (struct crypto_rsa *)k;
}

#ifdef OPENSSL_IS_BORINGSSL

/* Not the X509 module's calls: a trusted application need not carry that. */
static EVP_PKEY *parse(EVP_PKEY *(*parser)(CBS *), const uint8_t *der, size_t size_bytes) {
    CBS in;
    CBS_init(&in, der, size_bytes);
    EVP_PKEY *k = parser(&in);
    if (k != NULL && CBS_len(&in) != 0) {
        EVP_PKEY_free(k);
        k = NULL;
    }
    return k;
}

static EVP_PKEY *parse_private(const uint8_t *der, size_t size_bytes) {
    return parse(EVP_parse_private_key, der, size_bytes);
}

static EVP_PKEY *parse_public(const uint8_t *der, size_t size_bytes) {
    return parse(EVP_parse_public_key, der, size_bytes);
}

/* The DER's size, or 0. */
static size_t marshal(int (*marshaller)(CBB *, const EVP_PKEY *), const struct crypto_rsa *k, uint8_t *out,
                      size_t capacity) {
    CBB b;
    size_t n = 0;

    if (CBB_init_fixed(&b, out, capacity) != 1)
        return 0;
    if (marshaller(&b, key_of(k)) != 1 || CBB_finish(&b, NULL, &n) != 1)
        n = 0;
    CBB_cleanup(&b);
    return n;
}

static size_t marshal_private(const struct crypto_rsa *k, uint8_t *out, size_t capacity) {
    return marshal(EVP_marshal_private_key, k, out, capacity);
}

static size_t marshal_public(const struct crypto_rsa *k, uint8_t *out, size_t capacity) {
    return marshal(EVP_marshal_public_key, k, out, capacity);
}

#else

static EVP_PKEY *parse_private(const uint8_t *der, size_t size_bytes) {
    const uint8_t *at = der;
    PKCS8_PRIV_KEY_INFO *info = d2i_PKCS8_PRIV_KEY_INFO(NULL, &at, (long)size_bytes);
    EVP_PKEY *k = info != NULL && at == der + size_bytes ? EVP_PKCS82PKEY(info) : NULL;

    PKCS8_PRIV_KEY_INFO_free(info);
    return k;
}

static EVP_PKEY *parse_public(const uint8_t *der, size_t size_bytes) {
    const uint8_t *at = der;
    EVP_PKEY *k = d2i_PUBKEY(NULL, &at, (long)size_bytes);

    if (k != NULL && at != der + size_bytes) {
        EVP_PKEY_free(k);
        k = NULL;
    }
    return k;
}

/* Copies what the library allocated, and wipes that. The DER's size, or 0. */
static size_t take(uint8_t *der, int size_bytes, uint8_t *out, size_t capacity) {
    size_t n = size_bytes > 0 && (size_t)size_bytes <= capacity ? (size_t)size_bytes : 0;

    if (n != 0)
        memcpy(out, der, n);
    OPENSSL_clear_free(der, size_bytes > 0 ? (size_t)size_bytes : 0);
    return n;
}

static size_t marshal_private(const struct crypto_rsa *k, uint8_t *out, size_t capacity) {
    PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(key_of(k));
    uint8_t *der = NULL;
    int n = info == NULL ? -1 : i2d_PKCS8_PRIV_KEY_INFO(info, &der);

    PKCS8_PRIV_KEY_INFO_free(info);
    return take(der, n, out, capacity);
}

static size_t marshal_public(const struct crypto_rsa *k, uint8_t *out, size_t capacity) {
    uint8_t *der = NULL;
    int n = i2d_PUBKEY(key_of(k), &der);

    return take(der, n, out, capacity);
}

#endif

struct crypto_rsa *crypto_rsa_private(const uint8_t *pkcs8, size_t size_bytes) {
    return rsa_judge(parse_private(pkcs8, size_bytes), 2048, 2048);
}

struct crypto_rsa *crypto_rsa_public(const uint8_t *spki, size_t size_bytes) {
    return rsa_judge(parse_public(spki, size_bytes), 2048, 3072);
}

void crypto_rsa_free(struct crypto_rsa *k) {
    EVP_PKEY_free((EVP_PKEY *)k);
}

int crypto_rsa_pkcs8(const struct crypto_rsa *k, uint8_t out[CRYPTO_RSA_PRIVATE_MAX], size_t *size_bytes) {
    *size_bytes = marshal_private(k, out, CRYPTO_RSA_PRIVATE_MAX);
    return *size_bytes != 0 ? 0 : -1;
}

int crypto_rsa_spki(const struct crypto_rsa *k, uint8_t out[CRYPTO_RSA_SPKI_BYTES]) {
    return marshal_public(k, out, CRYPTO_RSA_SPKI_BYTES) == CRYPTO_RSA_SPKI_BYTES ? 0 : -1;
}

/*
 * Read off the SubjectPublicKeyInfo, which has one form for 2048 bits and 65537:
 * the two libraries have no call in common for them.
 */
int crypto_rsa_numbers(const struct crypto_rsa *k, uint8_t modulus[CRYPTO_RSA_BYTES],
                       uint8_t exponent[CRYPTO_RSA_EXPONENT_BYTES]) {
    static const uint8_t before[] = {
        0x30, 0x82, 0x01, 0x22, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, /* rsaEncryption, NULL */
        0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00, 0x03, 0x82, 0x01, 0x0f, 0x00,
        0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00};
    static const uint8_t after[] = {0x02, 0x03, 0x01, 0x00, 0x01};
    uint8_t spki[CRYPTO_RSA_SPKI_BYTES];

    static_assert(sizeof(before) + CRYPTO_RSA_BYTES + sizeof(after) == CRYPTO_RSA_SPKI_BYTES, "one form");
    if (crypto_rsa_spki(k, spki) != 0 || memcmp(spki, before, sizeof(before)) != 0 ||
        memcmp(spki + sizeof(before) + CRYPTO_RSA_BYTES, after, sizeof(after)) != 0)
        return -1;
    memcpy(modulus, spki + sizeof(before), CRYPTO_RSA_BYTES);
    memcpy(exponent, after + 2, CRYPTO_RSA_EXPONENT_BYTES);
    return 0;
}

static bool is_ps256(EVP_PKEY_CTX *c) {
    return EVP_PKEY_CTX_set_rsa_padding(c, RSA_PKCS1_PSS_PADDING) == 1 &&
           EVP_PKEY_CTX_set_rsa_pss_saltlen(c, RSA_SALT_BYTES) == 1 &&
           EVP_PKEY_CTX_set_rsa_mgf1_md(c, EVP_sha256()) == 1;
}

static int rsa_sign(const struct crypto_rsa *k, const uint8_t *message, size_t size_bytes, uint8_t *signature,
                    size_t signature_bytes) {
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    EVP_PKEY_CTX *p = NULL; /* belongs to c */
    size_t n = signature_bytes;
    bool ok = c != NULL && EVP_DigestSignInit(c, &p, EVP_sha256(), NULL, key_of(k)) == 1 && is_ps256(p) &&
              EVP_DigestSign(c, signature, &n, message, size_bytes) == 1 && n == signature_bytes;

    EVP_MD_CTX_free(c);
    return ok ? 0 : -1;
}

int crypto_rsa_sign(const struct crypto_rsa *k, const uint8_t *message, size_t size_bytes,
                    uint8_t signature[CRYPTO_RSA_BYTES]) {
    return rsa_sign(k, message, size_bytes, signature, CRYPTO_RSA_BYTES);
}

int crypto_rsa_verify(const struct crypto_rsa *k, const uint8_t *message, size_t size_bytes,
                      const uint8_t *signature, size_t signature_bytes) {
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    EVP_PKEY_CTX *p = NULL;
    bool ok = c != NULL && EVP_DigestVerifyInit(c, &p, EVP_sha256(), NULL, key_of(k)) == 1 && is_ps256(p) &&
              EVP_DigestVerify(c, signature, signature_bytes, message, size_bytes) == 1;

    EVP_MD_CTX_free(c);
    return ok ? 0 : -1;
}

/* The library takes the label over, and frees it. */
static bool is_oaep(EVP_PKEY_CTX *c, const uint8_t *label, size_t label_bytes) {
#ifdef OPENSSL_IS_BORINGSSL
    const size_t label_size = label_bytes;
#else
    const int label_size = (int)label_bytes;
#endif
    uint8_t *copy;

    if (EVP_PKEY_CTX_set_rsa_padding(c, RSA_PKCS1_OAEP_PADDING) != 1 ||
        EVP_PKEY_CTX_set_rsa_oaep_md(c, EVP_sha256()) != 1 ||
        EVP_PKEY_CTX_set_rsa_mgf1_md(c, EVP_sha256()) != 1)
        return false;
    if (label_bytes == 0) /* already so */
        return true;
    copy = OPENSSL_memdup(label, label_bytes);
    if (copy != NULL && EVP_PKEY_CTX_set0_rsa_oaep_label(c, copy, label_size) == 1)
        return true;
    OPENSSL_free(copy);
    return false;
}

int crypto_rsa_decrypt(const struct crypto_rsa *k, const uint8_t *label, size_t label_bytes,
                       const uint8_t sealed[CRYPTO_RSA_BYTES], uint8_t out[CRYPTO_OAEP_MAX],
                       size_t *size_bytes) {
    EVP_PKEY_CTX *c = EVP_PKEY_CTX_new(key_of(k), NULL);
    uint8_t block[CRYPTO_RSA_BYTES]; /* the library wants room for a whole block */
    size_t n = sizeof(block);
    bool ok = c != NULL && EVP_PKEY_decrypt_init(c) == 1 && is_oaep(c, label, label_bytes) &&
              EVP_PKEY_decrypt(c, block, &n, sealed, CRYPTO_RSA_BYTES) == 1 && n <= CRYPTO_OAEP_MAX;

    memset(out, 0, CRYPTO_OAEP_MAX);
    *size_bytes = ok ? n : 0;
    memcpy(out, block, *size_bytes);
    crypto_wipe(block, sizeof(block));
    EVP_PKEY_CTX_free(c);
    return ok ? 0 : -1;
}

/* With the smallest key that holds a PSS salt and an OAEP block: a full one takes its time at every start. */
int crypto_rsa_touch(void) {
    static const uint8_t one[1] = {1};
    uint8_t der[CRYPTO_RSA_PRIVATE_MAX], signature[1024 / 8], out[CRYPTO_OAEP_MAX];
    struct crypto_rsa *k = rsa_draw(8 * (int)sizeof(signature)), *again = NULL, *public = NULL;
    size_t n = k == NULL ? 0 : marshal_private(k, der, sizeof(der)), m = 0;
    bool ok = n != 0 && (again = (struct crypto_rsa *)parse_private(der, n)) != NULL &&
              (n = marshal_public(again, der, sizeof(der))) != 0 &&
              (public = (struct crypto_rsa *)parse_public(der, n)) != NULL &&
              rsa_sign(again, one, 1, signature, sizeof(signature)) == 0 &&
              crypto_rsa_verify(public, one, 1, signature, sizeof(signature)) == 0;
    EVP_PKEY_CTX *c = k == NULL ? NULL : EVP_PKEY_CTX_new(key_of(k), NULL);

    m = sizeof(out);
    if (c != NULL && EVP_PKEY_decrypt_init(c) == 1 && is_oaep(c, one, 1)) /* refused; but fetched */
        (void)EVP_PKEY_decrypt(c, out, &m, signature, sizeof(signature));
    else
        ok = false;
    EVP_PKEY_CTX_free(c);
    crypto_rsa_free(public);
    crypto_rsa_free(again);
    crypto_rsa_free(k);
    return ok ? 0 : -1;
}
