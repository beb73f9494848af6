#include "vector.h"

#include <string.h>

static uint8_t *file;
static size_t file_bytes;
static FILE *dump;

static size_t padded(size_t n) {
    return (n + 7) & ~(size_t)7;
}

void vector_open(const char *path) {
    FILE *f = fopen(path, "rb");

    CHECK(f != NULL, "%s", path);
    CHECK(fseek(f, 0, SEEK_END) == 0, "%s", path);
    file_bytes = (size_t)ftell(f);
    rewind(f);
    free(file);
    file = malloc(file_bytes + 1);
    CHECK(file != NULL && fread(file, 1, file_bytes, f) == file_bytes, "%s", path);
    fclose(f);
}

static const uint8_t *find(const char *name, size_t *size_bytes) {
    for (size_t at = 0; at < file_bytes;) {
        uint32_t name_bytes;
        uint64_t size;
        memcpy(&name_bytes, file + at, sizeof(name_bytes));
        memcpy(&size, file + at + 8, sizeof(size));
        const uint8_t *found = file + at + 16;
        at += 16 + padded(name_bytes) + padded((size_t)size);
        if (name_bytes == strlen(name) && memcmp(found, name, name_bytes) == 0) {
            *size_bytes = (size_t)size;
            return found + padded(name_bytes);
        }
    }
    return NULL;
}

bool vector_has(const char *name) {
    size_t n;
    return find(name, &n) != NULL;
}

const void *vector_get(const char *name, size_t *size_bytes) {
    size_t n = 0;
    const uint8_t *p = find(name, &n);

    CHECK(p != NULL, "vector %s", name);
    if (size_bytes != NULL)
        *size_bytes = n;
    return p;
}

void dump_open(const char *path) {
    dump = fopen(path, "wb");
    CHECK(dump != NULL, "%s", path);
}

static void put_padded(const void *bytes, size_t n) {
    static const uint8_t zero[8];
    CHECK(n == 0 || fwrite(bytes, 1, n, dump) == n, "dump");
    CHECK(fwrite(zero, 1, padded(n) - n, dump) == padded(n) - n, "dump");
}

void dump_put(const char *name, const void *bytes, size_t size_bytes) {
    const uint32_t head[2] = {(uint32_t)strlen(name), 0};
    const uint64_t size = size_bytes;

    if (dump == NULL)
        return;
    put_padded(head, sizeof(head));
    put_padded(&size, sizeof(size));
    put_padded(name, head[0]);
    put_padded(bytes, size_bytes);
}

void dump_close(void) {
    CHECK(fclose(dump) == 0, "dump");
    dump = NULL;
}
