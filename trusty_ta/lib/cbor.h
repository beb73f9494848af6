/*
 * cbor.h - the deterministic CBOR (RFC 8949, section 4.2) that edged reads and
 * writes: integers (read: unsigned), byte and text strings, arrays, maps, true and
 * false, tags. The caller gives a map's keys in their order. The reader accepts only
 * the shortest form; the first error sticks.
 */
#ifndef EDGED_CBOR_H
#define EDGED_CBOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cbor_reader {
    const uint8_t *data;
    size_t size;
    size_t at;
    bool failed;
};

uint64_t cbor_read_uint(struct cbor_reader *r, uint64_t most);
const uint8_t *cbor_read_bytes(struct cbor_reader *r, size_t least, size_t most, size_t *size_bytes);
/* Exactly so many; on failure out is left as it was. */
void cbor_read_fixed(struct cbor_reader *r, uint8_t *out, size_t size_bytes);
const uint8_t *cbor_read_text(struct cbor_reader *r, size_t least, size_t most, size_t *size_bytes);
size_t cbor_read_array(struct cbor_reader *r, size_t least, size_t most);
void cbor_expect_map(struct cbor_reader *r, size_t pairs);
void cbor_expect_text(struct cbor_reader *r, const char *text);
/* Exactly these bytes come next (fixed prefixes). */
void cbor_expect(struct cbor_reader *r, const uint8_t *bytes, size_t size_bytes);
/* True when nothing failed and nothing is left. */
bool cbor_done(const struct cbor_reader *r);

struct cbor_writer {
    uint8_t *data;
    size_t size;
    size_t at;
    bool failed;
};

void cbor_write_map(struct cbor_writer *w, uint64_t pairs);
void cbor_write_uint(struct cbor_writer *w, uint64_t v);
void cbor_write_int(struct cbor_writer *w, int64_t v);
void cbor_write_bool(struct cbor_writer *w, bool v);
void cbor_write_array(struct cbor_writer *w, uint64_t items);
void cbor_write_tag(struct cbor_writer *w, uint64_t tag);
void cbor_write_text(struct cbor_writer *w, const char *text);
void cbor_write_bytes(struct cbor_writer *w, const uint8_t *bytes, size_t size_bytes);
/* Head of an item of major type `major` (0..7) and argument v. */
void cbor_write_head(struct cbor_writer *w, uint8_t major, uint64_t v);

#endif
