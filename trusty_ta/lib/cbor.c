#include "cbor.h"

#include <string.h>

enum {
    CBOR_UINT = 0,
    CBOR_NEGATIVE = 1,
    CBOR_BYTES = 2,
    CBOR_TEXT = 3,
    CBOR_ARRAY = 4,
    CBOR_MAP = 5,
    CBOR_TAG = 6,
    CBOR_SIMPLE = 7
};

static bool reader_has(struct cbor_reader *r, size_t n) {
    if (r->failed || r->size - r->at < n)
        r->failed = true;
    return !r->failed;
}

/* An item's argument, in its shortest form and at most `most`. */
static uint64_t read_head(struct cbor_reader *r, uint8_t major, uint64_t least, uint64_t most) {
    uint64_t v = 0;

    if (!reader_has(r, 1))
        return 0;
    uint8_t first = r->data[r->at], low = first & 31;
    if (first >> 5 != major || low > 27) {
        r->failed = true;
        return 0;
    }
    r->at++;
    if (low < 24) {
        v = low;
    } else {
        static const uint64_t shortest[4] = {24, 0x100, 0x10000, 0x100000000};
        size_t n = (size_t)1 << (low - 24);
        if (!reader_has(r, n))
            return 0;
        for (size_t i = 0; i < n; i++)
            v = v << 8 | r->data[r->at++];
        if (v < shortest[low - 24])
            r->failed = true;
    }
    if (v < least || v > most)
        r->failed = true;
    return r->failed ? 0 : v;
}

uint64_t cbor_read_uint(struct cbor_reader *r, uint64_t most) {
    return read_head(r, CBOR_UINT, 0, most);
}

static const uint8_t *read_string(struct cbor_reader *r, uint8_t major, size_t least, size_t most,
                                  size_t *size_bytes) {
    size_t n = (size_t)read_head(r, major, least, most);

    *size_bytes = 0;
    if (!reader_has(r, n))
        return r->data;
    *size_bytes = n;
    r->at += n;
    return r->data + r->at - n;
}

const uint8_t *cbor_read_bytes(struct cbor_reader *r, size_t least, size_t most, size_t *size_bytes) {
    return read_string(r, CBOR_BYTES, least, most, size_bytes);
}

void cbor_read_fixed(struct cbor_reader *r, uint8_t *out, size_t size_bytes) {
    size_t n;
    const uint8_t *s = cbor_read_bytes(r, size_bytes, size_bytes, &n);

    memcpy(out, s, n);
}

/* UTF-8 without overlong forms, surrogates or values past U+10FFFF. */
static bool is_utf8(const uint8_t *s, size_t n) {
    for (size_t i = 0; i < n;) {
        uint32_t c = s[i], more = c < 0x80 ? 0 : c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
        static const uint32_t least[4] = {0, 0x80, 0x800, 0x10000};
        if ((c >= 0x80 && c < 0xc2) || c > 0xf4 || n - i <= more)
            return false;
        c &= more == 0 ? 0x7f : 0x3fu >> more;
        for (uint32_t k = 1; k <= more; k++) {
            if ((s[i + k] & 0xc0) != 0x80)
                return false;
            c = c << 6 | (s[i + k] & 0x3f);
        }
        if (c < least[more] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
            return false;
        i += more + 1;
    }
    return true;
}

const uint8_t *cbor_read_text(struct cbor_reader *r, size_t least, size_t most, size_t *size_bytes) {
    const uint8_t *s = read_string(r, CBOR_TEXT, least, most, size_bytes);

    if (!is_utf8(s, *size_bytes))
        r->failed = true;
    return s;
}

size_t cbor_read_array(struct cbor_reader *r, size_t least, size_t most) {
    return (size_t)read_head(r, CBOR_ARRAY, least, most);
}

void cbor_expect_map(struct cbor_reader *r, size_t pairs) {
    (void)read_head(r, CBOR_MAP, pairs, pairs);
}

void cbor_expect_text(struct cbor_reader *r, const char *text) {
    size_t n = 0, want = strlen(text);
    const uint8_t *s = read_string(r, CBOR_TEXT, want, want, &n);

    if (n != want || memcmp(s, text, n) != 0)
        r->failed = true;
}

void cbor_expect(struct cbor_reader *r, const uint8_t *bytes, size_t size_bytes) {
    if (!reader_has(r, size_bytes))
        return;
    if (memcmp(r->data + r->at, bytes, size_bytes) != 0)
        r->failed = true;
    r->at += size_bytes;
}

bool cbor_done(const struct cbor_reader *r) {
    return !r->failed && r->at == r->size;
}

static void write_raw(struct cbor_writer *w, const void *bytes, size_t n) {
    if (w->failed || w->size - w->at < n) {
        w->failed = true;
        return;
    }
    memcpy(w->data + w->at, bytes, n);
    w->at += n;
}

void cbor_write_head(struct cbor_writer *w, uint8_t major, uint64_t v) {
    uint32_t log = v < 24 ? 0 : v < 0x100 ? 1 : v < 0x10000 ? 2 : v < 0x100000000 ? 3 : 4;
    size_t n = log == 0 ? 0 : (size_t)1 << (log - 1);
    uint8_t head[9];

    head[0] = (uint8_t)((uint32_t)major << 5 | (log == 0 ? (uint32_t)v : 23u + log));
    for (size_t i = 0; i < n; i++)
        head[1 + i] = (uint8_t)(v >> (8 * (n - 1 - i)));
    write_raw(w, head, 1 + n);
}

void cbor_write_map(struct cbor_writer *w, uint64_t pairs) {
    cbor_write_head(w, CBOR_MAP, pairs);
}

void cbor_write_uint(struct cbor_writer *w, uint64_t v) {
    cbor_write_head(w, CBOR_UINT, v);
}

void cbor_write_int(struct cbor_writer *w, int64_t v) {
    if (v < 0)
        cbor_write_head(w, CBOR_NEGATIVE, ~(uint64_t)v); /* -1 - v */
    else
        cbor_write_head(w, CBOR_UINT, (uint64_t)v);
}

void cbor_write_bool(struct cbor_writer *w, bool v) {
    cbor_write_head(w, CBOR_SIMPLE, v ? 21 : 20);
}

void cbor_write_array(struct cbor_writer *w, uint64_t items) {
    cbor_write_head(w, CBOR_ARRAY, items);
}

void cbor_write_tag(struct cbor_writer *w, uint64_t tag) {
    cbor_write_head(w, CBOR_TAG, tag);
}

void cbor_write_text(struct cbor_writer *w, const char *text) {
    cbor_write_head(w, CBOR_TEXT, strlen(text));
    write_raw(w, text, strlen(text));
}

void cbor_write_bytes(struct cbor_writer *w, const uint8_t *bytes, size_t size_bytes) {
    cbor_write_head(w, CBOR_BYTES, size_bytes);
    write_raw(w, bytes, size_bytes);
}
