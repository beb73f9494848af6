/*
 * vector.h - named bytes: what tests/c/vectors.py wrote for a test, and what a
 * test dumps for it to compare.
 *
 * A file is a row of { u32 name_bytes, u32 0, u64 size_bytes, name, bytes }, name
 * and bytes padded with zeros to multiples of 8, little-endian.
 */
#ifndef EDGED_TEST_VECTOR_H
#define EDGED_TEST_VECTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* A test stops at the first thing that does not hold, and says where. */
#define CHECK(CONDITION, ...)                                         \
    do {                                                              \
        if (!(CONDITION)) {                                           \
            fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);           \
            fprintf(stderr, __VA_ARGS__);                             \
            fprintf(stderr, ": %s does not hold\n", #CONDITION);      \
            abort();                                                  \
        }                                                             \
    } while (0)

void vector_open(const char *path);

/* The bytes of that name, aligned to 8; *size_bytes may be NULL. Stops when there are none. */
const void *vector_get(const char *name, size_t *size_bytes);
bool vector_has(const char *name);

void dump_open(const char *path);
void dump_put(const char *name, const void *bytes, size_t size_bytes);
void dump_close(void);

#endif
