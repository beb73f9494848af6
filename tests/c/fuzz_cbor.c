/*
 * fuzz_cbor.c - lib/cbor.h: a list of reads on any bytes stays within them, sticks to
 * its first error, and accepts one encoding only: what was read is written again and
 * must be the same bytes.
 */
#include "cbor.h"
#include "fuzz_input.h"
#include "vector.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void inside(const struct cbor_reader *r, const uint8_t *p, size_t n) {
    CHECK(p >= r->data && n <= r->size && (size_t)(p - r->data) <= r->size - n, "%zu bytes", n);
}

static void write_raw(struct cbor_writer *w, const uint8_t *p, size_t n) {
    if (w->failed || w->size - w->at < n) {
        w->failed = true;
        return;
    }
    memcpy(w->data + w->at, p, n);
    w->at += n;
}

static void read_one(struct cbor_reader *r, struct cbor_writer *w, uint8_t how, uint8_t limit) {
    const size_t most = (size_t)limit << (how >> 4);
    const uint8_t *p;
    size_t n = 0;
    uint64_t v;

    switch (how % 7) {
    case 0:
        v = cbor_read_uint(r, (how & 8) != 0 ? UINT64_MAX : most);
        CHECK(v <= most || (how & 8) != 0, "above its bound");
        cbor_write_uint(w, v);
        break;
    case 1:
        p = cbor_read_bytes(r, limit & 3, most, &n);
        inside(r, p, n);
        cbor_write_bytes(w, p, n);
        break;
    case 2:
        p = cbor_read_text(r, limit & 3, most, &n);
        inside(r, p, n);
        cbor_write_head(w, 3, n);
        write_raw(w, p, n);
        break;
    case 3:
        cbor_write_head(w, 4, cbor_read_array(r, limit & 3, most));
        break;
    case 4:
        cbor_expect_map(r, limit);
        cbor_write_map(w, limit);
        break;
    case 5:
        cbor_expect_text(r, "schema");
        cbor_write_text(w, "schema");
        break;
    default:
        cbor_expect(r, (const uint8_t *)"\xa1\x01\x27", 3);
        write_raw(w, (const uint8_t *)"\xa1\x01\x27", 3);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_input in = {.data = data, .left = size};
    uint8_t plan[64], written[8192], *copy;
    const size_t reads = fuzz_bytes(&in, plan, fuzz_byte(&in) % 32 * 2u, sizeof(plan)) / 2;

    copy = malloc(in.left + (in.left == 0)); /* exactly: a sanitizer sees its end */
    CHECK(copy != NULL, "copy");
    memcpy(copy, in.data, in.left);
    struct cbor_reader r = {.data = copy, .size = in.left};
    struct cbor_writer w = {.data = written, .size = sizeof(written)};
    for (size_t i = 0; i < reads && !r.failed; i++) {
        read_one(&r, &w, plan[2 * i], plan[2 * i + 1]);
        CHECK(r.failed || r.at <= r.size, "past the end");
        if (!r.failed && !w.failed)
            CHECK(w.at == r.at && memcmp(written, copy, w.at) == 0, "one encoding only");
    }
    if (r.failed)
        CHECK(cbor_read_uint(&r, UINT64_MAX) == 0 && !cbor_done(&r), "the first error sticks");
    free(copy);
    return 0;
}
